//! Windows for tests.

use proptest::prelude::*;
use sampler_event::{Histogram, Layout, StreamWindow, codec};

/// Start of all of them, or some seconds later.
pub(crate) const BEGIN_MS: u64 = 1_700_000_040_000;

/// Any window of two streams, three nodes and two rates, within 20 s.
pub(crate) fn window() -> impl Strategy<Value = StreamWindow> {
    let identity = (0..2_u8, 0..3_u8, 0..2_u64, 0..20_u64);
    let numbers = (
        0..3_u8,
        0..1_000_u64,
        0..50_u64,
        proptest::collection::vec(0..70_000_000_u64, 0..8),
        0..3_i32,
        prop_oneof![Just(0_u32), Just(8), Just(16)],
    );
    (identity, numbers).prop_map(|(identity, numbers)| {
        let (stream, node, instance, second) = identity;
        let (rate, sent, retransmitted, rtts, rtt_source, flags) = numbers;
        let mut histogram = Histogram::new(Layout::RTT);
        rtts.iter().for_each(|rtt| histogram.record(*rtt));
        let spread = |n: u64| (0..16).map(move |g| (n / 16 + u64::from(g < n % 16)) as u32);
        StreamWindow {
            node: format!("edge-{node}"),
            stream: format!("sport-{stream}"),
            instance,
            window_start_ms: BEGIN_MS + second * 1_000,
            window_ms: 1_000,
            observed_ms: 1_000,
            flags,
            sampling_rate: [0.1, 0.5, 1.0][usize::from(rate)],
            rate_epoch: u32::from(rate),
            flows_seen: sent % 7,
            flows_active: 10 + sent % 5,
            flows_active_10s: 20 + sent % 9,
            flows_open: 30,
            data_segs_out: sent,
            retrans_segs: retransmitted,
            g_data_segs_out: spread(sent).collect(),
            g_retrans_segs: spread(retransmitted).collect(),
            g_rtt_count: spread(rtts.len() as u64).collect(),
            rtt_source,
            rtt_count: rtts.len() as u64,
            rtt_sum_us: rtts.iter().sum(),
            rtt_min_us: rtts.iter().min().copied().unwrap_or(0),
            rtt_max_us: rtts.iter().max().copied().unwrap_or(0),
            rtt_counts: codec::encode(&histogram),
            ..StreamWindow::default()
        }
    })
}
