//! Totals of one stream since the daemon's start, and its families. Pure.
//!
//! Input: the stream's windows. Output: counters (sums over all windows, over sampled flows unless the help says exact),
//! gauges of the newest window (summed over its rate epochs), the RTT histogram.
//! Units: as in the events; base units in the families.

use std::collections::BTreeMap;

use sampler_event::{Histogram, Layout, StreamWindow, codec};

use super::fields::{COUNTERS, GAUGES};
use super::rtt;
use crate::sink::Loss;
use service::metrics::family::{Family, Kind, Value};

const RTT: &str = "flowvitals_stream_rtt_seconds";
const RTT_HELP: &str = "Round-trip samples of sampled flows, as the kernel took them.";

/// Totals of one stream.
#[derive(Clone, Debug)]
pub struct StreamTotals {
    counters: [u64; COUNTERS.len()],
    gauges: [u64; GAUGES.len()],
    gauges_of_ms: u64,
    sampling_rate: f64,
    rtt: Histogram,
    rtt_sum_us: u64,
    lost_flows: u64,
    lost_reads: u64,
}

impl Default for StreamTotals {
    fn default() -> Self {
        Self {
            counters: [0; COUNTERS.len()],
            gauges: [0; GAUGES.len()],
            gauges_of_ms: 0,
            sampling_rate: 0.0,
            rtt: Histogram::new(Layout::RTT),
            rtt_sum_us: 0,
            lost_flows: 0,
            lost_reads: 0,
        }
    }
}

impl StreamTotals {
    /// Adds a window. False if its RTT histogram cannot be read; everything else is added all the same.
    pub fn add(&mut self, window: &StreamWindow) -> bool {
        for (total, counter) in self.counters.iter_mut().zip(&COUNTERS) {
            *total = total.saturating_add((counter.field)(window));
        }
        let same_window = window.window_start_ms == self.gauges_of_ms;
        for (gauge, (_, _, field)) in self.gauges.iter_mut().zip(GAUGES) {
            // A window has one event per rate epoch that still has flows.
            *gauge = if same_window {
                gauge.saturating_add(field(window))
            } else {
                field(window)
            };
        }
        self.gauges_of_ms = window.window_start_ms;
        self.sampling_rate = window.sampling_rate;
        self.lost_flows = self.lost_flows.max(window.lost_flows);
        self.lost_reads = self.lost_reads.max(window.lost_reads);
        self.rtt_sum_us = self.rtt_sum_us.saturating_add(window.rtt_sum_us);
        match codec::decode(Layout::RTT, &window.rtt_counts) {
            Ok(rtt) => self.rtt.merge(&rtt).is_ok(),
            Err(_) => false,
        }
    }

    /// The stream sent nothing for a window: only its open flows are known.
    pub fn silent(&mut self, window_start_ms: u64, flows_open: u64, sampling_rate: f64) {
        self.gauges = [0; GAUGES.len()];
        self.gauges[0] = flows_open;
        self.gauges_of_ms = window_start_ms;
        self.sampling_rate = sampling_rate;
    }
}

/// Families of the given streams.
pub fn families<'a>(
    streams: impl Iterator<Item = (&'a str, &'a StreamTotals, Loss)> + Clone,
) -> Vec<Family> {
    let mut families: BTreeMap<&str, Family> = BTreeMap::new();
    let mut add = |kind: Kind,
                   name: &'static str,
                   help: &'static str,
                   labels: &[(&'static str, &str)],
                   value: Value| {
        families
            .entry(name)
            .or_insert_with(|| Family::new(kind, name, help))
            .push(labels, value);
    };
    for (stream, totals, loss) in streams {
        let label = ("stream", stream);
        for (counter, total) in COUNTERS.iter().zip(totals.counters) {
            let labels: Vec<_> = [label].into_iter().chain(counter.label).collect();
            add(
                Kind::Counter,
                counter.name,
                counter.help,
                &labels,
                Value::Number(total as f64 / counter.per_unit),
            );
        }
        for ((name, help, _), gauge) in GAUGES.into_iter().zip(totals.gauges) {
            add(
                Kind::Gauge,
                name,
                help,
                &[label],
                Value::Number(gauge as f64),
            );
        }
        let rate = Value::Number(totals.sampling_rate);
        add(
            Kind::Gauge,
            "flowvitals_stream_sampling_ratio",
            "Probability with which new flows are selected, 0 to 1.",
            &[label],
            rate,
        );
        let losses = [
            (
                "flowvitals_stream_lost_flows_total",
                "Flows that could not be followed.",
                totals.lost_flows,
            ),
            (
                "flowvitals_stream_lost_reads_total",
                "Reads of the kernel's counters that failed.",
                totals.lost_reads,
            ),
            (
                "flowvitals_stream_dropped_events_total",
                "Events dropped for want of room.",
                loss.dropped,
            ),
            (
                "flowvitals_stream_dead_letter_events_total",
                "Events that no broker would take.",
                loss.dead_letter,
            ),
        ];
        for (name, help, value) in losses {
            add(
                Kind::Counter,
                name,
                help,
                &[label],
                Value::Number(value as f64),
            );
        }
        let rtt = Box::new(rtt::buckets(&totals.rtt, totals.rtt_sum_us));
        add(
            Kind::Histogram,
            RTT,
            RTT_HELP,
            &[label],
            Value::Histogram(rtt),
        );
    }
    families.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::super::fields::{RETRANS, STALL};
    use super::*;

    fn value(families: &[Family], name: &str, label: Option<(&'static str, &str)>) -> f64 {
        let family = families
            .iter()
            .find(|family| family.name == name)
            .expect(name);
        let sample = family.samples.iter().find(|sample| {
            let has = |(name, text): (&'static str, &str)| {
                sample.labels.contains(&(name, text.to_owned()))
            };
            label.is_none_or(has)
        });
        match sample.expect("sample").value {
            Value::Number(value) => value,
            _ => panic!("{name} is no number"),
        }
    }

    #[test]
    fn sums_counters_and_shows_the_last_windows_gauges() {
        let mut rtt = Histogram::new(Layout::RTT);
        rtt.record(20_000);
        let window = |start_ms: u64, epoch: u32| StreamWindow {
            window_start_ms: start_ms,
            rate_epoch: epoch,
            retrans_rto_segs: 2,
            retrans_fast_segs: 3,
            stall_network_us: 1_500_000,
            flows_open: 10,
            flags: 1,
            rtt_counts: codec::encode(&rtt),
            rtt_sum_us: 20_000,
            lost_flows: 4,
            ..Default::default()
        };
        let mut totals = StreamTotals::default();
        for (start_ms, epoch) in [(1000, 1), (2000, 1), (2000, 2)] {
            assert!(totals.add(&window(start_ms, epoch)));
        }
        let loss = Loss {
            dropped: 7,
            dead_letter: 1,
        };
        let found = families([("s", &totals, loss)].into_iter());
        assert_eq!(value(&found, RETRANS, Some(("cause", "fast"))), 9.0);
        assert_eq!(value(&found, RETRANS, Some(("cause", "rto"))), 6.0);
        assert_eq!(value(&found, STALL, Some(("cause", "network"))), 4.5);
        assert_eq!(value(&found, "flowvitals_stream_flows_open", None), 20.0);
        assert_eq!(
            value(&found, "flowvitals_stream_late_windows_total", None),
            3.0
        );
        assert_eq!(
            value(&found, "flowvitals_stream_lost_flows_total", None),
            4.0
        );
        assert_eq!(
            value(&found, "flowvitals_stream_dropped_events_total", None),
            7.0
        );
        totals.silent(3000, 6, 0.5);
        let found = families([("s", &totals, loss)].into_iter());
        assert_eq!(value(&found, "flowvitals_stream_flows_open", None), 6.0);
        assert_eq!(value(&found, "flowvitals_stream_sampling_ratio", None), 0.5);
        assert_eq!(totals.rtt.count(), 3);
    }

    #[test]
    fn a_junk_histogram_is_told_and_the_rest_is_kept() {
        let mut totals = StreamTotals::default();
        let window = StreamWindow {
            rtt_counts: vec![9999, 1],
            flows_seen: 3,
            ..Default::default()
        };
        assert!(!totals.add(&window));
        let found = families([("s", &totals, Loss::default())].into_iter());
        assert_eq!(
            value(&found, "flowvitals_stream_flows_seen_total", None),
            3.0
        );
    }
}
