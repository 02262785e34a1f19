//! Sums of windows: order never matters, what must not merge stays apart, junk changes nothing.

use proptest::collection::vec;
use proptest::prelude::*;
use sampler_event::{
    Estimate, Histogram, HistogramKind, Layout, Message, Metric, Options, RttSource, StreamWindow,
    SumError, WindowSum,
};

use crate::fixture::{REGION, window};

const CALLBACK: HistogramKind = HistogramKind::Rtt(RttSource::Callback as i32);
const RACK: HistogramKind = HistogramKind::Rtt(RttSource::Rack as i32);

/// A window of one of three nodes and two epochs, whose numbers mean another rate on every node.
fn of_node(seed: u64, node: u64, epoch: u32) -> StreamWindow {
    let source = if node == 2 {
        RttSource::Rack
    } else {
        RttSource::Callback
    };
    StreamWindow {
        node: format!("edge-{node}"),
        instance: node + 1,
        rate_epoch: epoch,
        sampling_rate: 1.0 / (1.0 + node as f64 + f64::from(epoch)),
        rtt_source: source.into(),
        ..window(seed, 20, REGION)
    }
}

fn sum_of<'a>(windows: impl IntoIterator<Item = &'a StreamWindow>) -> WindowSum {
    let mut sum = WindowSum::new("sport-1");
    windows
        .into_iter()
        .for_each(|window| sum.add(window).expect("adds"));
    sum
}

fn merged(parts: &[&WindowSum]) -> WindowSum {
    let mut sum = WindowSum::new("sport-1");
    parts
        .iter()
        .for_each(|part| sum.merge(part).expect("merges"));
    sum
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn order_and_parts_do_not_matter(
        windows in vec((0u64..30, 0u64..3, 0u32..2), 0..12), cut in 0usize..12, other in 0usize..12
    ) {
        let windows: Vec<_> = windows.into_iter().map(|(seed, node, epoch)| of_node(seed, node, epoch)).collect();
        let (cut, other) = (cut.min(other).min(windows.len()), cut.max(other).min(windows.len()));
        let whole = sum_of(&windows);
        prop_assert_eq!(&sum_of(windows.iter().rev()), &whole);
        let parts = [&windows[..cut], &windows[cut..other], &windows[other..]].map(sum_of);
        let [a, b, c] = parts.each_ref();
        prop_assert_eq!(&merged(&[a, b, c]), &whole);
        prop_assert_eq!(&merged(&[c, &merged(&[b, a])]), &whole);
        prop_assert_eq!(&merged(&[&merged(&[a, c]), b]), &whole);
    }

    #[test]
    fn junk_never_panics(bytes in vec(any::<u8>(), 0..300), place in 0usize..600, value in any::<u8>()) {
        let mut wire = window(1, 20, REGION).encode_to_vec();
        let place = place % wire.len();
        wire[place] = value;
        for junk in [wire, bytes] {
            let Ok(window) = StreamWindow::decode(junk.as_slice()) else { continue };
            let mut sum = WindowSum::new(window.stream.clone());
            let before = sum.clone();
            if sum.add(&window).is_err() {
                prop_assert_eq!(&sum, &before);
            }
            for metric in [Metric::RetransSegs, Metric::RetransRatio, Metric::StallRatio] {
                if let Ok(estimate) = metric.estimate(&sum, &Options::default()) {
                    prop_assert!(estimate.low <= estimate.high, "{:?}", estimate);
                }
            }
        }
    }
}

#[test]
fn histogram_of_nodes_is_the_histogram_of_all() {
    let windows: Vec<_> = (0..6).map(|seed| of_node(seed, seed % 2, 0)).collect();
    let mut all = Histogram::new(Layout::RTT);
    for window in &windows {
        let mut part =
            sampler_event::codec::decode(Layout::RTT, &window.rtt_counts).expect("decodes");
        part.tighten(window.rtt_min_us, window.rtt_max_us);
        all.merge(&part).expect("one layout");
    }
    let sum = sum_of(&windows);
    assert_eq!(sum.histogram(CALLBACK), Some(all));
    assert_eq!(
        sum.counters().rtt_count,
        windows.iter().map(|window| window.rtt_count).sum::<u64>()
    );
    assert_eq!((sum.windows(), sum.strata().count()), (6, 2));
}

#[test]
fn two_sources_never_merge() {
    let (callback, rack) = (of_node(1, 0, 0), of_node(2, 2, 0));
    let sum = sum_of([&callback, &rack]);
    assert_eq!(
        sum.histogram(CALLBACK),
        sum_of([&callback]).histogram(CALLBACK)
    );
    assert_eq!(sum.histogram(RACK), sum_of([&rack]).histogram(RACK));
    assert_eq!(
        sum.counters().retrans_segs,
        callback.retrans_segs + rack.retrans_segs
    );
    let slow = |source: RttSource| Metric::RttSlowRatio(source.into()).samples(&sum).len();
    assert_eq!(
        (
            slow(RttSource::Callback),
            slow(RttSource::Rack),
            slow(RttSource::Unspecified)
        ),
        (1, 1, 0)
    );
}

#[test]
fn epochs_of_nodes_are_strata_of_their_own() {
    let sum = sum_of([&of_node(1, 0, 1), &of_node(1, 1, 1), &of_node(2, 1, 1)]);
    let rates: Vec<_> = sum
        .strata()
        .map(|(_, stratum)| stratum.sampling_rate)
        .collect();
    assert_eq!(rates, [1.0 / 2.0, 1.0 / 3.0]);
    let scaled: f64 = sum
        .strata()
        .map(|(_, stratum)| stratum.counters.retrans_segs as f64 / stratum.sampling_rate)
        .sum();
    let estimate = Metric::RetransSegs
        .estimate(&sum, &Options::default())
        .expect("enough flows");
    assert!(
        (estimate.value - scaled).abs() < 1e-9 * scaled,
        "{estimate:?} {scaled}"
    );
}

fn check_refused(sum: &WindowSum, change: impl Fn(&mut StreamWindow), wanted: &str) {
    let mut window = of_node(3, 0, 0);
    change(&mut window);
    let mut after = sum.clone();
    let error: SumError = after.add(&window).expect_err(wanted);
    assert_eq!(error.to_string(), wanted);
    assert_eq!(&after, sum, "{wanted}: something changed");
}

#[test]
fn what_does_not_fit_is_refused_whole() {
    let sum = sum_of([&of_node(1, 0, 0)]);
    check_refused(
        &sum,
        |window| window.stream = "news".into(),
        r#"window of stream "news" in a sum of "sport-1""#,
    );
    check_refused(
        &sum,
        |window| window.sampling_rate = f64::NAN,
        "sampling rate NaN is not between 0 and 1",
    );
    check_refused(
        &sum,
        |window| window.sampling_rate = 1.5,
        "sampling rate 1.5 is not between 0 and 1",
    );
    check_refused(
        &sum,
        |window| window.sampling_rate = 0.5,
        r#"epoch 0 of node "edge-0" has the sampling rates 1 and 0.5"#,
    );
    check_refused(
        &sum,
        |window| window.rtt_source = RttSource::Rack.into(),
        r#"node "edge-0" has round-trip samples of the sources 1 and 2"#,
    );
    check_refused(
        &sum,
        |window| window.g_stall_ms.truncate(5),
        "g_stall_ms has 5 groups",
    );
    check_refused(
        &sum,
        |window| window.rtt_min_counts = vec![162, 1],
        "rtt_min_counts: histogram leaves the buckets 0 to 161",
    );
    let conflict = sum_of([&StreamWindow {
        sampling_rate: 0.5,
        ..of_node(1, 0, 0)
    }]);
    let mut after = sum.clone();
    assert!(matches!(
        after.merge(&conflict),
        Err(SumError::RateConflict { .. })
    ));
    assert_eq!(after, sum);
}

#[test]
fn gauges_are_of_the_newest_windows_that_were_heard() {
    let open = |seed, node, flows_open| StreamWindow {
        flows_open,
        ..of_node(seed, node, 0)
    };
    let windows = [open(0, 0, 5), open(2, 0, 7), open(1, 0, 6), open(0, 1, 100)];
    let sum = sum_of(&windows);
    let newest_ms = windows[1].window_start_ms + 1001;
    assert_eq!(sum.span_ms(), Some((windows[0].window_start_ms, newest_ms)));
    assert_eq!(sum.gauges_since(newest_ms).flows_open, 7);
    assert_eq!(sum.gauges_since(0).flows_open, 107);
    assert_eq!(sum.gauges_since(newest_ms + 1).flows_open, 0);
}

#[test]
fn flows_behind_a_horizon_are_counted_low() {
    let short = sum_of(&[of_node(0, 0, 0), of_node(5, 0, 0)]);
    assert_eq!(short.flows(), 20, "distinct flows of a window");
    let long = sum_of(&[of_node(0, 0, 0), of_node(9, 0, 0)]);
    assert_eq!(long.flows(), 30, "distinct flows of ten seconds");
}

#[test]
fn quantiles_weigh_the_rates() {
    let with = |node: &str, rate, value_us| {
        let mut histogram = Histogram::new(Layout::RTT);
        (0..100).for_each(|_| histogram.record(value_us));
        StreamWindow {
            node: node.into(),
            sampling_rate: rate,
            rtt_counts: sampler_event::codec::encode(&histogram),
            rtt_min_us: value_us,
            rtt_max_us: value_us,
            ..of_node(0, 0, 0)
        }
    };
    // 100 samples at rate 1 stand for 100, 100 samples at rate 0.1 for 1,000.
    let sum = sum_of(&[with("a", 1.0, 1 << 14), with("b", 0.1, 1 << 16)]);
    let near = |q: f64, expected_us: u64| {
        let found_us = sum.quantile_us(CALLBACK, q).expect("samples");
        assert!(
            found_us.abs_diff(expected_us) as f64 <= 0.016 * expected_us as f64,
            "{q}: {found_us}"
        );
    };
    near(0.09, 1 << 14);
    near(0.10, 1 << 16);
    near(1.0, 1 << 16);
    assert_eq!(sum.quantile_us(RACK, 0.5), None);
    let one = sum_of(&[of_node(4, 1, 0)]);
    assert_eq!(
        one.quantile_us(CALLBACK, 0.99),
        one.histogram(CALLBACK)
            .and_then(|all| all.quantile_us(0.99))
    );
}

#[test]
fn full_counts_are_exact() {
    let windows: Vec<_> = (0..3).map(|seed| of_node(seed, 0, 0)).collect();
    let estimate: Estimate = Metric::RetransRatio
        .estimate(&sum_of(&windows), &Options::default())
        .expect("counts");
    let total = |field: fn(&StreamWindow) -> u64| windows.iter().map(field).sum::<u64>() as f64;
    let ratio = total(|window| window.retrans_segs) / total(|window| window.data_segs_out);
    assert_eq!(
        (estimate.value, estimate.low, estimate.high, estimate.exact),
        (ratio, ratio, ratio, true)
    );
}
