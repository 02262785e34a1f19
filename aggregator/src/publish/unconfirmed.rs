//! Records that no broker has confirmed yet. Pure.
//!
//! Input: records for compacted topics, and what was reported of them. Output: which are to be sent. Of a compacted topic only the newest record of
//! a key counts, so a newer one takes the place of an older one that is not confirmed: brokers that are away for long cost no more than
//! one record a key, and nothing that counts is lost. Limits: [`MAX_KEYS`] keys; where there is no room the record is refused.

use std::collections::BTreeMap;

/// Keys of all topics with an unconfirmed record; below what librdkafka may hold.
pub const MAX_KEYS: usize = 50_000;

/// Number of a record.
pub type Id = usize;

/// Where a record goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Topic.
    pub topic: &'static str,
    /// Key.
    pub key: String,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    id: Id,
    /// Its partition; none: the key's.
    pub partition: Option<i32>,
    /// Its value; none takes the key out.
    pub value: Option<String>,
    /// The producer's life in which it was sent; none: it waits to be sent.
    sent_in: Option<u64>,
}

/// What a report came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It was about the newest record of its key.
    Newest,
    /// A newer one has taken its place, or it was reported before.
    Old,
}

/// The table.
#[derive(Debug, Default)]
pub struct Unconfirmed {
    next: Id,
    entries: BTreeMap<Place, Entry>,
}

impl Unconfirmed {
    /// Takes a record in, in place of an older one; it waits to be sent. None if there is no room.
    pub fn put(
        &mut self,
        place: Place,
        partition: Option<i32>,
        value: Option<String>,
    ) -> Option<Id> {
        let id = self.next;
        let full = self.entries.len() >= MAX_KEYS && !self.entries.contains_key(&place);
        if full {
            return None;
        }
        self.next = self.next.wrapping_add(1);
        let entry = Entry {
            id,
            partition,
            value,
            sent_in: None,
        };
        self.entries.insert(place, entry);
        Some(id)
    }

    /// The record of a place, with its number.
    pub fn get(&self, place: &Place) -> Option<(Id, &Entry)> {
        self.entries.get(place).map(|entry| (entry.id, entry))
    }

    /// A record was handed to a producer.
    pub fn sent(&mut self, place: &Place, id: Id, life: u64) {
        if let Some(entry) = self.entries.get_mut(place).filter(|entry| entry.id == id) {
            entry.sent_in = Some(life);
        }
    }

    /// It is confirmed, or never will be.
    pub fn done(&mut self, place: &Place, id: Id) -> Reported {
        match self.entries.get(place).is_some_and(|entry| entry.id == id) {
            true => {
                self.entries.remove(place);
                Reported::Newest
            }
            false => Reported::Old,
        }
    }

    /// It waits to be sent again, if `life` is the one in which it was sent last.
    pub fn again(&mut self, place: &Place, id: Id, life: u64) -> Reported {
        let entry = self.entries.get_mut(place);
        match entry.filter(|entry| entry.id == id && entry.sent_in == Some(life)) {
            Some(entry) => {
                entry.sent_in = None;
                Reported::Newest
            }
            None => Reported::Old,
        }
    }

    /// All wait to be sent again: their producer is gone.
    pub fn all_again(&mut self) {
        self.entries
            .values_mut()
            .for_each(|entry| entry.sent_in = None);
    }

    /// Those that wait to be sent, in the order in which they came.
    pub fn waiting(&self) -> Vec<Place> {
        let waiting = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.sent_in.is_none());
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by_key(|(_, entry)| entry.id);
        waiting
            .into_iter()
            .map(|(place, _)| place.clone())
            .collect()
    }

    /// How many are not confirmed.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether all are.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(key: &str) -> Place {
        Place {
            topic: "t",
            key: key.to_owned(),
        }
    }

    #[test]
    fn the_newest_record_of_a_key_counts() {
        let mut table = Unconfirmed::default();
        let first = table
            .put(place("a"), None, Some("1".to_owned()))
            .expect("room");
        table.sent(&place("a"), first, 1);
        let second = table.put(place("a"), None, None).expect("room");
        assert_eq!(table.waiting(), [place("a")]);
        assert_eq!(table.done(&place("a"), first), Reported::Old);
        table.sent(&place("a"), second, 1);
        assert_eq!(
            table.again(&place("a"), second, 2),
            Reported::Old,
            "another life's word"
        );
        assert_eq!(table.again(&place("a"), second, 1), Reported::Newest);
        assert_eq!(table.done(&place("a"), second), Reported::Newest);
        assert!(table.is_empty());
    }

    #[test]
    fn a_new_producer_gets_all_in_their_order() {
        let mut table = Unconfirmed::default();
        for key in ["c", "a", "b"] {
            let id = table.put(place(key), Some(1), None).expect("room");
            table.sent(&place(key), id, 1);
        }
        assert!(table.waiting().is_empty());
        table.all_again();
        assert_eq!(table.waiting(), ["c", "a", "b"].map(place));
    }

    #[test]
    fn keys_are_bounded() {
        let mut table = Unconfirmed::default();
        let taken =
            (0..MAX_KEYS + 9).filter(|n| table.put(place(&n.to_string()), None, None).is_some());
        assert_eq!(taken.count(), MAX_KEYS);
        assert!(
            table.put(place("7"), None, None).is_some(),
            "a newer one of a known key"
        );
    }
}
