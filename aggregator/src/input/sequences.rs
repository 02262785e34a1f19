//! Each event once, and how many are missing.
//!
//! Input: who made an event, its sequence, and when it was read. Output: whether it is new, and the holes between the sequences
//! that were seen. A new life of a daemon is a new key: its sequences begin again.
//! Limits: 64 intervals a key, [`MAX_KEYS`] keys; a key that was not heard of
//! for [`FORGET_AFTER_MS`] is forgotten. Names are held once, however many keys have them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::decode::Topic;
use super::intervals::{Added, Intervals};
use super::names::{Id, Names};

/// A key that was not heard of for so long is forgotten, ms.
pub const FORGET_AFTER_MS: u64 = 15 * 60 * 1000;
/// Most keys: twelve times those of a site of 100 nodes and 200 streams. An event of one key more passes as new, and is counted.
pub const MAX_KEYS: usize = 500_000;
/// Keys are looked through at most this often, ms.
const SWEEP_MS: u64 = 60_000;

/// Whose sequence it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Life of its daemon.
    pub instance: u64,
    /// Name of the stream; empty for a heartbeat.
    pub stream: &'a str,
    /// Kind of the event.
    pub kind: Topic,
}

impl<'a> Key<'a> {
    /// Of a window.
    #[must_use]
    pub fn of(window: &'a sampler_event::StreamWindow) -> Self {
        Self {
            node: &window.node,
            instance: window.instance,
            stream: &window.stream,
            kind: Topic::Window,
        }
    }
}

impl<'a> From<&'a sampler_event::Event> for Key<'a> {
    fn from(event: &'a sampler_event::Event) -> Self {
        use sampler_event::Event;
        let (kind, node, instance, stream) = match event {
            Event::Window(window) => return Self::of(window),
            Event::Pulse(pulse) => (Topic::Pulse, &pulse.node, pulse.instance, &*pulse.stream),
            Event::Node(heartbeat) => (Topic::Node, &heartbeat.node, heartbeat.instance, ""),
        };
        Self {
            node,
            instance,
            stream,
            kind,
        }
    }
}

/// Number of an event in its sequence.
#[must_use]
pub fn sequence_of(event: &sampler_event::Event) -> u64 {
    use sampler_event::Event;
    match event {
        Event::Window(window) => window.sequence,
        Event::Pulse(pulse) => pulse.sequence,
        Event::Node(heartbeat) => heartbeat.sequence,
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was not there before.
    New,
    /// It was there before, or its hole was given up.
    Duplicate,
}

/// What all keys have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Keys held now.
    pub keys: usize,
    /// Events taken as new, cumulative.
    pub new: u64,
    /// Events seen again, cumulative.
    pub duplicate: u64,
    /// Sequences missing for good, cumulative: their hole was closed to keep to a bound, or their key was forgotten.
    pub given_up: u64,
    /// Events that passed unseen because there are too many keys, cumulative.
    pub untracked: u64,
}

/// The sequences of all keys.
#[derive(Debug, Default)]
pub struct Sequences {
    names: Names,
    seen: HashMap<Small, Seen>,
    totals: Totals,
    swept_ms: u64,
}

/// A key with numbers for its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Small {
    pub(super) instance: u64,
    pub(super) node: Id,
    pub(super) stream: Id,
    pub(super) kind: Topic,
}

#[derive(Debug)]
pub(super) struct Seen {
    pub(super) heard_ms: u64,
    pub(super) sequences: Intervals,
}

impl Sequences {
    /// Takes an event that was read at a moment, Unix time or any other clock that goes on.
    pub fn take(&mut self, key: Key<'_>, sequence: u64, now_ms: u64) -> Taken {
        self.sweep(now_ms);
        let full = self.seen.len() >= MAX_KEYS;
        if full
            && self
                .small(key)
                .is_none_or(|small| !self.seen.contains_key(&small))
        {
            self.totals.untracked = self.totals.untracked.saturating_add(1);
            return Taken::New;
        }
        let small = Small {
            instance: key.instance,
            node: self.names.id(key.node),
            stream: self.names.id(key.stream),
            kind: key.kind,
        };
        let added = match self.seen.entry(small) {
            Entry::Vacant(vacant) => {
                self.names.hold(small.node);
                self.names.hold(small.stream);
                vacant.insert(Seen {
                    heard_ms: now_ms,
                    sequences: Intervals::of(sequence),
                });
                Added::New { given_up: 0 }
            }
            Entry::Occupied(mut occupied) => {
                let seen = occupied.get_mut();
                seen.heard_ms = seen.heard_ms.max(now_ms);
                seen.sequences.add(sequence)
            }
        };
        match added {
            Added::New { given_up } => {
                self.totals.new = self.totals.new.saturating_add(1);
                self.totals.given_up = self.totals.given_up.saturating_add(given_up);
                Taken::New
            }
            Added::Known => {
                self.totals.duplicate = self.totals.duplicate.saturating_add(1);
                Taken::Duplicate
            }
        }
    }

    /// Sequences of a key that are missing between those seen: lost, or not yet arrived. Those given up are among them.
    #[must_use]
    pub fn missing(&self, key: Key<'_>) -> u64 {
        self.get(key).map_or(0, |seen| {
            seen.sequences
                .open_holes()
                .saturating_add(seen.sequences.given_up())
        })
    }

    /// Sequences of all keys held now that are missing between those seen and not given up. Looks at every key.
    #[must_use]
    pub fn missing_now(&self) -> u64 {
        let all = self.seen.values();
        all.fold(0, |sum, seen| {
            sum.saturating_add(seen.sequences.open_holes())
        })
    }

    /// The last sequence up to which all of a key arrived or were given up, from the first one seen on.
    #[must_use]
    pub fn complete_up_to(&self, key: Key<'_>) -> Option<u64> {
        self.get(key).map(|seen| seen.sequences.complete_up_to())
    }

    /// What all keys have seen.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            keys: self.seen.len(),
            ..self.totals
        }
    }

    /// Memory in use, bytes, as far as it can be reckoned from outside the allocator.
    #[must_use]
    pub fn bytes(&self) -> usize {
        // A byte of control for each place of the table.
        let table = self.seen.capacity() * (size_of::<(Small, Seen)>() + 1);
        let heap: usize = self
            .seen
            .values()
            .map(|seen| seen.sequences.heap_bytes())
            .sum();
        table + heap + self.names.bytes()
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn seen(&self) -> impl Iterator<Item = (&Small, &Seen)> {
        self.seen.iter()
    }

    /// Puts back what was seen of a key.
    pub(super) fn put(&mut self, key: Key<'_>, heard_ms: u64, sequences: Intervals) {
        let small = Small {
            instance: key.instance,
            node: self.names.id(key.node),
            stream: self.names.id(key.stream),
            kind: key.kind,
        };
        let seen = Seen {
            heard_ms,
            sequences,
        };
        if self.seen.insert(small, seen).is_none() {
            self.names.hold(small.node);
            self.names.hold(small.stream);
        }
    }

    fn get(&self, key: Key<'_>) -> Option<&Seen> {
        self.seen.get(&self.small(key)?)
    }

    fn small(&self, key: Key<'_>) -> Option<Small> {
        Some(Small {
            instance: key.instance,
            node: self.names.known(key.node)?,
            stream: self.names.known(key.stream)?,
            kind: key.kind,
        })
    }

    /// Forgets the keys that were not heard of for long.
    fn sweep(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.swept_ms) < SWEEP_MS {
            return;
        }
        self.swept_ms = now_ms;
        let (names, totals) = (&mut self.names, &mut self.totals);
        self.seen.retain(|small, seen| {
            let keep = now_ms.saturating_sub(seen.heard_ms) < FORGET_AFTER_MS;
            if !keep {
                totals.given_up = totals.given_up.saturating_add(seen.sequences.open_holes());
                names.release(small.node);
                names.release(small.stream);
            }
            keep
        });
        if self.seen.capacity() > self.seen.len().saturating_mul(4) {
            self.seen.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn key<'a>(node: &'a str, instance: u64, stream: &'a str) -> Key<'a> {
        Key {
            node,
            instance,
            stream,
            kind: Topic::Window,
        }
    }

    #[test]
    fn each_key_has_sequences_of_its_own() {
        let mut sequences = Sequences::default();
        let pulse = Key {
            kind: Topic::Pulse,
            ..key("n", 1, "s")
        };
        // The names swapped are another key.
        let keys = [
            key("n", 1, "s"),
            pulse,
            key("n", 2, "s"),
            key("n", 1, "t"),
            key("s", 1, "n"),
        ];
        for key in keys {
            assert_eq!(sequences.take(key, 4, 0), Taken::New, "{key:?}");
        }
        for key in keys {
            assert_eq!(sequences.take(key, 4, 0), Taken::Duplicate, "{key:?}");
        }
        sequences.take(pulse, 7, 0);
        assert_eq!(keys.map(|key| sequences.missing(key)), [0, 2, 0, 0, 0]);
        assert_eq!(sequences.complete_up_to(pulse), Some(4));
        assert_eq!(sequences.complete_up_to(key("n", 3, "s")), None);
        let totals = sequences.totals();
        assert_eq!((totals.keys, totals.new, totals.duplicate), (5, 6, 5));
        assert_eq!((sequences.missing_now(), totals.given_up), (2, 0));
    }

    #[test]
    fn a_hole_that_is_given_up_stays_missing() {
        let mut sequences = Sequences::default();
        let key = key("n", 1, "s");
        for sequence in 0..200 {
            sequences.take(key, sequence * 2, 0);
        }
        assert_eq!(sequences.missing(key), 199);
        assert_eq!(sequences.missing_now() + sequences.totals().given_up, 199);
        assert_eq!(sequences.missing_now(), 63);
        assert_eq!(sequences.take(key, 1, 0), Taken::Duplicate);
        assert_eq!(sequences.take(key, 397, 0), Taken::New);
        assert_eq!(sequences.missing(key), 198);
    }

    #[test]
    fn who_is_silent_is_forgotten_with_its_names() {
        let mut sequences = Sequences::default();
        for number in 0..1000 {
            sequences.take(key(&format!("node-{number}"), number, "s"), 0, 0);
            sequences.take(key(&format!("node-{number}"), number, "s"), 2, 0);
        }
        let full = sequences.bytes();
        let living = key("node-7", 7, "s");
        for minute in 1..15 {
            sequences.take(living, 2 + minute, minute * 60_000);
            assert_eq!(sequences.totals().keys, 1000);
        }
        assert_eq!(sequences.take(living, 17, FORGET_AFTER_MS), Taken::New);
        let totals = sequences.totals();
        assert_eq!((totals.keys, totals.given_up), (1, 999));
        assert_eq!(sequences.missing(living), 1);
        assert!(
            sequences.bytes() * 10 < full,
            "{} of {full}",
            sequences.bytes()
        );
        assert_eq!(
            sequences.take(key("node-8", 8, "s"), 0, FORGET_AFTER_MS),
            Taken::New
        );
    }

    #[test]
    fn forty_thousand_keys_stay_small() {
        let mut sequences = Sequences::default();
        let nodes: Vec<_> = (0..100)
            .map(|node| format!("edge-{node:03}.ams1.example.net"))
            .collect();
        let streams: Vec<_> = (0..200)
            .map(|stream| format!("customer-event-{stream:03}"))
            .collect();
        for node in &nodes {
            for stream in &streams {
                for kind in [Topic::Window, Topic::Pulse] {
                    let key = Key {
                        kind,
                        ..key(node, 1, stream)
                    };
                    for sequence in 0..3 {
                        sequences.take(key, sequence, 0);
                    }
                }
            }
        }
        assert_eq!(sequences.totals().keys, 40_000);
        let per_key = sequences.bytes() / 40_000;
        println!(
            "{per_key} bytes a key; {} an entry",
            size_of::<(Small, Seen)>()
        );
        assert!(per_key <= 128, "{per_key} bytes a key");
    }

    #[test]
    fn one_key_too_many_passes_and_is_counted() {
        let mut sequences = Sequences::default();
        for instance in 0..MAX_KEYS as u64 {
            sequences.take(key("n", instance, "s"), 0, 0);
        }
        let bytes = sequences.bytes();
        for _ in 0..2 {
            assert_eq!(sequences.take(key("another", 0, "s"), 0, 0), Taken::New);
        }
        assert_eq!(sequences.take(key("n", 0, "s"), 0, 0), Taken::Duplicate);
        assert_eq!(sequences.totals().untracked, 2);
        assert_eq!(sequences.bytes(), bytes);
    }

    proptest! {
        #[test]
        fn is_a_set_in_any_order(
            events in prop::collection::vec((0_u64..3, 0_u64..120), 1..600),
        ) {
            // At most 60 intervals a key: nothing is given up.
            let (mut sequences, mut plain) = (Sequences::default(), HashSet::new());
            for (instance, sequence) in events {
                let expected = if plain.insert((instance, sequence)) { Taken::New } else { Taken::Duplicate };
                prop_assert_eq!(sequences.take(key("n", instance, "s"), sequence, 0), expected);
            }
            prop_assert_eq!(sequences.totals().new, plain.len() as u64);
        }

        #[test]
        fn no_event_is_taken_twice(
            events in prop::collection::vec((0_u64..2, any::<u64>(), 0_u64..100_000), 1..300),
            again in prop::collection::vec(any::<prop::sample::Index>(), 0..100),
        ) {
            let (mut sequences, mut plain, mut now_ms) = (Sequences::default(), HashSet::new(), 0);
            let repeated = again.iter().map(|index| *index.get(&events));
            for (instance, sequence, step_ms) in events.iter().copied().chain(repeated) {
                // Never so long that a key is forgotten.
                now_ms += step_ms / 100;
                let new = plain.insert((instance, sequence));
                if sequences.take(key("n", instance, "s"), sequence, now_ms) == Taken::New {
                    prop_assert!(new);
                }
            }
        }
    }
}
