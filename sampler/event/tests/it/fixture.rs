//! Windows as an edge sees them: flows with a round-trip time and a size of their own, from a seed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, LogNormal};
use sampler_event::{GROUPS, Histogram, Layout, RttSource, StreamPulse, StreamWindow, codec};

/// How spread the round-trip times are: sigma of the logarithm over flows, and over the samples of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// Over flows.
    pub flows: f64,
    /// Over samples of one flow.
    pub samples: f64,
}

/// Flows of consumers' access lines in a region.
pub const REGION: Spread = Spread {
    flows: 0.6,
    samples: 0.15,
};

/// A window of one second with the given number of flows, about ten round-trip samples each.
pub fn window(seed: u64, flows: u32, spread: Spread) -> StreamWindow {
    let mut random = StdRng::seed_from_u64(seed);
    let base = LogNormal::new(30_000f64.ln(), spread.flows).expect("finite");
    let jitter = LogNormal::new(0.0, spread.samples).expect("finite");
    let mut histograms = [Layout::RTT, Layout::COARSE, Layout::COARSE].map(Histogram::new);
    let mut window = frame(seed, flows);
    for _ in 0..flows {
        let base_us: f64 = base.sample(&mut random);
        let group = random.random_range(0..GROUPS);
        let (mut sum_us, mut least_us) = (0, u64::MAX);
        for _ in 0..10 {
            let sample_us = (base_us * jitter.sample(&mut random)) as u64;
            histograms[0].record(sample_us);
            (sum_us, least_us) = (sum_us + sample_us, least_us.min(sample_us));
        }
        histograms[2].record(least_us);
        if random.random_bool(0.05) {
            histograms[1].record(base_us as u64);
        }
        add_flow(&mut window, group, &mut random);
        window.rtt_sum_us += sum_us;
        window.g_rtt_count[group] += 10;
        window.g_rtt_slow[group] += u32::from(base_us > 60_000.0) * 10;
    }
    let bounds = histograms[0].bounds_us().unwrap_or(0..=0);
    (window.rtt_min_us, window.rtt_max_us) = (*bounds.start(), *bounds.end());
    window.rtt_count = histograms[0].count();
    [
        window.rtt_counts,
        window.rtt_handshake_counts,
        window.rtt_min_counts,
    ] = histograms.each_ref().map(codec::encode);
    window
}

fn add_flow(window: &mut StreamWindow, group: usize, random: &mut StdRng) {
    let segments: u32 = random.random_range(50..800);
    let retrans = if random.random_bool(0.3) {
        random.random_range(1..12)
    } else {
        0
    };
    let stall_ms = if random.random_bool(0.05) {
        random.random_range(200..1000)
    } else {
        0
    };
    window.data_segs_out += u64::from(segments);
    window.bytes_sent += u64::from(segments) * 1448;
    window.bytes_acked += u64::from(segments - retrans) * 1448;
    window.bytes_retrans += u64::from(retrans) * 1448;
    window.retrans_segs += u64::from(retrans);
    window.retrans_fast_segs += u64::from(retrans);
    window.flows_retransmitting += u64::from(retrans > 0);
    window.stalls += u64::from(stall_ms > 0);
    window.flows_stalled += u64::from(stall_ms > 0);
    window.stall_network_us += u64::from(stall_ms) * 1000;
    window.stall_longest_us = window.stall_longest_us.max(u64::from(stall_ms) * 1000);
    window.busy_us += 700_000;
    window.g_retrans_segs[group] += retrans;
    window.g_data_segs_out[group] += segments;
    window.g_stall_ms[group] += stall_ms;
    window.g_busy_ms[group] += 700;
}

fn frame(seed: u64, flows: u32) -> StreamWindow {
    let flows = u64::from(flows);
    let zeros = || vec![0; GROUPS];
    StreamWindow {
        node: "edge-07.ams1".into(),
        site: "ams1".into(),
        stream: "sport-1".into(),
        instance: 0x9e37_79b9_7f4a_7c15,
        previous_instance: 0x1234_5678_9abc_def0,
        sequence: 86_400 + seed,
        window_start_ms: 1_795_000_000_000 + seed * 1000,
        window_ms: 1000,
        observed_ms: 1001,
        emitted_ms: 1_795_000_001_012 + seed * 1000,
        sampling_rate: 0.1,
        rate_epoch: 3,
        sampling_key_id: 0xfeed_beef,
        flows_seen: flows / 2,
        flows_selected: flows / 20,
        flows_sampled: flows / 20,
        flows_closed: flows / 25,
        flows_open: flows + 20,
        flows_active: flows,
        flows_active_10s: flows + 10,
        flows_silent: 1,
        retrans_rto_segs: 4,
        retrans_other_segs: 9,
        syn_retrans: 1,
        rto_count: 3,
        dsack_dups: 5,
        rtt_source: RttSource::Callback.into(),
        stalls_open: 2,
        stall_receiver_us: 310_000,
        stall_sender_us: 1_200_000,
        stall_other_us: 90_000,
        rwnd_limited_us: 500_000,
        sndbuf_limited_us: 250_000,
        g_retrans_segs: zeros(),
        g_data_segs_out: zeros(),
        g_stall_ms: zeros(),
        g_busy_ms: zeros(),
        g_rtt_count: zeros(),
        g_rtt_slow: zeros(),
        lost_flows: 3,
        lost_reads: 1,
        spool_dropped_events: 12,
        dead_letter_events: 1,
        ..StreamWindow::default()
    }
}

/// The pulse that goes with a window.
pub fn pulse(window: &StreamWindow) -> StreamPulse {
    StreamPulse {
        node: window.node.clone(),
        site: window.site.clone(),
        stream: window.stream.clone(),
        instance: window.instance,
        sequence: window.sequence * 10,
        pulse_start_ms: window.window_start_ms,
        pulse_ms: 100,
        observed_ms: 101,
        flags: window.flags,
        sampling_rate: window.sampling_rate,
        rate_epoch: window.rate_epoch,
        retrans_segs: window.retrans_segs,
        data_segs_out: window.data_segs_out,
        rtt_count: window.rtt_count,
        rtt_slow: window.g_rtt_slow.iter().copied().map(u64::from).sum(),
        stalls_open: window.stalls_open,
        flows_active: window.flows_active,
        g_retrans_segs: window.g_retrans_segs.clone(),
    }
}
