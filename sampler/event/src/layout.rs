//! Log-linear bucket layout of a histogram of times.
//!
//! Input: a time in µs. Output: the index of its bucket, and the bounds of a bucket. The first bucket is [0, 64 µs), the last is
//! 2^26 µs (67.1 s) and above; between them lie 20 octaves of 2^n equal buckets each. With n = 5 the middle of a bucket is at most
//! 1/64 (1.6 %) of the value away from it, with n = 3 at most 1/16 (6.3 %).

/// First octave that is divided: below 2^6 µs there is one bucket.
const FIRST_OCTAVE: u32 = 6;
/// First octave that is no longer divided: from 2^26 µs on there is one bucket.
const END_OCTAVE: u32 = 26;

/// A bucket layout; two histograms merge only if they have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layout {
    sub_bits: u32,
}

impl Layout {
    /// Round-trip times: 32 buckets per octave, 642 in all.
    pub const RTT: Self = Self { sub_bits: 5 };
    /// Handshakes and least round-trip times: 8 buckets per octave, 162 in all.
    pub const COARSE: Self = Self { sub_bits: 3 };

    /// Number of buckets.
    #[must_use]
    pub const fn buckets(self) -> usize {
        ((END_OCTAVE - FIRST_OCTAVE) as usize * (1 << self.sub_bits)) + 2
    }

    /// Bucket of a time.
    #[must_use]
    pub const fn index(self, value_us: u64) -> usize {
        if value_us < 1 << FIRST_OCTAVE {
            return 0;
        }
        let octave = value_us.ilog2();
        if octave >= END_OCTAVE {
            return self.buckets() - 1;
        }
        let mask = (1 << self.sub_bits) - 1;
        let sub = (value_us >> (octave - self.sub_bits)) & mask;
        1 + ((octave - FIRST_OCTAVE) as usize * (1 << self.sub_bits)) + sub as usize
    }

    /// Least time that falls in a bucket; indexes past the last bucket read as the last.
    #[must_use]
    pub const fn low_us(self, index: usize) -> u64 {
        if index == 0 {
            return 0;
        }
        if index >= self.buckets() - 1 {
            return 1 << END_OCTAVE;
        }
        let octave = FIRST_OCTAVE + ((index - 1) >> self.sub_bits) as u32;
        let sub = (index - 1) as u64 & ((1 << self.sub_bits) - 1);
        (1 << octave) + (sub << (octave - self.sub_bits))
    }

    /// Greatest time that falls in a bucket.
    #[must_use]
    pub const fn last_us(self, index: usize) -> u64 {
        if index >= self.buckets() - 1 {
            u64::MAX
        } else {
            self.low_us(index + 1) - 1
        }
    }

    /// The value that stands for a bucket: its middle, or its lower end for the last one, which has no upper end.
    #[must_use]
    pub const fn midpoint_us(self, index: usize) -> u64 {
        let low = self.low_us(index);
        if index >= self.buckets() - 1 {
            low
        } else {
            low + (self.last_us(index) - low) / 2
        }
    }

    /// Bounds, (least, greatest), narrowed to known ones as far as these lie in the same buckets; known ones that contradict
    /// the bounds or each other change nothing.
    pub(crate) fn tightest(self, bounds_us: (u64, u64), known_us: (u64, u64)) -> (u64, u64) {
        let (mut tight, known) = (bounds_us, known_us);
        if known.0 <= known.1 {
            if self.index(known.0) == self.index(tight.0) {
                tight.0 = tight.0.max(known.0);
            }
            if self.index(known.1) == self.index(tight.1) {
                tight.1 = tight.1.min(known.1);
            }
        }
        tight
    }
}

#[cfg(test)]
mod tests {
    use super::Layout;

    fn check(layout: Layout, buckets: usize, error: f64) {
        assert_eq!(layout.buckets(), buckets);
        let mut next_us = 0;
        for index in 0..buckets {
            assert_eq!(layout.low_us(index), next_us, "gap before bucket {index}");
            assert_eq!(layout.index(layout.low_us(index)), index);
            assert_eq!(layout.index(layout.last_us(index)), index);
            let middle = layout.midpoint_us(index);
            assert_eq!(layout.index(middle), index);
            if (1..buckets - 1).contains(&index) {
                for end in [layout.low_us(index), layout.last_us(index)] {
                    assert!(
                        middle.abs_diff(end) as f64 <= error * end as f64,
                        "bucket {index}"
                    );
                }
            }
            next_us = layout.last_us(index).wrapping_add(1);
        }
        assert_eq!(next_us, 0, "the last bucket is open");
    }

    #[test]
    fn buckets_tile_the_numbers_within_their_error() {
        check(Layout::RTT, 642, 1.0 / 64.0);
        check(Layout::COARSE, 162, 1.0 / 16.0);
    }

    #[test]
    fn known_buckets() {
        for (value_us, index) in [
            (63, 0),
            (64, 1),
            (65, 1),
            (66, 2),
            (127, 32),
            (128, 33),
            ((1 << 26) - 1, 640),
            (1 << 26, 641),
        ] {
            assert_eq!(Layout::RTT.index(value_us), index, "{value_us}");
        }
    }
}
