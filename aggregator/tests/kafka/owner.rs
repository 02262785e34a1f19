//! A member that does with its windows what the daemon does: each is taken once, and what belongs to another is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use aggregator::consume::{Arrival, Consume, Input, Kafka, Partition, Status};
use aggregator::input::{Key, Sequences, Taken, Topic};
use lab::clock::unix_ms;
use sampler_event::Event;
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use std::time::Duration;

use crate::nodes::Source;

/// How far back an owner reads: all that a test wrote.
const HORIZON: Duration = Duration::from_secs(600);

/// What an owner holds of a partition.
#[derive(Default)]
struct Held {
    sequences: Sequences,
    windows: BTreeMap<Source, BTreeSet<u64>>,
}

pub struct Owner {
    consume: Consume,
    from: Receiver<Input>,
    held: BTreeMap<Partition, Held>,
    /// Windows that it took once more than it should have: none.
    pub doubled: u64,
    /// Records that it recognised as taken before.
    pub recognised: u64,
}

impl Owner {
    pub fn start(settings: &Kafka) -> Self {
        let (consume, from) = Consume::start(settings, HORIZON).expect("good settings");
        Self {
            consume,
            from,
            held: BTreeMap::new(),
            doubled: 0,
            recognised: 0,
        }
    }

    /// Takes what is there.
    pub fn drain(&mut self) {
        loop {
            match self.from.try_recv() {
                Ok(Input::Assigned(partitions)) => {
                    let fresh = partitions.into_iter().map(|one| (one, Held::default()));
                    self.held.extend(fresh);
                }
                Ok(Input::Revoked(partitions)) => {
                    self.held.retain(|one, _| !partitions.contains(one));
                }
                Ok(Input::Batch(batch)) => batch.iter().for_each(|arrival| self.take(arrival)),
                Err(TryRecvError::Empty) => return,
                Ok(Input::CaughtUp(_)) => {}
                Err(TryRecvError::Disconnected) => panic!("the readers are gone"),
            }
        }
    }

    fn take(&mut self, arrival: &Arrival) {
        let partition = (arrival.topic, arrival.partition);
        let held = self.held.get_mut(&partition).expect("a partition of ours");
        let Event::Window(window) = &arrival.event else {
            return;
        };
        let key = Key::from(&arrival.event);
        if held.sequences.take(key, window.sequence, unix_ms()) != Taken::New {
            self.recognised += 1;
            return;
        }
        let source = (window.node.clone(), window.stream.clone());
        if !held
            .windows
            .entry(source)
            .or_default()
            .insert(window.sequence)
        {
            self.doubled += 1;
        }
    }

    /// Windows that it holds.
    pub fn count(&self) -> u64 {
        let sources = self.held.values().flat_map(|held| held.windows.values());
        sources.map(|sequences| sequences.len() as u64).sum()
    }

    /// Sequences that it holds of a source; empty if another has it.
    pub fn sequences(&self, source: &Source) -> Vec<u64> {
        let parts = self
            .held
            .values()
            .filter_map(|held| held.windows.get(source));
        parts.flatten().copied().collect()
    }

    /// Partitions of windows that it has.
    pub fn share(&self) -> usize {
        let windows = self
            .held
            .keys()
            .filter(|(topic, _)| *topic == Topic::Window);
        windows.count()
    }

    /// Whether windows and pulses of the same numbers are with it.
    pub fn is_aligned(&self) -> bool {
        let numbers = |wanted: Topic| -> BTreeSet<i32> {
            let ours = self.held.keys().filter(|(topic, _)| *topic == wanted);
            ours.map(|(_, number)| *number).collect()
        };
        numbers(Topic::Window) == numbers(Topic::Pulse)
    }

    pub fn status(&self) -> Status {
        self.consume.status()
    }

    pub fn stop(self) {
        self.consume.stop();
    }
}
