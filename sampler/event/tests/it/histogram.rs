//! Properties of histograms and of their wire form.

use proptest::collection::vec;
use proptest::prelude::*;
use sampler_event::{Histogram, Layout, codec};

/// Times over the whole range, evenly over the octaves, with the ends.
fn times_us() -> impl Strategy<Value = Vec<u64>> {
    let time_us = (0u32..64, any::<u64>())
        .prop_map(|(octave, bits)| (1 << octave) | (bits & ((1 << octave) - 1)));
    vec(
        prop_oneof![20 => time_us, 1 => Just(0), 1 => Just(u64::MAX)],
        0..300,
    )
}

fn of(layout: Layout, times_us: &[u64]) -> Histogram {
    let mut histogram = Histogram::new(layout);
    times_us
        .iter()
        .for_each(|time_us| histogram.record(*time_us));
    histogram
}

fn merged(parts: &[&Histogram]) -> Histogram {
    let mut sum = Histogram::new(parts[0].layout());
    parts
        .iter()
        .for_each(|part| sum.merge(part).expect("one layout"));
    sum
}

proptest! {
    #[test]
    fn merge_of_nodes_is_the_histogram_of_all(a in times_us(), b in times_us(), c in times_us()) {
        for layout in [Layout::RTT, Layout::COARSE] {
            let whole = of(layout, &[a.clone(), b.clone(), c.clone()].concat());
            let (a, b, c) = (of(layout, &a), of(layout, &b), of(layout, &c));
            prop_assert_eq!(&merged(&[&a, &b, &c]), &whole);
            prop_assert_eq!(&merged(&[&c, &merged(&[&b, &a])]), &whole);
            prop_assert_eq!(&merged(&[&merged(&[&a, &c]), &b]), &whole);
            prop_assert_eq!(codec::encode(&merged(&[&b, &c, &a])), codec::encode(&whole));
        }
    }

    #[test]
    fn codec_round_trips(times in times_us(), huge in 0..u64::MAX / 4) {
        for layout in [Layout::RTT, Layout::COARSE] {
            let mut histogram = of(layout, &times);
            histogram.add(17, huge).expect("in range");
            let list = codec::encode(&histogram);
            let read = codec::decode(layout, &list).expect("decodes");
            prop_assert_eq!(read.counts(), histogram.counts());
            prop_assert_eq!(read.count(), histogram.count());
            prop_assert_eq!(codec::encode(&read), list);
        }
    }

    #[test]
    fn junk_is_an_error_or_a_histogram_with_that_very_form(
        list in vec(prop_oneof![4 => -3i64..4, 3 => -200i64..200, 1 => any::<i64>()], 0..40)
    ) {
        for layout in [Layout::RTT, Layout::COARSE] {
            if let Ok(histogram) = codec::decode(layout, &list) {
                prop_assert_eq!(codec::encode(&histogram), list.clone());
            }
        }
    }

    #[test]
    fn quantiles_agree_with_an_exact_sort(
        mut times in vec((6u32..26, any::<u64>()).prop_map(|(o, bits)| (1 << o) | (bits & ((1 << o) - 1))), 1..2000)
    ) {
        let histogram = of(Layout::RTT, &times);
        times.sort_unstable();
        for (ppm, q) in [(1, 1e-6), (500_000, 0.5), (900_000, 0.9), (990_000, 0.99), (999_000, 0.999), (1_000_000, 1.0)] {
            let exact_us = times[(times.len() * ppm).div_ceil(1_000_000).max(1) - 1];
            let ours_us = histogram.quantile_us(q).expect("not empty");
            prop_assert!(
                ours_us.abs_diff(exact_us) as f64 <= 0.016 * exact_us as f64,
                "q {}: {} for {}", q, ours_us, exact_us
            );
        }
    }
}
