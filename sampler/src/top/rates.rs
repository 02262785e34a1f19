//! What happened between two scrapes. Pure.
//!
//! Input: two expositions of one sampler. Output: a row per stream and a line about the node. The time between them is
//! that of the windows, not of the scrapes, so that rates are right for any window length.
//! Limits: p90 is interpolated in the classic buckets (at most 25 % wide from 1 ms to 1 s); it is marked as approximate.

use std::collections::BTreeMap;

use service::metrics::{Parsed, ParsedSample};

/// A stream between two scrapes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Name of the stream.
    pub stream: String,
    /// Sampling rate, 0 to 1.
    pub sampling_rate: f64,
    /// New flows per second, all of them.
    pub seen_per_s: f64,
    /// Sampled flows open.
    pub flows_open: f64,
    /// Bits per second sent by sampled flows.
    pub sent_bps: f64,
    /// Retransmitted segments of sampled flows per second.
    pub retrans_per_s: f64,
    /// Retransmitted per sent segments.
    pub retrans_ratio: Option<f64>,
    /// Mean round-trip time, ms.
    pub rtt_mean_ms: Option<f64>,
    /// Round-trip time that nine of ten samples do not exceed, about, ms.
    pub rtt_p90_ms: Option<f64>,
    /// Stalls open.
    pub stalls_open: f64,
    /// Stalled per busy time.
    pub stall_ratio: Option<f64>,
}

/// The node between two scrapes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeLine {
    /// Version of the sampler.
    pub version: String,
    /// What the kernel allows.
    pub kernel_mode: String,
    /// State of the sink.
    pub sink: String,
    /// Events that wait in memory.
    pub waiting: f64,
    /// Events lost so far: dropped, and dead letters.
    pub lost: f64,
    /// The spool; none: events go to standard output.
    pub spool: Option<SpoolLine>,
    /// CPU time per second of the daemon.
    pub cpu_ratio: f64,
    /// Resident memory of the daemon, bytes.
    pub rss_bytes: f64,
    /// Lateness of window edges, 99th percentile, ms.
    pub late_p99_ms: Option<f64>,
}

/// The spool, for a person.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpoolLine {
    /// Events that no broker has confirmed.
    pub events: f64,
    /// Age of about the oldest of them, s.
    pub age_s: f64,
    /// How long its bound lasts at the present rate, s; none: nothing is written yet.
    pub room_s: Option<f64>,
    /// The disk does not take events, or not in time.
    pub degraded: bool,
}

/// Whether `now` has a window that `before` has not.
pub fn moved_on(before: &Parsed, now: &Parsed) -> bool {
    seconds_between(before, now) > 0.0
}

fn seconds_between(before: &Parsed, now: &Parsed) -> f64 {
    let end = |parsed: &Parsed| {
        parsed
            .value("flowvitals_window_last_end_timestamp_seconds")
            .unwrap_or(0.0)
    };
    end(now) - end(before)
}

/// Samples of one name and stream, added up over their other labels.
struct Streams<'a> {
    before: &'a Parsed,
    now: &'a Parsed,
    stream: &'a str,
}

impl Streams<'_> {
    fn sum(&self, parsed: &Parsed, name: &str) -> f64 {
        self.of(parsed, name).map(|sample| sample.value).sum()
    }

    fn of<'b>(
        &'b self,
        parsed: &'b Parsed,
        name: &'b str,
    ) -> impl Iterator<Item = &'b ParsedSample> {
        parsed.named(name).filter(|sample| {
            sample
                .labels
                .get("stream")
                .is_some_and(|stream| stream == self.stream)
        })
    }

    fn gauge(&self, name: &str) -> f64 {
        self.sum(self.now, name)
    }

    /// A counter's rise; after a restart of the sampler, what it has counted since.
    fn rise(&self, name: &str) -> f64 {
        let (before, now) = (self.sum(self.before, name), self.sum(self.now, name));
        if now >= before { now - before } else { now }
    }

    fn quantile(&self, name: &str, q: f64) -> Option<f64> {
        let bucket = format!("{name}_bucket");
        let cumulative = |parsed| -> BTreeMap<u64, f64> {
            let buckets = self.of(parsed, &bucket);
            buckets
                .filter_map(|sample| Some((bound(sample)?.to_bits(), sample.value)))
                .collect()
        };
        // Positive floats sort like their bits.
        let (before, now) = (cumulative(self.before), cumulative(self.now));
        let rises: Vec<(f64, f64)> = now
            .iter()
            .map(|(bits, count)| {
                (
                    f64::from_bits(*bits),
                    (count - before.get(bits).copied().unwrap_or(0.0)).max(0.0),
                )
            })
            .collect();
        let rank = rises.last()?.1 * q;
        if rank <= 0.0 {
            return None;
        }
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in rises {
            if count >= rank {
                // The last bucket has no end: its beginning is all that is known.
                return Some(if bound.is_infinite() {
                    low
                } else {
                    low + (bound - low) * (rank - below) / (count - below)
                });
            }
            (low, below) = (bound, count);
        }
        None
    }
}

fn bound(sample: &ParsedSample) -> Option<f64> {
    let text = sample.labels.get("le")?;
    if text == "+Inf" {
        Some(f64::INFINITY)
    } else {
        text.parse().ok()
    }
}

/// Rows of all streams, those with most traffic first.
pub fn rows(before: &Parsed, now: &Parsed) -> Vec<Row> {
    let elapsed_s = seconds_between(before, now).max(f64::MIN_POSITIVE);
    let quotient = |dividend: f64, divisor: f64| (divisor > 0.0).then(|| dividend / divisor);
    let named = now
        .named("flowvitals_stream_flows_seen_total")
        .filter_map(|sample| sample.labels.get("stream"));
    let mut rows: Vec<Row> = named
        .map(|stream| {
            let of = Streams {
                before,
                now,
                stream,
            };
            let retrans = of.rise("flowvitals_stream_retransmitted_segments_total");
            let rtt_s = of.rise("flowvitals_stream_rtt_seconds_sum");
            Row {
                stream: stream.clone(),
                sampling_rate: of.gauge("flowvitals_stream_sampling_ratio"),
                seen_per_s: of.rise("flowvitals_stream_flows_seen_total") / elapsed_s,
                flows_open: of.gauge("flowvitals_stream_flows_open"),
                sent_bps: of.rise("flowvitals_stream_sent_bytes_total") * 8.0 / elapsed_s,
                retrans_per_s: retrans / elapsed_s,
                retrans_ratio: quotient(retrans, of.rise("flowvitals_stream_data_segments_total")),
                rtt_mean_ms: quotient(rtt_s * 1e3, of.rise("flowvitals_stream_rtt_seconds_count")),
                rtt_p90_ms: of
                    .quantile("flowvitals_stream_rtt_seconds", 0.9)
                    .map(|rtt_s| rtt_s * 1e3),
                stalls_open: of.gauge("flowvitals_stream_stalls_open"),
                stall_ratio: quotient(
                    of.rise("flowvitals_stream_stall_seconds_total"),
                    of.rise("flowvitals_stream_busy_seconds_total"),
                ),
            }
        })
        .collect();
    rows.sort_by(|left, right| {
        right
            .sent_bps
            .total_cmp(&left.sent_bps)
            .then_with(|| left.stream.cmp(&right.stream))
    });
    rows
}

/// The line about the node.
pub fn node_line(before: &Parsed, now: &Parsed) -> NodeLine {
    let elapsed_s = seconds_between(before, now).max(f64::MIN_POSITIVE);
    let value = |name: &str| now.value(name).unwrap_or(0.0);
    let sum = |name: &str| now.named(name).map(|sample| sample.value).sum::<f64>();
    let build = now.named("flowvitals_build_info").next();
    let label = |name: &str| {
        build
            .and_then(|sample| sample.labels.get(name))
            .cloned()
            .unwrap_or_default()
    };
    let sink = now
        .named("flowvitals_sink_state")
        .find(|sample| sample.value == 1.0);
    let late = now
        .named("flowvitals_window_lateness_seconds")
        .find(|sample| sample.labels.get("quantile").is_some_and(|q| q == "0.99"));
    let cpu = "flowvitals_process_cpu_seconds_total";
    NodeLine {
        version: label("version"),
        kernel_mode: label("kernel_mode"),
        sink: sink
            .and_then(|sample| sample.labels.get("state"))
            .cloned()
            .unwrap_or_default(),
        waiting: value("flowvitals_sink_waiting_events"),
        lost: sum("flowvitals_events_dropped_total") + sum("flowvitals_events_dead_letter_total"),
        spool: now
            .value("flowvitals_spool_events")
            .map(|events| SpoolLine {
                events,
                age_s: value("flowvitals_spool_age_seconds"),
                room_s: now.value("flowvitals_spool_room_seconds"),
                degraded: value("flowvitals_spool_degraded") == 1.0,
            }),
        cpu_ratio: (value(cpu) - before.value(cpu).unwrap_or(0.0)).max(0.0) / elapsed_s,
        rss_bytes: value("flowvitals_process_resident_memory_bytes"),
        late_p99_ms: late
            .map(|sample| sample.value * 1e3)
            .filter(|late_ms| late_ms.is_finite()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use service::metrics::parse;

    fn scrape(end_s: u64, times: u64) -> Parsed {
        let text = format!(
            "# TYPE flowvitals_window_last_end_timestamp_seconds gauge\nflowvitals_window_last_end_timestamp_seconds {end_s}\n\
             # TYPE flowvitals_stream_flows_seen_total counter\nflowvitals_stream_flows_seen_total{{stream=\"s\"}} {}\n\
             # TYPE flowvitals_stream_data_segments_total counter\nflowvitals_stream_data_segments_total{{stream=\"s\"}} {}\n\
             # TYPE flowvitals_stream_retransmitted_segments_total counter\n\
             flowvitals_stream_retransmitted_segments_total{{cause=\"rto\",stream=\"s\"}} {}\n\
             flowvitals_stream_retransmitted_segments_total{{cause=\"fast\",stream=\"s\"}} {}\n\
             # TYPE flowvitals_stream_rtt_seconds histogram\n\
             flowvitals_stream_rtt_seconds_bucket{{stream=\"s\",le=\"0.01\"}} {}\n\
             flowvitals_stream_rtt_seconds_bucket{{stream=\"s\",le=\"0.02\"}} {}\n\
             flowvitals_stream_rtt_seconds_bucket{{stream=\"s\",le=\"+Inf\"}} {}\n\
             flowvitals_stream_rtt_seconds_sum{{stream=\"s\"}} {}\nflowvitals_stream_rtt_seconds_count{{stream=\"s\"}} {}\n",
            40 * times,
            1000 * times,
            5 * times,
            15 * times,
            50 * times,
            100 * times,
            100 * times,
            2 * times,
            100 * times,
        );
        parse(&text).expect("exposition")
    }

    #[test]
    fn rates_are_over_window_time() {
        let (before, now) = (scrape(100, 1), scrape(104, 2));
        assert!(moved_on(&before, &now) && !moved_on(&now, &now));
        let [row] = &rows(&before, &now)[..] else {
            panic!("one row")
        };
        assert_eq!(
            (row.seen_per_s, row.retrans_per_s, row.retrans_ratio),
            (10.0, 5.0, Some(0.02))
        );
        assert_eq!((row.rtt_mean_ms, row.stall_ratio), (Some(20.0), None));
        assert!((row.rtt_p90_ms.expect("p90") - 18.0).abs() < 1e-9);
    }

    #[test]
    fn losses_of_all_reasons_and_the_spool_are_shown() {
        let line = |text: &str| {
            let now = parse(text).expect("exposition");
            node_line(&now, &now)
        };
        let lost = "# TYPE flowvitals_events_dropped_total counter\n\
             flowvitals_events_dropped_total{reason=\"queue\"} 2\nflowvitals_events_dropped_total{reason=\"spool\"} 3\n\
             # TYPE flowvitals_events_dead_letter_total counter\nflowvitals_events_dead_letter_total 4\n";
        assert_eq!((line(lost).lost, line(lost).spool), (9.0, None));
        let spool = "# TYPE flowvitals_spool_events gauge\nflowvitals_spool_events 70\n\
             # TYPE flowvitals_spool_age_seconds gauge\nflowvitals_spool_age_seconds 45\n\
             # TYPE flowvitals_spool_degraded gauge\nflowvitals_spool_degraded 1\n";
        let expected = SpoolLine {
            events: 70.0,
            age_s: 45.0,
            room_s: None,
            degraded: true,
        };
        assert_eq!(line(spool).spool, Some(expected));
    }

    #[test]
    fn a_restart_counts_from_zero() {
        let [row] = &rows(&scrape(100, 9), &scrape(110, 1))[..] else {
            panic!("one row")
        };
        assert_eq!(row.seen_per_s, 4.0);
        let quiet = rows(&scrape(100, 1), &scrape(101, 1));
        assert_eq!((quiet[0].retrans_ratio, quiet[0].rtt_p90_ms), (None, None));
    }
}
