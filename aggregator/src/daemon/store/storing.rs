//! How the store is doing, shared by the role that writes and those who ask.
//!
//! Input: what the role did. Output: the store itself while it is open, words for status and health, metrics. Limits: a fixed set of
//! numbers and one lag a partition.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use service::metrics::{Buckets, Family, Kind, Sample, Value};

use super::history;
use crate::consume;
use crate::rollup::Counts;
use crate::store::{Batch, Store};

/// Upper bounds of the classes of a write's duration, s.
const BOUNDS_S: [f64; 8] = [0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// How the role is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// It has not opened the store yet.
    #[default]
    Opening,
    /// It writes what comes.
    Writing,
    /// Somebody else writes; it takes over when that one ends.
    StandsBy(String),
    /// It waits, for this reason; nothing is lost as long as Kafka has it.
    Paused(String),
}

/// Numbers of the partitions that are held now, and of those that were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) counts: Counts,
    pub(super) missing: u64,
    pub(super) open_rows: usize,
    /// End of the newest heartbeat or watermark, Unix ms.
    pub(super) newest_ms: u64,
}

#[derive(Debug, Default)]
struct Books {
    condition: Condition,
    store: Option<Arc<dyn Store>>,
    readers: consume::Status,
    held: Held,
    rows: [u64; 3],
    writes: [u64; BOUNDS_S.len() + 1],
    write_s: f64,
    failures: u64,
    paused: Duration,
    paused_since: Option<Instant>,
    checkpointed: Option<Instant>,
    swept: u64,
}

/// The books.
#[derive(Debug, Default)]
pub struct Storing {
    books: Mutex<Books>,
    /// Partitions of windows whose rows are written here.
    holds: Mutex<BTreeSet<i32>>,
    history: history::Figures,
}

impl Storing {
    /// Whether rows of a partition of windows are written here.
    pub(super) fn holds(&self, partition: i32) -> bool {
        let holds = self.holds.lock();
        holds
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&partition)
    }

    /// Notes the partitions of windows whose rows are written here.
    pub(super) fn hold(&self, partitions: impl Iterator<Item = i32>) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        *holds = partitions.collect();
    }

    /// What became of alerts.
    pub(super) fn history(&self) -> &history::Figures {
        &self.history
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store, if this process has it open.
    #[must_use]
    pub fn store(&self) -> Option<Arc<dyn Store>> {
        self.books().store.clone()
    }

    /// End of the newest event that the role knows of, Unix ms.
    #[must_use]
    pub fn newest_ms(&self) -> u64 {
        self.books().held.newest_ms
    }

    /// How it is doing.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let books = self.books();
        match (
            &books.condition,
            &books.readers.streams.state,
            &books.readers.streams.stands_by_for,
        ) {
            (Condition::Writing, consume::State::Degraded(reason), _) => {
                Condition::Paused(reason.clone())
            }
            (Condition::Writing, _, Some(other)) => {
                Condition::StandsBy(format!("{other} stores, this one stands by"))
            }
            (condition, ..) => condition.clone(),
        }
    }

    /// Why nothing is stored; none: it is, or another does it.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match self.condition() {
            Condition::Paused(reason) => Some(format!("store: {reason}")),
            Condition::Opening | Condition::Writing | Condition::StandsBy(_) => None,
        }
    }

    /// What it does, in a few words.
    #[must_use]
    pub fn summary(&self) -> String {
        match self.condition() {
            Condition::Opening => "opening the store".to_owned(),
            Condition::Writing => format!("{} rows stored", self.books().rows.iter().sum::<u64>()),
            Condition::StandsBy(who) => format!("standby: {who}"),
            Condition::Paused(reason) => format!("store paused: {reason}"),
        }
    }

    pub(super) fn opened(&self, store: Arc<dyn Store>) {
        self.books().store = Some(store);
        self.turn(Condition::Writing);
    }

    /// Notes a condition; a new one is said in the log.
    pub(super) fn turn(&self, condition: Condition) {
        let mut books = self.books();
        if books.condition == condition {
            return;
        }
        match &condition {
            Condition::Opening => {}
            Condition::Writing => tracing::info!("store: writing"),
            Condition::StandsBy(who) => tracing::info!("store: stands by: {who}"),
            Condition::Paused(reason) => tracing::warn!("store: paused: {reason}"),
        }
        if let Some(since) = books.paused_since.take() {
            books.paused += since.elapsed();
        }
        if matches!(condition, Condition::Paused(_)) {
            books.paused_since = Some(Instant::now());
        }
        books.condition = condition;
    }

    pub(super) fn wrote(&self, batch: &Batch, took: Duration) {
        let mut books = self.books();
        let written = [
            &batch.seconds.len(),
            &batch.minutes.len(),
            &batch.node_minutes.len(),
        ];
        for (sum, rows) in books.rows.iter_mut().zip(written) {
            *sum += *rows as u64;
        }
        let seconds = took.as_secs_f64();
        let class = BOUNDS_S.iter().position(|bound| seconds <= *bound);
        books.writes[class.unwrap_or(BOUNDS_S.len())] += 1;
        books.write_s += seconds;
        if !batch.checkpoints.is_empty() {
            books.checkpointed = Some(Instant::now());
        }
    }

    pub(super) fn failed(&self) {
        self.books().failures += 1;
    }

    pub(super) fn swept(&self, rows: u64) {
        self.books().swept += rows;
    }

    pub(super) fn note(&self, readers: consume::Status, held: Held) {
        let mut books = self.books();
        books.readers = readers;
        books.held = held;
    }

    /// Its metrics.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let condition = self.condition();
        let books = self.books();
        let mut families = books.written();
        families.extend(books.going(&condition));
        families.extend(self.history.families());
        families
    }
}

impl Books {
    fn written(&self) -> Vec<Family> {
        let tables = ["stream_second", "stream_minute", "node_minute"];
        let counts = &self.held.counts;
        let outcomes = [
            ("merged", counts.merged),
            ("late", counts.late),
            ("duplicate", counts.duplicate),
            ("passed_over", counts.passed_over),
            ("crowded", counts.crowded),
            ("again", counts.again),
        ];
        let mut classic = Vec::with_capacity(BOUNDS_S.len());
        let mut count = 0;
        for (bound, writes) in BOUNDS_S.iter().zip(self.writes) {
            count += writes;
            classic.push((*bound, count));
        }
        let latency = Buckets {
            count: self.writes.iter().sum(),
            sum: self.write_s,
            classic,
            ..Buckets::default()
        };
        vec![
            Family {
                name: "flowvitals_store_rows_written_total",
                help: "Rows that the store has taken, by table; a row that grew counts again.",
                kind: Kind::Counter,
                samples: labelled("table", tables.into_iter().zip(self.rows)),
            },
            Family {
                name: "flowvitals_store_windows_total",
                help: "Windows taken in to be stored, by what became of them; late: a row part of its own.",
                kind: Kind::Counter,
                samples: labelled("outcome", outcomes),
            },
            Family {
                name: "flowvitals_store_write_seconds",
                help: "How long writes took.",
                kind: Kind::Histogram,
                samples: vec![Sample {
                    labels: Vec::new(),
                    value: Value::Histogram(Box::new(latency)),
                }],
            },
            number(
                "flowvitals_store_write_failures_total",
                "Writes that the store did not take; they are tried again.",
                Kind::Counter,
                self.failures as f64,
            ),
            number(
                "flowvitals_store_rows_swept_total",
                "Rows dropped because of their age.",
                Kind::Counter,
                self.swept as f64,
            ),
        ]
    }

    fn going(&self, condition: &Condition) -> Vec<Family> {
        let paused = self.paused + self.paused_since.map_or(Duration::ZERO, |s| s.elapsed());
        let lag = self.readers.streams.lag.iter();
        let lag = lag.map(|((_, partition), lag)| (partition.to_string(), *lag));
        let is = |yes: bool| f64::from(u8::from(yes));
        let mut families = vec![
            number(
                "flowvitals_store_paused_seconds_total",
                "Time in which nothing was written because the store did not take it.",
                Kind::Counter,
                paused.as_secs_f64(),
            ),
            number(
                "flowvitals_store_active",
                "1: this process writes; 0: it stands by, waits, or opens.",
                Kind::Gauge,
                is(*condition == Condition::Writing),
            ),
            number(
                "flowvitals_store_open_rows",
                "Rows of streams that still grow.",
                Kind::Gauge,
                self.held.open_rows as f64,
            ),
            number(
                "flowvitals_store_missing_events",
                "Holes in the sequences of the partitions held: lost, or still to come.",
                Kind::Gauge,
                self.held.missing as f64,
            ),
            Family {
                name: "flowvitals_store_consumer_lag",
                help: "Records of a partition that are not read yet, at the last statistics.",
                kind: Kind::Gauge,
                samples: labelled("partition", lag),
            },
        ];
        if let Some(at) = self.checkpointed {
            families.push(number(
                "flowvitals_store_checkpoint_age_seconds",
                "Since the last checkpoint was written.",
                Kind::Gauge,
                at.elapsed().as_secs_f64(),
            ));
        }
        if let Some(bytes) = self.store.as_ref().and_then(|store| store.bytes()) {
            families.push(number(
                "flowvitals_store_size_bytes",
                "Bytes that the store takes on this machine.",
                Kind::Gauge,
                bytes as f64,
            ));
        }
        families
    }
}

fn labelled<L: Into<String>>(
    label: &'static str,
    values: impl IntoIterator<Item = (L, u64)>,
) -> Vec<Sample> {
    let sample = |(word, value): (L, u64)| Sample {
        labels: vec![(label, word.into())],
        value: Value::Number(value as f64),
    };
    values.into_iter().map(sample).collect()
}

fn number(name: &'static str, help: &'static str, kind: Kind, value: f64) -> Family {
    Family {
        name,
        help,
        kind,
        samples: vec![Sample {
            labels: Vec::new(),
            value: Value::Number(value),
        }],
    }
}
