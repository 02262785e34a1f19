//! What became of every event, and how the sink is doing.
//!
//! Input: one call per event and fate. Output: cumulative [`Loss`] per stream for the window stage to stamp on the next
//! events, [`Totals`], [`SinkState`]. Laws, kept by every call: `produced = delivered + dropped + dead_letter + waiting + spooled`, the
//! same of what earlier lives left (`found = …`), and `dropped` is the sum of its reasons; see `crate::laws`.
//! Limits: at most [`MAX_STREAMS`] streams are told apart; losses of others show in the totals only.
//! Units: events, bytes, µs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::queue::Origin;
use super::record::{Kind, Record};
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

/// Why an event was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The memory for waiting events was full, and it was not on disk.
    Queue,
    /// The spool was full, or gone.
    Spool,
    /// Its place on the disk could not be read.
    Unreadable,
}

/// Dropped events by [`Reason`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// [`Reason::Queue`]
    pub queue: u64,
    /// [`Reason::Spool`]
    pub spool: u64,
    /// [`Reason::Unreadable`]
    pub unreadable: u64,
}

impl Dropped {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.queue + self.spool + self.unreadable
    }

    fn add(&mut self, reason: Reason, events: u64) {
        let count = match reason {
            Reason::Queue => &mut self.queue,
            Reason::Spool => &mut self.spool,
            Reason::Unreadable => &mut self.unreadable,
        };
        *count += events;
    }
}

/// Fates of events that an earlier life left in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// Found at start.
    pub found: u64,
    /// Confirmed since.
    pub delivered: u64,
    /// Dropped since.
    pub dropped: Dropped,
    /// Refused since.
    pub dead_letter: u64,
    /// In memory now.
    pub waiting: u64,
    /// On disk only, now.
    pub spooled: u64,
    /// Of the life before: those that were in memory only at its last window. They may have arrived or not.
    pub at_risk: u64,
}

/// Events of the node, since the daemon's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Handed over by the window stage.
    pub produced: u64,
    /// Confirmed by a broker, or written.
    pub delivered: u64,
    /// Dropped.
    pub dropped: u64,
    /// The same, by reason.
    pub dropped_by: Dropped,
    /// Refused by the broker for what they are.
    pub dead_letter: u64,
    /// Waiting in memory now: queued, or sent and not confirmed.
    pub waiting: u64,
    /// Waiting on disk only, now.
    pub spooled: u64,
    /// Of those that wait in memory: windows and heartbeats that are not on disk too.
    pub at_risk: u64,
    /// Windows and heartbeats that went on without having been written to the spool, though there is one.
    pub unspooled: u64,
    /// Events sent from the spool's backlog and confirmed, of all lives.
    pub replayed: u64,
    /// Events that earlier lives left.
    pub earlier: Earlier,
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

/// Books of the sink, shared by the outlet, the queue, the spool, the sink, the window stage and the metrics.
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

    /// The window stage handed over an event.
    pub(super) fn produced(&self, record: &Record) {
        let totals = &mut self.books().totals;
        totals.produced += 1;
        totals.waiting += 1;
        totals.at_risk += u64::from(record.kind != Kind::Pulse);
    }

    /// So many events, which wait in memory, are on disk too.
    pub(super) fn written(&self, events: u64) {
        let totals = &mut self.books().totals;
        totals.at_risk = totals.at_risk.saturating_sub(events);
    }

    /// So many events go on without being on disk.
    pub(super) fn unspooled(&self, events: u64) {
        self.books().totals.unspooled += events;
    }

    /// An event came into the queue.
    pub(super) fn queued(&self, record: &Record) {
        self.books().totals.queued_bytes += record.size_bytes() as u64;
    }

    /// An event left the queue.
    pub(super) fn taken(&self, record: &Record) {
        let totals = &mut self.books().totals;
        totals.queued_bytes = totals
            .queued_bytes
            .saturating_sub(record.size_bytes() as u64);
    }

    /// An event that is not on disk was dropped for want of room.
    pub(super) fn dropped(&self, record: &Record) {
        let mut books = self.books();
        books.leave_memory(record, Origin::default());
        books.drop_events(record.stream(), false, Reason::Queue, 1);
    }

    /// A broker confirmed an event, `after` the window stage gave it away.
    pub(super) fn delivered(&self, record: &Record, origin: Origin, after: Duration) {
        let mut books = self.books();
        books.leave_memory(record, origin);
        match origin.earlier {
            true => books.totals.earlier.delivered += 1,
            false => books.totals.delivered += 1,
        }
        if origin.replayed {
            books.totals.replayed += 1;
        } else {
            books.delivery.record(after);
        }
    }

    /// No broker will ever take this event.
    pub(super) fn dead_letter(&self, record: &Record, origin: Origin) {
        let mut books = self.books();
        books.leave_memory(record, origin);
        if origin.earlier {
            books.totals.earlier.dead_letter += 1;
            return;
        }
        books.totals.dead_letter += 1;
        books.charge(record.stream(), |loss| loss.dead_letter += 1);
    }

    /// An event left the memory; it is on disk only.
    pub(crate) fn parked(&self, earlier: bool) {
        self.books().move_to_disk(earlier);
    }

    /// An event came back into memory from the disk.
    pub(crate) fn recalled(&self, earlier: bool) {
        let totals = &mut self.books().totals;
        let (spooled, waiting) = totals.places(earlier);
        *spooled = spooled.saturating_sub(1);
        *waiting += 1;
    }

    /// So many events of earlier lives are on disk; so many could not be read, and so many were in memory only.
    pub(crate) fn found_earlier(&self, events: u64, unreadable: u64, at_risk: u64) {
        let earlier = &mut self.books().totals.earlier;
        earlier.found += events + unreadable;
        earlier.spooled += events;
        earlier.dropped.unreadable += unreadable;
        earlier.at_risk += at_risk;
    }

    /// So many events that were on disk only are lost.
    pub(crate) fn lost_on_disk(
        &self,
        stream: Option<&str>,
        earlier: bool,
        reason: Reason,
        events: u64,
    ) {
        let mut books = self.books();
        let (spooled, _) = books.totals.places(earlier);
        *spooled = spooled.saturating_sub(events);
        books.drop_events(stream, earlier, reason, events);
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

impl Totals {
    /// On disk only, in memory.
    fn places(&mut self, earlier: bool) -> (&mut u64, &mut u64) {
        match earlier {
            true => (&mut self.earlier.spooled, &mut self.earlier.waiting),
            false => (&mut self.spooled, &mut self.waiting),
        }
    }
}

impl Books {
    fn leave_memory(&mut self, record: &Record, origin: Origin) {
        let (_, waiting) = self.totals.places(origin.earlier);
        *waiting = waiting.saturating_sub(1);
        if origin.spooled.is_none() && record.kind != Kind::Pulse {
            self.totals.at_risk = self.totals.at_risk.saturating_sub(1);
        }
    }

    fn move_to_disk(&mut self, earlier: bool) {
        let (spooled, waiting) = self.totals.places(earlier);
        *waiting = waiting.saturating_sub(1);
        *spooled += 1;
    }

    fn drop_events(&mut self, stream: Option<&str>, earlier: bool, reason: Reason, events: u64) {
        if earlier {
            return self.totals.earlier.dropped.add(reason, events);
        }
        self.totals.dropped += events;
        self.totals.dropped_by.add(reason, events);
        self.charge(stream, |loss| loss.dropped += events);
    }

    fn charge(&mut self, stream: Option<&str>, add: impl FnOnce(&mut Loss)) {
        let Some(stream) = stream else {
            return;
        };
        if let Some(loss) = self.streams.get_mut(stream) {
            add(loss);
        } else if self.streams.len() < MAX_STREAMS {
            add(self.streams.entry(stream.to_owned()).or_default());
        }
    }
}
