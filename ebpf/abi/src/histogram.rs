//! Log-linear histograms of microseconds.
//!
//! Bucket 0 holds everything below 2^[`FIRST_OCTAVE`] µs (64 µs), the last one everything from
//! 2^[`END_OCTAVE`] µs (67.1 s) on; between them each octave has 2^`BITS` linear buckets.

/// Exponent of the first octave.
pub const FIRST_OCTAVE: u32 = 6;
/// Exponent after the last octave.
pub const END_OCTAVE: u32 = 26;
/// Resolution of RTT samples: 32 buckets an octave, so a midpoint is off by at most 1.6 %.
pub const RTT_BITS: u32 = 5;
/// Resolution of handshakes and of minima: 8 buckets an octave.
pub const COARSE_BITS: u32 = 3;
/// Buckets of an RTT histogram.
pub const RTT_BUCKETS: usize = buckets(RTT_BITS);
/// Buckets of a coarse histogram.
pub const COARSE_BUCKETS: usize = buckets(COARSE_BITS);

const fn buckets(bits: u32) -> usize {
    2 + (((END_OCTAVE - FIRST_OCTAVE) as usize) << bits)
}

/// Bucket of `value_us` in a histogram with 2^`BITS` buckets an octave.
#[inline(always)]
pub const fn bucket<const BITS: u32>(value_us: u32) -> usize {
    if value_us >> FIRST_OCTAVE == 0 {
        return 0;
    }
    if value_us >> END_OCTAVE != 0 {
        return buckets(BITS) - 1;
    }
    // BPF has no count-leading-zeros; halving finds the octave in five steps.
    let mut rest = value_us;
    let mut octave = 0;
    if rest >> 16 != 0 {
        octave += 16;
        rest >>= 16;
    }
    if rest >> 8 != 0 {
        octave += 8;
        rest >>= 8;
    }
    if rest >> 4 != 0 {
        octave += 4;
        rest >>= 4;
    }
    if rest >> 2 != 0 {
        octave += 2;
        rest >>= 2;
    }
    octave += rest >> 1;
    let sub = value_us >> (octave - BITS) & ((1 << BITS) - 1);
    1 + (((octave - FIRST_OCTAVE) << BITS) + sub) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lower<const BITS: u32>(index: usize) -> u64 {
        let i = index as u64 - 1;
        let octave = u64::from(FIRST_OCTAVE) + (i >> BITS);
        (1 << octave) + ((i & ((1 << BITS) - 1)) << (octave - u64::from(BITS)))
    }

    #[test]
    fn ends() {
        assert_eq!((RTT_BUCKETS, COARSE_BUCKETS), (642, 162));
        assert_eq!(bucket::<RTT_BITS>(63), 0);
        assert_eq!(bucket::<RTT_BITS>(64), 1);
        assert_eq!(bucket::<RTT_BITS>((1 << 26) - 1), 640);
        assert_eq!(bucket::<RTT_BITS>(1 << 26), 641);
        assert_eq!(bucket::<RTT_BITS>(u32::MAX), 641);
        assert_eq!(bucket::<COARSE_BITS>(u32::MAX), 161);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_value(value in 64u32..1 << 26) {
            let i = bucket::<RTT_BITS>(value);
            prop_assert!(lower::<RTT_BITS>(i) <= value.into());
            prop_assert!(u64::from(value) < lower::<RTT_BITS>(i + 1));
            let i = bucket::<COARSE_BITS>(value);
            prop_assert!(lower::<COARSE_BITS>(i) <= value.into());
            prop_assert!(u64::from(value) < lower::<COARSE_BITS>(i + 1));
        }
    }
}
