//! A member of the group, and all that it was told.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use aggregator::consume::{Arrival, Consume, Input, Kafka, Partition, Status};
use aggregator::input::{Key, Topic};
use lab::clock::unix_ms;
use sampler_event::Event;
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

/// Longest wait for something that must come; far above what it takes.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How far back the members read: all that a test wrote.
const HORIZON: Duration = Duration::from_secs(600);

pub struct Member {
    pub consume: Consume,
    from: Receiver<Input>,
    pub assigned: BTreeSet<Partition>,
    /// Where the events of the present assignment were.
    pub seen: BTreeSet<(Topic, i32, i64)>,
    /// Events of all assignments: kind, stream, sequence.
    pub events: BTreeSet<(Topic, String, u64)>,
    pub revocations: usize,
    /// Partitions of the present assignment whose history is read.
    pub caught_up: BTreeSet<Partition>,
}

impl Member {
    pub fn start(settings: &Kafka) -> Self {
        Self::start_with(settings, HORIZON)
    }

    pub fn start_with(settings: &Kafka, horizon: Duration) -> Self {
        let (consume, from) = Consume::start(settings, horizon).expect("good settings");
        Self {
            consume,
            from,
            assigned: BTreeSet::new(),
            seen: BTreeSet::new(),
            events: BTreeSet::new(),
            revocations: 0,
            caught_up: BTreeSet::new(),
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Assigned(partitions) => {
                for partition in partitions {
                    assert!(self.assigned.insert(partition), "{partition:?} was ours");
                }
            }
            Input::Revoked(partitions) => {
                for partition in partitions {
                    assert!(
                        self.assigned.remove(&partition),
                        "{partition:?} was not ours"
                    );
                    self.caught_up.remove(&partition);
                    self.seen
                        .retain(|(topic, number, _)| (*topic, *number) != partition);
                }
                self.revocations += 1;
            }
            Input::Batch(batch) => batch.iter().for_each(|arrival| self.arrival(arrival)),
            Input::CaughtUp(partitions) => {
                for partition in partitions {
                    assert!(
                        self.assigned.contains(&partition),
                        "{partition:?} is not ours"
                    );
                    assert!(self.caught_up.insert(partition), "{partition:?} twice");
                }
            }
        }
    }

    fn arrival(&mut self, arrival: &Arrival) {
        let (topic, partition, offset) = (arrival.topic, arrival.partition, arrival.offset);
        assert!(
            self.assigned.contains(&(topic, partition)),
            "{topic:?} {partition} is not ours"
        );
        assert!(
            arrival.append_ms.abs_diff(unix_ms()) < 300_000,
            "{}",
            arrival.append_ms
        );
        let mut later = self
            .seen
            .range((topic, partition, offset)..=(topic, partition, i64::MAX));
        assert_eq!(
            later.next(),
            None,
            "offset {offset} came twice or out of order"
        );
        self.seen.insert((topic, partition, offset));
        let key = Key::from(&arrival.event);
        let sequence = match &arrival.event {
            Event::Window(window) => window.sequence,
            Event::Pulse(pulse) => pulse.sequence,
            Event::Node(heartbeat) => heartbeat.sequence,
        };
        self.events
            .insert((key.kind, key.stream.to_owned(), sequence));
    }

    /// Takes all that is there.
    pub fn drain(&mut self) {
        loop {
            match self.from.try_recv() {
                Ok(input) => self.take(input),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => panic!("the readers are gone"),
            }
        }
    }

    #[track_caller]
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        all_until(&mut [self], what, |members| holds(members[0]))
    }

    pub fn status(&self) -> Status {
        self.consume.status()
    }

    /// Numbers of the partitions of a topic that it has.
    pub fn numbers_of(&self, topic: Topic) -> BTreeSet<i32> {
        let ours = self.assigned.iter();
        ours.filter(|(of, _)| *of == topic)
            .map(|(_, number)| *number)
            .collect()
    }

    /// Whether it has so many partitions of windows, and of pulses.
    pub fn has_share(&self, partitions: usize) -> bool {
        [Topic::Window, Topic::Pulse]
            .iter()
            .all(|topic| self.numbers_of(*topic).len() == partitions)
    }
}

/// Lets all members take what comes until it holds; how long that took.
#[track_caller]
pub fn all_until(
    members: &mut [&mut Member],
    what: &str,
    holds: impl Fn(&[&mut Member]) -> bool,
) -> Duration {
    let start = Instant::now();
    loop {
        members.iter_mut().for_each(|member| member.drain());
        if holds(members) {
            return start.elapsed();
        }
        if start.elapsed() > PATIENCE {
            for member in members.iter() {
                let (seen, events) = (member.seen.len(), member.events.len());
                println!("{seen} seen, {events} events, {:?}", member.status());
            }
            panic!("{what} did not come");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
