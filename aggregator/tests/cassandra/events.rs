//! What nodes report: the same every time.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sampler_event::{Histogram, Layout, StreamWindow, codec};

pub const DAY_MS: u64 = 86_400_000;
pub const HOUR_MS: u64 = 3_600_000;
/// 20 s before midnight: hours and days change meanwhile.
pub const BEGIN_MS: u64 = 1_700_006_400_000 - 20_000;
pub const STREAMS: [&str; 2] = ["sport-1", "news"];
const NODES: [&str; 4] = ["edge-1", "edge-2", "-edge", "0"];
const SECONDS: u64 = 150;

/// A window of a second, with numbers of its own.
pub fn window(stream: &str, node: &str, second: u64) -> StreamWindow {
    let seed =
        second * 31 + node.len() as u64 * 7 + u64::from(node.as_bytes()[0]) + stream.len() as u64;
    let mut random = StdRng::seed_from_u64(seed);
    let mut number = |below: u64| random.random_range(0..below);
    let spread = |n: u64| {
        (0..16)
            .map(|g| (n / 16 + u64::from(g < n % 16)) as u32)
            .collect()
    };
    let (sent, retransmitted) = (2_000 + number(9_000), number(200));
    let (mut rtt, mut least) = (Histogram::new(Layout::RTT), Histogram::new(Layout::COARSE));
    let samples: Vec<u64> = (0..number(60)).map(|_| 500 + number(200_000)).collect();
    samples.iter().for_each(|rtt_us| rtt.record(*rtt_us));
    (0..number(20)).for_each(|_| least.record(number(90_000)));
    StreamWindow {
        node: node.to_owned(),
        site: super::SITE.to_owned(),
        stream: stream.to_owned(),
        instance: 0xfeed_0000_0000_0007,
        sequence: second,
        window_start_ms: BEGIN_MS + second * 1_000,
        window_ms: 1_000,
        observed_ms: 1_000,
        flags: [0, 8, 16][number(3) as usize],
        sampling_rate: [0.1, 0.25][usize::from(node == "0")],
        rate_epoch: 1,
        flows_seen: number(50),
        flows_sampled: number(9),
        flows_open: 200 + number(20),
        flows_active: 150 + number(20),
        flows_active_10s: 190 + number(20),
        flows_stalled: number(4),
        bytes_sent: sent * 1_448,
        bytes_retrans: retransmitted * 1_448,
        data_segs_out: sent,
        retrans_segs: retransmitted,
        retrans_fast_segs: retransmitted / 2,
        stall_network_us: number(900_000),
        busy_us: number(9_000_000),
        g_data_segs_out: spread(sent),
        g_retrans_segs: spread(retransmitted),
        g_rtt_count: spread(samples.len() as u64),
        g_rtt_slow: spread(samples.iter().filter(|us| **us > 100_000).count() as u64),
        rtt_source: 1 + i32::from(node == "-edge"),
        rtt_count: samples.len() as u64,
        rtt_sum_us: samples.iter().sum(),
        rtt_min_us: samples.iter().min().copied().unwrap_or(0),
        rtt_max_us: samples.iter().max().copied().unwrap_or(0),
        rtt_counts: codec::encode(&rtt),
        rtt_min_counts: codec::encode(&least),
        ..StreamWindow::default()
    }
}

/// Windows in the order of the log, with the time that the broker gave them.
pub fn log() -> Vec<(StreamWindow, u64)> {
    let mut log = Vec::new();
    for second in 0..SECONDS {
        for (stream, node) in STREAMS.iter().flat_map(|s| NODES.map(|n| (s, n))) {
            let window = window(stream, node, second);
            let append_ms = window.window_start_ms + 1_050;
            log.push((window, append_ms));
        }
    }
    log
}

/// Windows that come when their rows are closed: a node that was cut off.
pub fn late_log() -> Vec<(StreamWindow, u64)> {
    let mut log = Vec::new();
    for second in 95..107 {
        for stream in STREAMS {
            let mut window = window(stream, "edge-9", second);
            window.sequence = second;
            log.push((window, BEGIN_MS + SECONDS * 1_000 + 5_000));
        }
    }
    log
}
