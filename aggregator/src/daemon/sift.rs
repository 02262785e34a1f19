//! Each event once: what was seen of each partition that this member reads.

use std::collections::HashMap;

use sampler_event::Event;

use crate::consume::{Arrival, Partition};
use crate::input::{Key, Sequences, Taken, Totals, sequence_of};

/// The partitions.
#[derive(Default)]
pub(super) struct Partitions(HashMap<Partition, Sequences>);

impl Partitions {
    /// Their history comes again: what was known of it would hide it.
    pub(super) fn begin(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.0.insert(*partition, Sequences::default());
        }
    }

    /// They are somebody else's.
    pub(super) fn end(&mut self, partitions: &[Partition]) {
        self.0
            .retain(|partition, _| !partitions.contains(partition));
    }

    /// Events that were not there before, with the broker's time.
    pub(super) fn sift(&mut self, batch: Vec<Arrival>, now_ms: u64) -> Vec<(Event, i32, u64)> {
        let new = |arrival: &Arrival| {
            let partition = (arrival.topic, arrival.partition);
            let sequences = self.0.entry(partition).or_default();
            let key = Key::from(&arrival.event);
            sequences.take(key, sequence_of(&arrival.event), now_ms) == Taken::New
        };
        let new = batch.into_iter().filter(new);
        new.map(|arrival| (arrival.event, arrival.partition, arrival.append_ms))
            .collect()
    }

    pub(super) fn totals(&self) -> Totals {
        let totals = self.0.values().map(Sequences::totals);
        totals.fold(Totals::default(), |sum, part| Totals {
            keys: sum.keys + part.keys,
            new: sum.new + part.new,
            duplicate: sum.duplicate + part.duplicate,
            given_up: sum.given_up + part.given_up,
            untracked: sum.untracked + part.untracked,
        })
    }

    pub(super) fn missing(&self) -> u64 {
        self.0.values().map(Sequences::missing_now).sum()
    }
}
