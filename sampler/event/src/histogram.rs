//! Mergeable histogram of times.
//!
//! Input: times in µs, counts per bucket, or other histograms. Output: quantiles by nearest rank, buckets, and the serialised form
//! of `hdrhistogram`. Merging adds integers, so that the merge of parts is bit for bit the histogram of the whole, in any order.
//! Limits: a counter stops at 2^64 − 1; memory is 8 bytes per bucket of the layout (5.1 kB for round-trip times).

use std::ops::RangeInclusive;

use hdrhistogram::serialization::{Serializer, V2SerializeError, V2Serializer};
use thiserror::Error;

use crate::Layout;

/// Why a histogram operation was refused.
#[derive(Debug, Error)]
pub enum HistogramError {
    /// The two histograms do not have the same buckets.
    #[error("histograms of {left} and {right} buckets do not merge")]
    Layout {
        /// Buckets of the one.
        left: usize,
        /// Buckets of the other.
        right: usize,
    },
    /// There is no such bucket.
    #[error("bucket {index} of a histogram of {buckets} buckets")]
    Bucket {
        /// Index asked for.
        index: usize,
        /// Number of buckets.
        buckets: usize,
    },
    /// `hdrhistogram` would not have the values.
    #[error("export: {0}")]
    Export(String),
}

impl From<V2SerializeError> for HistogramError {
    fn from(error: V2SerializeError) -> Self {
        Self::Export(format!("{error:?}"))
    }
}

/// A bucket that holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its index in the layout.
    pub index: usize,
    /// Least time that falls in it.
    pub low_us: u64,
    /// Greatest time that falls in it.
    pub last_us: u64,
    /// Samples.
    pub count: u64,
}

/// Counts per bucket, with the tightest known bounds of all samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    layout: Layout,
    counts: Vec<u64>,
    count: u64,
    min_us: u64,
    max_us: u64,
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            counts: vec![0; layout.buckets()],
            count: 0,
            min_us: u64::MAX,
            max_us: 0,
        }
    }

    /// Its layout.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Number of samples.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Counts of all buckets.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Tightest known bounds of all samples: exact for recorded times, the ends of the buckets for counts. None when empty.
    #[must_use]
    pub fn bounds_us(&self) -> Option<RangeInclusive<u64>> {
        (self.count > 0).then_some(self.min_us..=self.max_us)
    }

    /// Adds one sample.
    pub fn record(&mut self, value_us: u64) {
        self.put(self.layout.index(value_us), 1, value_us, value_us);
    }

    /// Adds samples of which only the bucket is known.
    ///
    /// # Errors
    /// If there is no such bucket.
    pub fn add(&mut self, index: usize, count: u64) -> Result<(), HistogramError> {
        if index >= self.counts.len() {
            return Err(HistogramError::Bucket {
                index,
                buckets: self.counts.len(),
            });
        }
        if count > 0 {
            self.put(
                index,
                count,
                self.layout.low_us(index),
                self.layout.last_us(index),
            );
        }
        Ok(())
    }

    fn put(&mut self, index: usize, count: u64, min_us: u64, max_us: u64) {
        self.counts[index] = self.counts[index].saturating_add(count);
        self.count = self.count.saturating_add(count);
        self.min_us = self.min_us.min(min_us);
        self.max_us = self.max_us.max(max_us);
    }

    /// Adds the (index, count) pairs of one part, in order, whose least and greatest sample may be known. The known ones replace
    /// the ends of the first and the last bucket of the part, if they lie in them.
    pub(crate) fn add_part(
        &mut self,
        pairs: impl Iterator<Item = (usize, u64)>,
        known_us: Option<(u64, u64)>,
    ) {
        let buckets = self.counts.len();
        let mut ends = None;
        let before = (self.min_us, self.max_us);
        for (index, count) in pairs.take_while(|(index, _)| *index < buckets) {
            self.put(index, count, u64::MAX, 0);
            ends = Some((ends.map_or(index, |(first, _)| first), index));
        }
        let Some((first, last)) = ends else { return };
        let bounds = (self.layout.low_us(first), self.layout.last_us(last));
        let (min_us, max_us) = known_us.map_or(bounds, |known| self.layout.tightest(bounds, known));
        self.min_us = before.0.min(min_us);
        self.max_us = before.1.max(max_us);
    }

    /// Narrows the bounds to a known least and greatest sample. A value that cannot be right, because it lies outside the first
    /// or the last bucket in use, changes nothing.
    pub fn tighten(&mut self, min_us: u64, max_us: u64) {
        if self.count > 0 {
            (self.min_us, self.max_us) = self
                .layout
                .tightest((self.min_us, self.max_us), (min_us, max_us));
        }
    }

    /// Adds all samples of another histogram.
    ///
    /// # Errors
    /// If the layouts differ; then nothing is changed.
    pub fn merge(&mut self, other: &Self) -> Result<(), HistogramError> {
        if self.layout != other.layout {
            return Err(HistogramError::Layout {
                left: self.counts.len(),
                right: other.counts.len(),
            });
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine = mine.saturating_add(*theirs);
        }
        self.count = self.count.saturating_add(other.count);
        self.min_us = self.min_us.min(other.min_us);
        self.max_us = self.max_us.max(other.max_us);
        Ok(())
    }

    /// The buckets that hold something, in order.
    pub fn iter(&self) -> impl Iterator<Item = Bucket> {
        let layout = self.layout;
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(move |(index, &count)| Bucket {
                index,
                low_us: layout.low_us(index),
                last_us: layout.last_us(index),
                count,
            })
    }

    /// The value that stands for a bucket of this histogram: the middle, clamped by the known bounds.
    #[must_use]
    pub fn value_us(&self, index: usize) -> u64 {
        self.layout
            .midpoint_us(index)
            .max(self.min_us.min(self.max_us))
            .min(self.max_us)
    }

    /// Quantile by nearest rank: the value at rank ⌈q·n⌉. None when empty. `q` counts in steps of one millionth, so that
    /// 0.999 of 1,000 samples is the 999th and no rounding of binary fractions moves it.
    #[must_use]
    pub fn quantile_us(&self, q: f64) -> Option<u64> {
        let ppm = (q.clamp(0.0, 1.0) * 1e6).round() as u128;
        let rank = (u128::from(self.count) * ppm).div_ceil(1_000_000).max(1);
        let mut seen = 0;
        self.iter().find_map(|bucket| {
            seen += u128::from(bucket.count);
            (seen >= rank).then(|| self.value_us(bucket.index))
        })
    }

    /// The histogram as `hdrhistogram` has it, three significant digits, every bucket at the value that stands for it.
    ///
    /// # Errors
    /// If `hdrhistogram` refuses a value, which no value of these layouts gives reason for.
    pub fn to_hdr(&self) -> Result<hdrhistogram::Histogram<u64>, HistogramError> {
        let highest_us = self.layout.low_us(self.layout.buckets() - 1);
        let mut export = hdrhistogram::Histogram::new_with_bounds(1, highest_us, 3)
            .map_err(|error| HistogramError::Export(error.to_string()))?;
        for bucket in self.iter() {
            export.saturating_record_n(self.value_us(bucket.index), bucket.count);
        }
        Ok(export)
    }

    /// The serialised V2 form of `hdrhistogram`, which its tools in other languages read.
    ///
    /// # Errors
    /// If a count is above 2^63 − 1, which the form cannot hold.
    pub fn to_hdr_v2(&self) -> Result<Vec<u8>, HistogramError> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&self.to_hdr()?, &mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;

    use super::Histogram;
    use crate::Layout;

    #[test]
    fn nearest_rank_on_known_samples() {
        let mut histogram = Histogram::new(Layout::RTT);
        assert_eq!(histogram.quantile_us(0.5), None);
        for octave in 6..16 {
            histogram.record(1 << octave);
        }
        // Ten samples: 0.1 is the first, 0.11 the second. A bucket's middle stands for a sample, the bounds are exact.
        for (q, expected_us) in [
            (0.0, 64),
            (0.1, 64),
            (0.11, 129),
            (0.5, 1039),
            (0.7, 4159),
            (1.0, 32768),
        ] {
            assert_eq!(histogram.quantile_us(q), Some(expected_us), "{q}");
        }
        assert_eq!(histogram.quantile_us(f64::NAN), Some(64));
    }

    #[test]
    fn bounds_narrow_only_to_what_is_possible() {
        let mut histogram = Histogram::new(Layout::RTT);
        histogram.tighten(1, 2);
        assert_eq!(histogram.bounds_us(), None);
        let index = Layout::RTT.index(1000);
        histogram.add(index, 3).expect("in range");
        let bucket = Layout::RTT.low_us(index)..=Layout::RTT.last_us(index);
        for (min_us, max_us) in [(0, 5000), (1001, 999), (u64::MAX, u64::MAX)] {
            histogram.tighten(min_us, max_us);
            assert_eq!(histogram.bounds_us(), Some(bucket.clone()));
        }
        histogram.tighten(993, 994);
        assert_eq!(
            (histogram.bounds_us(), histogram.quantile_us(0.5)),
            (Some(993..=994), Some(994))
        );
    }

    #[test]
    fn other_layouts_and_buckets_are_refused() {
        let mut histogram = Histogram::new(Layout::COARSE);
        assert!(histogram.merge(&Histogram::new(Layout::RTT)).is_err());
        assert!(histogram.add(161, 1).is_ok());
        let error = histogram.add(162, 1).expect_err("past the end");
        assert_eq!(
            error.to_string(),
            "bucket 162 of a histogram of 162 buckets"
        );
        assert_eq!(histogram.count(), 1);
    }

    #[test]
    fn counts_stop_at_their_limit() {
        let mut histogram = Histogram::new(Layout::COARSE);
        for _ in 0..2 {
            histogram.add(7, u64::MAX).expect("in range");
            histogram.add(90, 5).expect("in range");
        }
        assert_eq!(histogram.count(), u64::MAX);
        assert!(histogram.quantile_us(0.5).is_some());
        assert!(histogram.to_hdr_v2().is_err());
    }

    #[test]
    fn export_reads_back_with_the_same_quantiles() {
        let mut histogram = Histogram::new(Layout::RTT);
        (1..=20_000).for_each(|step| histogram.record(step * 37));
        let bytes = histogram.to_hdr_v2().expect("serialises");
        let read: hdrhistogram::Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .expect("deserialises");
        assert_eq!(read.len(), 20_000);
        for q in [0.01, 0.5, 0.9, 0.99, 0.999] {
            let ours_us = histogram.quantile_us(q).expect("not empty");
            let theirs_us = read.value_at_quantile(q);
            assert!(
                ours_us.abs_diff(theirs_us) <= ours_us / 1000 + 1,
                "{q}: {ours_us} {theirs_us}"
            );
        }
    }
}
