//! The store role's metrics.
//!
//! Input: its books, and the time. Output: families; labels are tables, outcomes, reasons and partitions.

use std::time::Duration;

use service::metrics::{Buckets, Family, Kind, Value, counter, gauge};

use super::storing::{BOUNDS_S, Books, Condition};
use crate::input::Reason;

impl Books {
    /// All of them.
    pub(super) fn families(&self, condition: &Condition, now_ms: u64) -> Vec<Family> {
        let mut families = self.written();
        families.extend(self.read(now_ms));
        families.extend(self.going(condition));
        families
    }

    fn written(&self) -> Vec<Family> {
        let tables = ["stream_second", "stream_minute", "node_minute"];
        let mut latency = Family::new(
            Kind::Histogram,
            "flowvitals_store_write_seconds",
            "How long writes took.",
        );
        latency.push(&[], self.latency());
        vec![
            labelled(
                Kind::Counter,
                "flowvitals_store_rows_written_total",
                "Rows that the store has taken, by table; a row that grew counts again.",
                "table",
                tables.into_iter().zip(self.rows),
            ),
            latency,
            counter(
                "flowvitals_store_write_failures_total",
                "Writes that the store did not take; they are tried again.",
                self.failures,
            ),
            counter(
                "flowvitals_store_rows_swept_total",
                "Rows dropped because of their age.",
                self.swept,
            ),
        ]
    }

    fn latency(&self) -> Value {
        let mut classic = Vec::with_capacity(BOUNDS_S.len());
        let mut count = 0;
        for (bound, writes) in BOUNDS_S.iter().zip(self.writes) {
            count += writes;
            classic.push((*bound, count));
        }
        Value::Histogram(Box::new(Buckets {
            count: self.writes.iter().sum(),
            sum: self.write_s,
            classic,
            ..Buckets::default()
        }))
    }

    fn read(&self, now_ms: u64) -> Vec<Family> {
        let counts = &self.held.counts;
        let outcomes = [
            ("merged", counts.merged),
            ("late", counts.late),
            ("duplicate", counts.duplicate),
            ("passed_over", counts.passed_over),
            ("crowded", counts.crowded),
            ("again", counts.again),
        ];
        let refused = Reason::LABELS.into_iter();
        let lag = self.readers.streams.lag.iter();
        let delays = self.held.watermarks_ms.iter();
        vec![
            labelled(
                Kind::Counter,
                "flowvitals_store_windows_total",
                "Windows taken in to be stored, by what became of them; late: a row part of its own.",
                "outcome",
                outcomes,
            ),
            labelled(
                Kind::Counter,
                "flowvitals_store_records_refused_total",
                "Records that were no events, by reason.",
                "reason",
                refused.zip(self.readers.counts.refused),
            ),
            labelled(
                Kind::Gauge,
                "flowvitals_store_consumer_lag",
                "Records of a partition that are not read yet, at the last statistics.",
                "partition",
                lag.map(|((_, partition), lag)| (partition.to_string(), *lag)),
            ),
            delays.fold(
                Family::new(
                    Kind::Gauge,
                    "flowvitals_store_watermark_delay_seconds",
                    "How far the watermark of a partition is behind the time of day; of one without a window absent.",
                ),
                |family, (partition, ms)| {
                    let delay_s = (now_ms as f64 - *ms as f64) / 1e3;
                    family.number(&[("partition", &partition.to_string())], delay_s)
                },
            ),
            gauge(
                "flowvitals_store_read_delay_seconds",
                "From a window's append by the broker to its being taken in, the longest of the last batch.",
                self.delay_ms as f64 / 1e3,
            ),
            gauge(
                "flowvitals_store_missing_events",
                "Holes in the sequences of the partitions held: lost, or still to come.",
                self.held.missing as f64,
            ),
            counter(
                "flowvitals_store_lost_events_total",
                "Holes in the sequences that were given up: nobody waits for them any more.",
                self.held.given_up,
            ),
        ]
    }

    fn going(&self, condition: &Condition) -> Vec<Family> {
        let paused = self.paused + self.paused_since.map_or(Duration::ZERO, |s| s.elapsed());
        let conditions = [
            ("opening", matches!(condition, Condition::Opening)),
            ("writing", matches!(condition, Condition::Writing)),
            ("standby", matches!(condition, Condition::StandsBy(_))),
            ("paused", matches!(condition, Condition::Paused(_))),
        ];
        let mut families = vec![
            Family::new(
                Kind::Counter,
                "flowvitals_store_paused_seconds_total",
                "Time in which nothing was written because the store did not take it.",
            )
            .number(&[], paused.as_secs_f64()),
            labelled(
                Kind::Gauge,
                "flowvitals_store_condition",
                "1 for what this process does: it opens the store, writes, stands by for another that writes, or is paused because the store does not take rows.",
                "condition",
                conditions.map(|(word, is)| (word, u64::from(is))),
            ),
            gauge(
                "flowvitals_store_open_rows",
                "Rows of streams that still grow.",
                self.held.open_rows as f64,
            ),
        ];
        if let Some(at) = self.checkpointed {
            families.push(gauge(
                "flowvitals_store_checkpoint_age_seconds",
                "Since the last checkpoint was written.",
                at.elapsed().as_secs_f64(),
            ));
        }
        if let Some(bytes) = self.store.as_ref().and_then(|store| store.bytes()) {
            families.push(gauge(
                "flowvitals_store_size_bytes",
                "Bytes that the store takes on this machine.",
                bytes as f64,
            ));
        }
        families
    }
}

fn labelled<L: AsRef<str>>(
    kind: Kind,
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: impl IntoIterator<Item = (L, u64)>,
) -> Family {
    let family = Family::new(kind, name, help);
    values.into_iter().fold(family, |family, (word, value)| {
        family.number(&[(label, word.as_ref())], value as f64)
    })
}
