//! Events that were handed to the producer and not yet confirmed. Pure.
//!
//! Input: records on their way, and what was reported of them. Output: the events to send again, in their old order.
//! Limits: per kind at most [`MAX_EVENTS`] and [`MAX_BYTES`]; where there is no room the sink takes no more of that kind.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::sink::queue::Queued;
use crate::sink::record::Kind;

/// Unconfirmed events of one kind; together below what librdkafka may hold.
const MAX_EVENTS: usize = 5000;
/// Their bytes.
const MAX_BYTES: usize = 4 << 20;

/// Number of an event in flight: goes up, so that order is kept.
pub type Id = usize;

/// The table.
#[derive(Debug, Default)]
pub struct InFlight {
    next: Id,
    events: BTreeMap<Id, Entry>,
    used: [Used; 3],
}

/// One event.
#[derive(Debug)]
pub struct Entry {
    /// The event.
    pub queued: Queued,
    /// The producer's life in which it was last sent; none while it waits to be sent again.
    pub sent_in: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    events: usize,
    bytes: usize,
}

impl InFlight {
    /// Whether another event of this kind may be sent.
    pub fn has_room(&self, kind: Kind) -> bool {
        let used = self.used[kind.index()];
        used.events < MAX_EVENTS && used.bytes < MAX_BYTES
    }

    /// Takes an event in; it waits to be sent.
    pub fn add(&mut self, queued: Queued) -> Id {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let used = &mut self.used[queued.record.kind.index()];
        used.events += 1;
        used.bytes = used.bytes.saturating_add(queued.record.size_bytes());
        self.events.insert(
            id,
            Entry {
                queued,
                sent_in: None,
            },
        );
        id
    }

    /// The event of that number, if it is still unconfirmed.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut Entry> {
        self.events.get_mut(&id)
    }

    /// Takes an event out: it was confirmed, or never will be.
    pub fn remove(&mut self, id: Id) -> Option<Queued> {
        let entry = self.events.remove(&id)?;
        let used = &mut self.used[entry.queued.record.kind.index()];
        used.events = used.events.saturating_sub(1);
        used.bytes = used.bytes.saturating_sub(entry.queued.record.size_bytes());
        Some(entry.queued)
    }

    /// Marks an event to be sent again, if `life` is the one it was last sent in. (A report from an older producer
    /// says nothing about an event that a newer one has.)
    pub fn send_again(&mut self, id: Id, life: u64) -> Option<Kind> {
        let entry = self
            .events
            .get_mut(&id)
            .filter(|entry| entry.sent_in == Some(life))?;
        entry.sent_in = None;
        Some(entry.queued.record.kind)
    }

    /// All unconfirmed events wait to be sent again: their producer is gone.
    pub fn send_all_again(&mut self) {
        for entry in self.events.values_mut() {
            entry.sent_in = None;
        }
    }

    /// Events of a kind that wait to be sent again, oldest first.
    pub fn waiting(&self, kind: Kind) -> Vec<Id> {
        let of_kind = self
            .events
            .iter()
            .filter(|(_, entry)| entry.queued.record.kind == kind);
        of_kind
            .filter(|(_, entry)| entry.sent_in.is_none())
            .map(|(id, _)| *id)
            .collect()
    }

    /// When the oldest unconfirmed event left the window stage.
    pub fn oldest(&self) -> Option<Instant> {
        self.events.values().map(|entry| entry.queued.since).min()
    }

    /// Room for events from the backlog: what live ones leave of half the table.
    pub fn room_for_replays(&self) -> usize {
        let windows = self.used[Kind::Window.index()];
        let nodes = self.used[Kind::Node.index()];
        if windows.bytes.max(nodes.bytes) >= MAX_BYTES / 2 {
            return 0;
        }
        (MAX_EVENTS / 2).saturating_sub(windows.events.max(nodes.events))
    }

    /// Of the unconfirmed events: those that are on disk too.
    pub fn spooled_len(&self) -> usize {
        let entries = self.events.values();
        entries
            .filter(|entry| entry.queued.origin.spooled.is_some())
            .count()
    }

    /// Unconfirmed events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Unconfirmed events of a kind.
    pub fn len_of(&self, kind: Kind) -> usize {
        self.used[kind.index()].events
    }

    /// Whether all are confirmed.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::queue::Origin;
    use crate::sink::record::{Record, Stamp};

    fn event(kind: Kind, length: usize) -> Queued {
        let record = Record {
            kind,
            key: "s".to_owned(),
            stamp: Stamp::default(),
            payload: vec![0; length],
        };
        Queued {
            record,
            since: Instant::now(),
            origin: Origin::default(),
        }
    }

    #[test]
    fn a_kind_that_is_full_leaves_room_for_the_others() {
        let mut table = InFlight::default();
        let mut ids = Vec::new();
        while table.has_room(Kind::Pulse) {
            ids.push(table.add(event(Kind::Pulse, 1)));
        }
        assert_eq!(ids.len(), MAX_EVENTS);
        assert!(table.has_room(Kind::Window));
        table.add(event(Kind::Window, MAX_BYTES));
        assert!(!table.has_room(Kind::Window));
        assert!(table.remove(ids[0]).is_some() && table.remove(ids[0]).is_none());
        assert!(table.has_room(Kind::Pulse));
    }

    #[test]
    fn a_report_of_an_older_producer_does_not_send_twice() {
        let mut table = InFlight::default();
        let [first, second] = [1, 2].map(|length| table.add(event(Kind::Window, length)));
        for id in [first, second] {
            table.get_mut(id).expect("there").sent_in = Some(1);
        }
        table.send_all_again();
        assert_eq!(table.waiting(Kind::Window), [first, second]);
        table.get_mut(first).expect("there").sent_in = Some(2);
        assert_eq!(table.send_again(first, 1), None);
        assert_eq!(table.waiting(Kind::Window), [second]);
        assert_eq!(table.send_again(first, 2), Some(Kind::Window));
        assert!(table.waiting(Kind::Pulse).is_empty());
    }
}
