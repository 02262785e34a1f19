//! What a pulse and a node cost.

use std::hint::black_box;
use std::time::Instant;

use aggregator::alert::{Design, StreamDetector};
use sampler_event::{GROUPS, StreamPulse};

/// Prints the time for a pulse of one of 100 nodes, and what a node adds to the saved state.
pub fn print() {
    let (nodes, rounds) = (100_u64, 10_000);
    let mut detector = StreamDetector::new(Design::default());
    let mut pulses: Vec<_> = (0..nodes)
        .map(|node| StreamPulse {
            node: format!("edge-{node}"),
            pulse_ms: 100,
            observed_ms: 100,
            sampling_rate: 0.1,
            data_segs_out: 5_000,
            retrans_segs: 16,
            flows_active: 40,
            g_retrans_segs: vec![1; GROUPS],
            ..StreamPulse::default()
        })
        .collect();
    let begun = Instant::now();
    for round in 0..rounds {
        for pulse in &mut pulses {
            pulse.pulse_start_ms = 1_000_000 + round * 100;
            black_box(detector.take(pulse));
        }
    }
    let ns = begun.elapsed().as_nanos() / u128::from(nodes * rounds);
    let json =
        |detector: &StreamDetector| serde_json::to_string(detector).map_or(0, |json| json.len());
    let empty = json(&StreamDetector::new(Design::default()));
    let saved = (json(&detector) - empty) / nodes as usize;
    println!("a pulse: {ns} ns; a node: {saved} bytes of saved state (JSON)\n");
}
