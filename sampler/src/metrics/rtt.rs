//! The RTT histogram in Prometheus's two forms. Pure.
//!
//! Input: our log-linear buckets (32 equal ones per octave, µs). Output: classic buckets and a native histogram, s.
//! Limits, classic: bounds lie on ends of our buckets, so that counts are exact, but for samples of exactly the bound,
//! which count above it (1 µs off). Native: each of our buckets goes as a whole where its middle is. Schema 4 (buckets
//! 4.4 % wide) is the finest that is nowhere finer than ours (3.1 % at most), so that no empty gaps come up; a value is off by at most 1.6 % of ours and then
//! half a native bucket, 3.8 % in all. Below 64 µs lies the zero bucket.

use sampler_event::{Histogram, Layout};

use service::metrics::family::Buckets;

/// 2^4 native buckets per octave.
const SCHEMA: i32 = 4;
/// End of the first of our buckets, µs.
const ZERO_US: u64 = 64;
/// Octaves of the classic bounds: 256 µs to 12.6 s.
const OCTAVES: std::ops::RangeInclusive<u32> = 8..=23;
/// Octaves in which round trips of viewers lie, 1 ms to 1 s: twice as many bounds.
const FINE_OCTAVES: std::ops::Range<u32> = 10..20;

/// Upper bounds of the classic buckets, µs: two per octave, four where it matters.
pub fn classic_bounds_us() -> impl Iterator<Item = u64> {
    OCTAVES.flat_map(|octave| {
        let step = if FINE_OCTAVES.contains(&octave) { 1 } else { 2 };
        (4..8)
            .step_by(step)
            .map(move |quarters: u64| quarters << (octave - 2))
    })
}

/// Both forms of a histogram with a known sum.
pub fn buckets(histogram: &Histogram, sum_us: u64) -> Buckets {
    let layout = histogram.layout();
    let counts = histogram.counts();
    let below = |bound_us: u64| {
        counts[..layout.index(bound_us)]
            .iter()
            .fold(0, |sum: u64, count| sum.saturating_add(*count))
    };
    let mut native: Vec<(i32, u64)> = Vec::new();
    for bucket in histogram.iter().filter(|bucket| bucket.index > 0) {
        let index = native_index(layout, bucket.index);
        match native.last_mut() {
            Some((last, count)) if *last == index => *count = count.saturating_add(bucket.count),
            _ => native.push((index, bucket.count)),
        }
    }
    Buckets {
        count: histogram.count(),
        sum: sum_us as f64 / 1e6,
        classic: classic_bounds_us()
            .map(|bound_us| (bound_us as f64 / 1e6, below(bound_us)))
            .collect(),
        schema: SCHEMA,
        zero_threshold: ZERO_US as f64 / 1e6,
        zero_count: counts.first().copied().unwrap_or(0),
        native,
    }
}

/// The native bucket whose bounds, (2^((i−1)/16), 2^(i/16)] s, hold the middle of ours.
fn native_index(layout: Layout, index: usize) -> i32 {
    let middle_s = layout.midpoint_us(index) as f64 / 1e6;
    (middle_s.log2() * f64::from(1 << SCHEMA)).ceil() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classic_counts_are_exact() {
        let mut histogram = Histogram::new(Layout::RTT);
        let samples: Vec<u64> = (0..4000)
            .map(|step: u64| step * step * 7 % 20_000_000)
            .collect();
        samples
            .iter()
            .for_each(|&sample_us| histogram.record(sample_us));
        let found = buckets(&histogram, samples.iter().sum());
        for (bound_us, (bound_s, count)) in classic_bounds_us().zip(&found.classic) {
            assert_eq!(*bound_s, bound_us as f64 / 1e6);
            assert_eq!(
                *count,
                samples.iter().filter(|sample| **sample < bound_us).count() as u64,
                "{bound_us}"
            );
        }
        assert_eq!(found.count, 4000);
    }

    #[test]
    fn native_buckets_hold_every_sample_near_its_value() {
        for sample_us in [
            64, 65, 99, 100, 1000, 1023, 1024, 20_000, 33_333, 1_000_000, 1_048_576, 40_000_000,
            67_000_000,
        ] {
            let mut histogram = Histogram::new(Layout::RTT);
            histogram.record(sample_us);
            let found = buckets(&histogram, sample_us);
            let [(index, 1)] = found.native[..] else {
                panic!("{found:?}")
            };
            let middle_s = ((f64::from(index) - 0.5) / 16.0).exp2();
            let error = (middle_s * 1e6 / sample_us as f64 - 1.0).abs();
            assert!(error < 0.038, "{sample_us}: {error}");
        }
    }

    #[test]
    fn no_gap_between_native_buckets() {
        let mut histogram = Histogram::new(Layout::RTT);
        (64..3_000_000)
            .step_by(1)
            .for_each(|sample_us| histogram.record(sample_us));
        histogram.record(10);
        let found = buckets(&histogram, 0);
        assert!(
            found
                .native
                .windows(2)
                .all(|pair| pair[0].0 + 1 == pair[1].0),
            "{:?}",
            found.native
        );
        let native: u64 = found.native.iter().map(|(_, count)| count).sum();
        assert_eq!(native + found.zero_count, found.count);
    }
}
