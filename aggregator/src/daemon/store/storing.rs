//! How the store is doing, shared by the role that writes and those who ask.
//!
//! Input: what the role did. Output: the store itself while it is open, words for status and health. Limits: a fixed set of numbers,
//! one lag and one watermark a partition.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use service::metrics::Family;

use super::history;
use crate::consume;
use crate::rollup::Counts;
use crate::store::{Batch, Store};

/// Upper bounds of the classes of a write's duration, s.
pub(super) const BOUNDS_S: [f64; 8] = [0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
/// What was appended so long before it is taken in is late, ms: no turn of the loop takes as long.
const BEHIND_MS: u64 = 5_000;

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
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) counts: Counts,
    /// Holes in the sequences now, and those that were given up.
    pub(super) missing: u64,
    pub(super) given_up: u64,
    /// By partition, Unix ms; those without a window have none.
    pub(super) watermarks_ms: Vec<(i32, u64)>,
    pub(super) open_rows: usize,
    /// End of the newest heartbeat or watermark, Unix ms.
    pub(super) newest_ms: u64,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) condition: Condition,
    pub(super) store: Option<Arc<dyn Store>>,
    pub(super) readers: consume::Status,
    pub(super) held: Held,
    pub(super) rows: [u64; 3],
    pub(super) writes: [u64; BOUNDS_S.len() + 1],
    pub(super) write_s: f64,
    pub(super) failures: u64,
    pub(super) paused: Duration,
    pub(super) paused_since: Option<Instant>,
    pub(super) checkpointed: Option<Instant>,
    pub(super) swept: u64,
    /// From the append of a record to its being taken in, the longest of the last batch, ms; 0: nothing waits.
    pub(super) delay_ms: u64,
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

    /// Notes how it is.
    pub(super) fn note(&self, readers: consume::Status, held: Held) {
        let mut books = self.books();
        books.readers = readers;
        books.held = held;
    }

    /// Notes how old what was read is by now; that it falls behind, and that it has caught up, is said in the log.
    pub(super) fn took(&self, delay_ms: u64) {
        let mut books = self.books();
        let before = books.behind_ms();
        books.delay_ms = delay_ms;
        match (before, books.behind_ms()) {
            (None, Some(ms)) => tracing::info!("store: {} s behind, catches up", ms / 1_000),
            (Some(_), None) => tracing::info!("store: has caught up"),
            _ => {}
        }
    }

    /// How old what is stored now was when it was read; none: it keeps up.
    #[must_use]
    pub fn behind_ms(&self) -> Option<u64> {
        self.books().behind_ms()
    }

    /// Its metrics.
    #[must_use]
    pub fn families(&self, now_ms: u64) -> Vec<Family> {
        let condition = self.condition();
        let mut families = self.books().families(&condition, now_ms);
        families.extend(self.history.families());
        families
    }
}

impl Books {
    fn behind_ms(&self) -> Option<u64> {
        Some(self.delay_ms).filter(|ms| *ms >= BEHIND_MS)
    }
}
