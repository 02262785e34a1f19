//! What became of every event, and how the sink is doing.
//!
//! Input: one call per event and fate. Output: cumulative [`Loss`] per stream for the window stage to stamp on the next
//! events, [`Totals`], [`SinkState`]. Law: `produced = delivered + dropped + dead_letter + waiting`.
//! Limits: at most [`MAX_STREAMS`] streams are told apart; losses of others show in the totals only.
//! Units: events, bytes, µs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::record::Record;
use service::latency::Latency;

/// Streams told apart.
const MAX_STREAMS: usize = 4096;
/// Events of one stream that were lost, since the daemon's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Dropped for want of room: `spool_dropped_events`.
    pub dropped: u64,
    /// Refused by the broker for what they are: `dead_letter_events`.
    pub dead_letter: u64,
}

/// Events of the node, since the daemon's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Handed over by the window stage.
    pub produced: u64,
    /// Confirmed by a broker, or written.
    pub delivered: u64,
    /// Dropped for want of room.
    pub dropped: u64,
    /// Refused by the broker for what they are.
    pub dead_letter: u64,
    /// Waiting now: queued, or sent and not confirmed.
    pub waiting: u64,
    /// Bytes of those that queue.
    pub queued_bytes: u64,
    /// Producers that broke and were replaced.
    pub renewals: u64,
}

/// How the sink is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SinkState {
    /// Nothing was delivered yet.
    #[default]
    Starting,
    /// Events arrive.
    Ok,
    /// Events wait, for this reason.
    Degraded(String),
}

impl fmt::Display for SinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Ok => f.write_str("ok"),
            Self::Degraded(reason) => write!(f, "degraded: {reason}"),
        }
    }
}

/// Books of the sink, shared by the queue, the sink, the window stage and the metrics.
#[derive(Debug, Default)]
pub struct Ledger {
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    totals: Totals,
    streams: HashMap<String, Loss>,
    state: SinkState,
    delivery: Latency,
}

impl Ledger {
    /// What `stream` lost so far.
    pub fn loss(&self, stream: &str) -> Loss {
        self.books()
            .streams
            .get(stream)
            .copied()
            .unwrap_or_default()
    }

    /// The node's totals.
    pub fn totals(&self) -> Totals {
        self.books().totals
    }

    /// How the sink is doing.
    pub fn state(&self) -> SinkState {
        self.books().state.clone()
    }

    /// Times from the window stage to the broker's confirmation.
    pub fn delivery(&self) -> Latency {
        self.books().delivery.clone()
    }

    /// An event came into the queue.
    pub(super) fn queued(&self, record: &Record) {
        let mut books = self.books();
        books.totals.produced += 1;
        books.totals.waiting += 1;
        books.totals.queued_bytes += record.size_bytes() as u64;
    }

    /// An event left the queue for the sink.
    pub(super) fn taken(&self, record: &Record) {
        let mut books = self.books();
        books.totals.queued_bytes = books
            .totals
            .queued_bytes
            .saturating_sub(record.size_bytes() as u64);
    }

    /// An event was dropped from the queue.
    pub(super) fn dropped(&self, record: &Record) {
        self.taken(record);
        let mut books = self.books();
        books.totals.dropped += 1;
        books.totals.waiting = books.totals.waiting.saturating_sub(1);
        books.charge(record, |loss| loss.dropped += 1);
    }

    /// A broker confirmed an event, `after` the window stage gave it away.
    pub(super) fn delivered(&self, after: Duration) {
        let mut books = self.books();
        books.totals.delivered += 1;
        books.totals.waiting = books.totals.waiting.saturating_sub(1);
        books.delivery.record(after);
    }

    /// No broker will ever take this event.
    pub(super) fn dead_letter(&self, record: &Record) {
        let mut books = self.books();
        books.totals.dead_letter += 1;
        books.totals.waiting = books.totals.waiting.saturating_sub(1);
        books.charge(record, |loss| loss.dead_letter += 1);
    }

    /// A broken producer was replaced.
    pub(super) fn renewed(&self) {
        self.books().totals.renewals += 1;
    }

    /// Sets the state; true if it is another one than before.
    pub(super) fn set_state(&self, state: SinkState) -> bool {
        let mut books = self.books();
        let changed = books.state != state;
        books.state = state;
        changed
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Counters stay usable whatever panicked while it held them.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn charge(&mut self, record: &Record, add: impl FnOnce(&mut Loss)) {
        let Some(stream) = record.stream() else {
            return;
        };
        if let Some(loss) = self.streams.get_mut(stream) {
            add(loss);
        } else if self.streams.len() < MAX_STREAMS {
            add(self.streams.entry(stream.to_owned()).or_default());
        }
    }
}
