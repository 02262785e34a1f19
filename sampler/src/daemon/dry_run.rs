//! `run --dry-run`: what sampling would cost, from flows that are counted and not followed.

use std::{io::Write, time::Duration};

use super::{prepare::Prepared, time};
use crate::stage::{Kernel, clock::Now, counts::Counts};

/// How long flows are counted.
const OBSERVED: Duration = Duration::from_secs(10);
/// Bytes of a window event, at most (the contract's bound at 1,000 samples and 100 flows).
const WINDOW_BYTES: u64 = 640;
/// Bytes of a pulse, at most.
const PULSE_BYTES: u64 = 128;
/// Program time for a new connection and for a round trip of a sampled one, ns: README's budgets.
const CONNECTION_NS: f64 = 250.0;
const ROUND_TRIP_NS: f64 = 250.0;
/// Round trips of a busy flow in a second, at 40 ms.
const ROUND_TRIPS_PER_S: f64 = 25.0;

/// What one stream would bring.
struct Expectation {
    name: String,
    rate: f64,
    seen_per_s: f64,
    selected_per_s: f64,
    pulse_ms: u32,
}

fn begin(now: Now) -> u64 {
    now.monotonic_us
}

/// Counts for ten seconds, then prints.
///
/// # Errors
/// What writing says.
pub fn dry_run(prepared: &Prepared, out: &mut impl Write) -> std::io::Result<()> {
    let node = &prepared.node;
    let probe = node.side.probe();
    let probe = probe.ok_or_else(|| std::io::Error::other("nothing is attached"))?;
    writeln!(
        out,
        "counting new flows for {} s; none is sampled",
        OBSERVED.as_secs()
    )?;
    let start = begin(time::now());
    std::thread::sleep(OBSERVED);
    let seconds = (begin(time::now()) - start) as f64 / 1e6;
    let expectations = node.stage().streams.epochs().iter().map(|epoch| {
        let stream = &node.stage().streams.streams()[epoch.stream];
        let counters = Counts::read_all(probe, epoch.slot)
            .since(&epoch.counted)
            .counters();
        Expectation {
            name: stream.wanted.name.clone(),
            rate: stream.wanted.rate,
            seen_per_s: counters.flows_seen as f64 / seconds,
            selected_per_s: counters.flows_selected as f64 / seconds,
            pulse_ms: stream.wanted.pulse_ms,
        }
    });
    let expectations: Vec<_> = expectations.collect();
    writeln!(
        out,
        "{:<24} {:>7} {:>14} {:>16}",
        "stream", "rate", "new flows/s", "of these sampled"
    )?;
    for e in &expectations {
        writeln!(
            out,
            "{:<24} {:>7.4} {:>14.1} {:>16.1}",
            e.name, e.rate, e.seen_per_s, e.selected_per_s
        )?;
    }
    let window_s = f64::from(node.config().window.length_ms) / 1000.0;
    let windows = expectations.len() as f64 / window_s;
    let pulses: f64 = expectations
        .iter()
        .filter(|e| e.pulse_ms != 0)
        .map(|e| 1000.0 / f64::from(e.pulse_ms))
        .sum();
    let bytes = windows * WINDOW_BYTES as f64 + pulses * PULSE_BYTES as f64;
    let seen: f64 = expectations.iter().map(|e| e.seen_per_s).sum();
    let selected: f64 = expectations.iter().map(|e| e.selected_per_s).sum();
    let max_flows = node.config().sampling.max_sampled_flows;
    let memory = probe.size().memory(max_flows);
    writeln!(
        out,
        "at most {:.0} events/s and {bytes:.0} bytes/s before compression, if every stream is active",
        windows + pulses + 1.0 / window_s
    )?;
    writeln!(
        out,
        "kernel programs: {:.4} % of one core for new flows, and {:.2} % more per 1,000 busy sampled flows at 40 ms RTT",
        seen * CONNECTION_NS / 1e7,
        1000.0 * ROUND_TRIPS_PER_S * ROUND_TRIP_NS / 1e7
    )?;
    writeln!(
        out,
        "flows followed at a time: {selected:.1}/s times their mean life, at most {max_flows}"
    )?;
    writeln!(
        out,
        "kernel memory: {} bytes of tables now, {} more when {max_flows} flows are followed",
        memory.rules_bytes + memory.cells_bytes,
        memory.flows_bytes
    )?;
    writeln!(
        out,
        "flows open at the moment are not among these: {}",
        probe.flows_open()
    )
}
