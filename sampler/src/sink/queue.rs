//! The queue between the window stage and the sink.
//!
//! Input: records, without ever making the window stage wait. Output: the same records in order, one lane per kind, so
//! that a topic which is held back does not stand in the way of the others.
//! Limits: each lane holds its [`Capacity`] in events and in bytes. A full lane gives its **oldest** record back to the spool if it is on
//! disk too, to be replayed later; otherwise it is dropped, and the [`Ledger`] counts it for its stream. Units: events, bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use super::ledger::Ledger;
use super::record::{Kind, Record};
use crate::spool::{Spool, SpoolId};

/// Drops are logged at most this often; all are counted.
const DROP_LOG: Duration = Duration::from_secs(60);

/// Room of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Events.
    pub events: usize,
    /// Bytes of the encoded events and their keys.
    pub bytes: usize,
}

impl Capacity {
    /// Rooms of the three lanes by [`Kind::index`]: 100 s of 200 streams' windows, 20 s of ten streams' pulses, ten
    /// minutes of heartbeats; 13 MiB in all, since the daemon is to stay below 40.
    pub const DEFAULT: [Self; 3] = [
        Self {
            events: 600,
            bytes: 1 << 20,
        },
        Self {
            events: 20_000,
            bytes: 8 << 20,
        },
        Self {
            events: 20_000,
            bytes: 4 << 20,
        },
    ];

    /// Rooms where windows and heartbeats are on disk too: what does not fit here is replayed from there. 10 s of 200 streams'
    /// windows, so that those which were live when a broker came back are few.
    pub const SPOOLED: [Self; 3] = [
        Self {
            events: 60,
            bytes: 1 << 20,
        },
        Self {
            events: 2_000,
            bytes: 2 << 20,
        },
        Self::DEFAULT[2],
    ];
}

/// Where a record comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its place on disk; none: it is in memory only.
    pub spooled: Option<SpoolId>,
    /// An earlier life of the daemon made it.
    pub earlier: bool,
    /// It comes from the backlog, not from the window stage.
    pub replayed: bool,
}

/// Makes a queue with rooms by [`Kind::index`].
pub fn queue(capacity: [Capacity; 3], ledger: Arc<Ledger>) -> (QueueSender, QueueReceiver) {
    spooled_queue(capacity, ledger, None)
}

/// Makes a queue whose records may be on disk too.
pub fn spooled_queue(
    capacity: [Capacity; 3],
    ledger: Arc<Ledger>,
    spool: Option<Spool>,
) -> (QueueSender, QueueReceiver) {
    let lanes = capacity.map(|capacity| Lane {
        records: VecDeque::new(),
        bytes: 0,
        capacity,
    });
    let lanes = Mutex::new(Lanes {
        lanes,
        closed: false,
        last_drop_log: None,
    });
    let shared = Arc::new(Shared {
        lanes,
        changed: Notify::new(),
        ledger,
        spool,
    });
    (
        QueueSender {
            shared: Arc::clone(&shared),
        },
        QueueReceiver { shared },
    )
}

/// The window stage's end. Dropping it ends the queue: what is in it can still be taken.
#[derive(Debug)]
pub struct QueueSender {
    shared: Arc<Shared>,
}

/// The sink's end.
#[derive(Debug)]
pub struct QueueReceiver {
    shared: Arc<Shared>,
}

/// A record on its way, with the time at which the window stage gave it away.
#[derive(Debug)]
pub struct Queued {
    /// The record.
    pub record: Record,
    /// When the window stage gave it away.
    pub since: Instant,
    /// Where it comes from.
    pub origin: Origin,
}

#[derive(Debug)]
struct Shared {
    lanes: Mutex<Lanes>,
    changed: Notify,
    ledger: Arc<Ledger>,
    spool: Option<Spool>,
}

#[derive(Debug)]
struct Lanes {
    lanes: [Lane; 3],
    closed: bool,
    last_drop_log: Option<Instant>,
}

#[derive(Debug)]
struct Lane {
    records: VecDeque<Queued>,
    bytes: usize,
    capacity: Capacity,
}

impl Lane {
    fn pop(&mut self) -> Option<Queued> {
        let queued = self.records.pop_front()?;
        self.bytes = self.bytes.saturating_sub(queued.record.size_bytes());
        Some(queued)
    }

    fn overfull(&self) -> bool {
        self.records.len() > self.capacity.events || self.bytes > self.capacity.bytes
    }
}

impl Shared {
    /// A record leaves the queue for want of room. True: it is lost.
    fn evict(&self, queued: &Queued) -> bool {
        self.ledger.taken(&queued.record);
        match (queued.origin.spooled, &self.spool) {
            (Some(id), Some(spool)) => {
                self.ledger.parked(queued.origin.earlier);
                spool.give_back(id, &queued.record, queued.origin.earlier);
                false
            }
            _ => {
                self.ledger.dropped(&queued.record);
                true
            }
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueSender {
    /// Adds a record that is on no disk; never waits. Where there is no room the oldest records of its kind go.
    pub fn push(&self, record: Record) {
        self.push_all([record]);
    }

    /// The same for several.
    pub fn push_all(&self, records: impl IntoIterator<Item = Record>) {
        let since = Instant::now();
        self.enqueue(records.into_iter().map(|record| {
            self.shared.ledger.produced(&record);
            Queued {
                record,
                since,
                origin: Origin::default(),
            }
        }));
    }

    /// Adds records that were counted as produced; never waits.
    pub fn enqueue(&self, events: impl IntoIterator<Item = Queued>) {
        let ledger = &self.shared.ledger;
        let now = Instant::now();
        let mut lanes = self.shared.lanes();
        let mut dropped = false;
        for queued in events {
            ledger.queued(&queued.record);
            let lane = &mut lanes.lanes[queued.record.kind.index()];
            lane.bytes = lane.bytes.saturating_add(queued.record.size_bytes());
            lane.records.push_back(queued);
            while lane.overfull()
                && let Some(oldest) = lane.pop()
            {
                dropped |= self.shared.evict(&oldest);
            }
        }
        let log = dropped
            && lanes
                .last_drop_log
                .is_none_or(|last| now.duration_since(last) >= DROP_LOG);
        if log {
            lanes.last_drop_log = Some(now);
        }
        drop(lanes);
        if log {
            warn!(total = ledger.totals().dropped, sink = %ledger.state(), "the queue is full: its oldest events are dropped and counted");
        }
        self.shared.changed.notify_one();
    }
}

impl Drop for QueueSender {
    fn drop(&mut self) {
        self.shared.lanes().closed = true;
        self.shared.changed.notify_one();
    }
}

impl QueueReceiver {
    /// Takes the next record of a lane that is open (by [`Kind::index`]), or waits for one. `None`: the sender is gone
    /// and the open lanes are empty. Safe to cancel.
    pub async fn recv(&mut self, open: [bool; 3]) -> Option<Queued> {
        loop {
            match self.try_recv(open) {
                Some(queued) => return Some(queued),
                None if self.is_closed() => return None,
                // A push since the look above has left a permit: it is not missed.
                None => self.shared.changed.notified().await,
            }
        }
    }

    /// Takes the next record of an open lane, if there is one.
    pub fn try_recv(&mut self, open: [bool; 3]) -> Option<Queued> {
        let mut lanes = self.shared.lanes();
        let kinds = Kind::ALL.into_iter().filter(|kind| open[kind.index()]);
        let queued = kinds
            .into_iter()
            .find_map(|kind| lanes.lanes[kind.index()].pop())?;
        self.shared.ledger.taken(&queued.record);
        Some(queued)
    }

    /// Whether the sender is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.lanes().closed
    }

    /// Records that wait.
    pub fn len(&self) -> usize {
        self.shared
            .lanes()
            .lanes
            .iter()
            .map(|lane| lane.records.len())
            .sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The spool, if there is one.
    pub fn spool(&self) -> Option<&Spool> {
        self.shared.spool.as_ref()
    }

    /// Of the records that wait: those that are on disk too.
    pub fn spooled_len(&self) -> usize {
        let lanes = self.shared.lanes();
        let records = lanes.lanes.iter().flat_map(|lane| &lane.records);
        records
            .filter(|queued| queued.origin.spooled.is_some())
            .count()
    }

    /// The books that the queue keeps.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sink::{Loss, Stamp};

    const ALL: [bool; 3] = [true; 3];

    fn record(kind: Kind, key: &str, length: usize) -> Record {
        Record {
            kind,
            key: key.to_owned(),
            stamp: Stamp::default(),
            payload: vec![7; length],
        }
    }

    fn small(events: usize, bytes: usize) -> (QueueSender, QueueReceiver) {
        queue([Capacity { events, bytes }; 3], Arc::new(Ledger::default()))
    }

    #[test]
    fn a_full_lane_drops_its_oldest_and_counts_it_for_its_stream() {
        let (sender, mut receiver) = small(2, usize::MAX);
        for key in ["a", "a", "b", "c"] {
            sender.push(record(Kind::Window, key, 10));
        }
        sender.push(record(Kind::Node, "node", 10));
        let keys: Vec<String> = std::iter::from_fn(|| receiver.try_recv(ALL))
            .map(|queued| queued.record.key)
            .collect();
        assert_eq!(keys, ["node", "b", "c"]);
        assert_eq!(
            receiver.ledger().loss("a"),
            Loss {
                dropped: 2,
                dead_letter: 0
            }
        );
        assert_eq!(receiver.ledger().loss("b"), Loss::default());
    }

    #[test]
    fn a_record_larger_than_its_lane_is_dropped_itself() {
        let (sender, mut receiver) = small(10, 500);
        sender.push(record(Kind::Pulse, "a", 5000));
        assert!(receiver.try_recv(ALL).is_none());
        assert_eq!(receiver.ledger().totals().dropped, 1);
        assert_eq!(receiver.ledger().totals().queued_bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_lane_lets_the_others_pass_and_the_end_is_seen() {
        let (sender, mut receiver) = small(10, usize::MAX);
        sender.push(record(Kind::Window, "w", 1));
        sender.push(record(Kind::Pulse, "p", 1));
        let held = [true, false, true];
        assert_eq!(receiver.recv(held).await.expect("pulse").record.key, "p");
        let waited = tokio::time::timeout(Duration::from_secs(1), receiver.recv(held)).await;
        assert!(waited.is_err(), "only the held lane has records");
        drop(sender);
        assert!(receiver.recv(held).await.is_none());
        assert_eq!(receiver.recv(ALL).await.expect("window").record.key, "w");
        assert!(receiver.recv(ALL).await.is_none() && receiver.is_empty());
    }

    #[tokio::test]
    async fn wakes_the_waiting_sink() {
        let (sender, mut receiver) = small(10, usize::MAX);
        let sink =
            tokio::spawn(async move { receiver.recv(ALL).await.map(|queued| queued.record.key) });
        tokio::task::yield_now().await;
        sender.push(record(Kind::Window, "w", 1));
        assert_eq!(sink.await.expect("sink"), Some("w".to_owned()));
    }

    proptest! {
        #[test]
        fn never_exceeds_its_bounds_and_loses_nothing_uncounted(
            lengths in prop::collection::vec((0usize..3, 0usize..400, any::<bool>()), 0..200)
        ) {
            let capacity = Capacity { events: 7, bytes: 2000 };
            let (sender, mut receiver) = queue([capacity; 3], Arc::new(Ledger::default()));
            let mut taken = 0;
            for (kind, length, take) in lengths {
                sender.push(record(Kind::ALL[kind], "s", length));
                taken += u64::from(take && receiver.try_recv(ALL).is_some());
                for lane in &receiver.shared.lanes().lanes {
                    prop_assert!(lane.records.len() <= capacity.events && lane.bytes <= capacity.bytes);
                    let sum: usize = lane.records.iter().map(|queued| queued.record.size_bytes()).sum();
                    prop_assert_eq!(lane.bytes, sum);
                }
                let totals = receiver.ledger().totals();
                prop_assert_eq!(totals.produced, taken + totals.dropped + receiver.len() as u64);
            }
        }
    }
}
