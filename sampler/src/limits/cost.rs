//! What the kernel programs cost those in whose time they run.
//!
//! Input: measured run time where the kernel has it (`kernel.bpf_stats_enabled`; to switch it on needs CAP_SYS_ADMIN, which the service
//! does not have), else what the programs counted. Output: cumulative ns. Walks and folds run in the daemon's own time, and are in that.
//!
//! The estimate: connections × [`CONNECTION_NS`] + sampled flows × [`SAMPLED_NS`] + callbacks of theirs × [`CALLBACK_NS`]. Connections are
//! those of all streams, and the opens of the daemon's network namespace beyond them, which ran the program and matched no rule. Not in
//! it: SYNs that become no connection, and connections without a stream in other namespaces.
//! The costs are of the kernel's own statistics, so they hold what measuring adds. They depend on the caches: against those statistics on
//! a loaded machine of two CPUs, both ends of each connection on it, the estimate was 0.5 to 0.8 of the run time where flows play or
//! transfer (a callback took 450 to 650 ns there, 130 to 270 in `cargo xtask bench live`), 0.6 to 1.3 with short connections.

use sampler_event::{Event, StreamWindow};

/// A new connection that is not sampled: four runs.
pub const CONNECTION_NS: u64 = 290;
/// More for one that is sampled: admission, states, end.
pub const SAMPLED_NS: u64 = 1_860;
/// A callback of a sampled flow: an RTT sample, a retransmission, a timeout.
pub const CALLBACK_NS: u64 = 400;

/// CPU time used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Of the daemon.
    pub daemon_us: u64,
    /// Of the kernel programs.
    pub kernel_us: u64,
}

/// Adds up what the kernel programs cost.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    spent_ns: u64,
    /// Estimated since it was last taken over.
    estimated_ns: u64,
    /// Connections of streams since the opens were last read.
    seen: u64,
    opens: Option<u64>,
    run_ns: Option<u64>,
}

/// What a window's counts stand for.
pub fn estimate_ns(window: &StreamWindow) -> u64 {
    let callbacks = [window.rtt_count, window.retrans_segs, window.rto_count];
    let callbacks = callbacks.into_iter().fold(0, u64::saturating_add);
    let ns = [
        (window.flows_seen, CONNECTION_NS),
        (window.flows_sampled, SAMPLED_NS),
        (callbacks, CALLBACK_NS),
    ];
    ns.into_iter().fold(0, |sum: u64, (count, ns)| {
        sum.saturating_add(count.saturating_mul(ns))
    })
}

impl Meter {
    /// Takes in what was counted.
    pub fn count(&mut self, events: &[Event]) {
        for event in events {
            if let Event::Window(window) = event {
                self.estimated_ns = self.estimated_ns.saturating_add(estimate_ns(window));
                self.seen = self.seen.saturating_add(window.flows_seen);
            }
        }
    }

    /// Cost so far, µs. `run_ns`: the programs' run time since they were loaded, while the kernel measures it; `opens`: TCP connections
    /// opened in the network namespace since it was made, if they could be read.
    pub fn read_us(&mut self, run_ns: Option<u64>, opens: Option<u64>) -> u64 {
        let estimated = std::mem::take(&mut self.estimated_ns);
        let (seen, before) = (std::mem::take(&mut self.seen), self.opens);
        self.opens = opens.or(before);
        let other = opens.zip(before).map_or(0, |(now, before)| {
            now.saturating_sub(before).saturating_sub(seen)
        });
        let estimated = estimated.saturating_add(other.saturating_mul(CONNECTION_NS));
        let measured = run_ns.zip(self.run_ns);
        self.run_ns = run_ns;
        let ns = measured.map_or(estimated, |(now, before)| now.saturating_sub(before));
        self.spent_ns = self.spent_ns.saturating_add(ns);
        self.spent_ns / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(flows_seen: u64, flows_sampled: u64, rtt_count: u64) -> Event {
        Event::Window(Box::new(StreamWindow {
            flows_seen,
            flows_sampled,
            rtt_count,
            ..StreamWindow::default()
        }))
    }

    #[test]
    fn what_was_counted_is_what_it_cost() {
        let mut meter = Meter::default();
        assert_eq!(meter.read_us(None, Some(500)), 0);
        meter.count(&[window(1_000, 100, 0), window(0, 0, 2_000)]);
        let expected = 1_000 * CONNECTION_NS + 100 * SAMPLED_NS + 2_000 * CALLBACK_NS;
        assert_eq!(meter.read_us(None, Some(1_500)), expected / 1000);
        // Connections of no stream.
        let more = expected + 3_000 * CONNECTION_NS;
        assert_eq!(meter.read_us(None, Some(4_500)), more / 1000);
        assert_eq!(meter.read_us(None, None), more / 1000);
    }

    #[test]
    fn a_measurement_takes_the_place_of_the_estimate() {
        let mut meter = Meter::default();
        meter.count(&[window(1_000, 0, 0)]);
        // The first reading says only where it begins.
        assert_eq!(meter.read_us(Some(7_000_000), None), 290);
        meter.count(&[window(1_000, 0, 0)]);
        assert_eq!(meter.read_us(Some(7_100_000), None), 390);
        // Switched off again, and programs that began anew.
        meter.count(&[window(1_000, 0, 0)]);
        assert_eq!(meter.read_us(None, None), 680);
        assert_eq!(meter.read_us(Some(10_000), None), 680);
        assert_eq!(meter.read_us(Some(0), None), 680);
    }

    #[test]
    fn no_count_is_too_large() {
        let mut meter = Meter::default();
        meter.count(&[window(u64::MAX, u64::MAX, u64::MAX)]);
        assert_eq!(meter.read_us(None, None), u64::MAX / 1000);
    }
}
