//! What was read, what was refused, and how the readers are doing.
//!
//! Input: one call per record, and librdkafka's statistics. Output: [`Status`]. Law: `records = events + refused`, and
//! where they are buried, `refused = dead_letters.sent + throttled + failed + waiting`.
//! Limits: a fixed set of reasons; lag of the partitions that this member reads.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::Statistics;

use super::Partition;
use super::health::State;
use crate::input::{Reason, Topic};

/// Counters since the start, all cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events handed on, in the order of [`Topic::ALL`].
    pub events: [u64; 3],
    /// Their bytes and those of the refused, key and value.
    pub bytes: u64,
    /// Records refused, in the order of [`Reason::LABELS`].
    pub refused: [u64; Reason::COUNT],
    /// Refused records whose bytes are kept in the topic of dead letters.
    pub dead_letters_sent: u64,
    /// Refused records that were only counted: there were too many in one second.
    pub dead_letters_throttled: u64,
    /// Refused records that the topic of dead letters did not take.
    pub dead_letters_failed: u64,
    /// Times that reading was paused because nobody took what was read.
    pub pauses: u64,
}

/// How one reader is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReaderStatus {
    /// In words.
    pub state: State,
    /// Partitions that it reads.
    pub assigned: Vec<Partition>,
    /// Who reads instead of it, where one member of the group reads everything.
    pub stands_by_for: Option<String>,
    /// Records of each partition that are not yet read, as of the last statistics.
    pub lag: BTreeMap<Partition, u64>,
    /// Brokers with a connection.
    pub brokers_up: usize,
    /// Brokers that should have one.
    pub brokers_down: usize,
    /// The last error that librdkafka told of, whether it still matters or not.
    pub last_error: Option<String>,
}

/// How everything is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The member of the group: windows and pulses.
    pub streams: ReaderStatus,
    /// The reader of all heartbeats.
    pub nodes: ReaderStatus,
    /// Counters of both.
    pub counts: Counts,
}

/// Which of the two readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Windows and pulses, as a member of the group.
    Streams,
    /// Heartbeats, all of them.
    Nodes,
}

impl Role {
    /// Its word in the log.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Nodes => "nodes",
        }
    }
}

/// The books, shared by readers, dead letters and metrics.
#[derive(Debug, Default)]
pub(super) struct Books {
    status: Mutex<Status>,
}

impl Books {
    /// A copy of everything.
    pub(super) fn status(&self) -> Status {
        self.lock().clone()
    }

    /// A record was an event, or was refused.
    pub(super) fn record(&self, topic: Topic, bytes: usize, refused: Option<Reason>) {
        let counts = &mut self.lock().counts;
        counts.bytes = counts.bytes.saturating_add(bytes as u64);
        let count = match refused {
            None => &mut counts.events[topic.index()],
            Some(reason) => &mut counts.refused[reason.index()],
        };
        *count = count.saturating_add(1);
    }

    /// Changes counters.
    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.lock().counts);
    }

    /// Sets the state of a reader; true if it is another one than before.
    pub(super) fn set_state(&self, role: Role, state: State) -> bool {
        let mut status = self.lock();
        let known = &mut status.reader(role).state;
        let changed = *known != state;
        *known = state;
        changed
    }

    /// Sets what a reader reads; lags of other partitions are forgotten.
    pub(super) fn set_assigned(&self, role: Role, partitions: Vec<Partition>) {
        let mut status = self.lock();
        let reader = status.reader(role);
        reader.stands_by_for = None;
        reader
            .lag
            .retain(|partition, _| partitions.contains(partition));
        reader.assigned = partitions;
    }

    /// Another member reads everything.
    pub(super) fn set_standing_by(&self, role: Role, for_whom: String) {
        self.lock().reader(role).stands_by_for = Some(for_whom);
    }

    /// Remembers an error.
    pub(super) fn set_error(&self, role: Role, error: String) {
        self.lock().reader(role).last_error = Some(error);
    }

    /// Takes in what librdkafka says of itself.
    pub(super) fn set_statistics(&self, role: Role, statistics: &Statistics) {
        let mut status = self.lock();
        let reader = status.reader(role);
        (reader.brokers_up, reader.brokers_down) = brokers(statistics);
        reader.lag = lags(statistics, &reader.assigned);
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // Counters stay usable whatever panicked while it held them.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Status {
    fn reader(&mut self, role: Role) -> &mut ReaderStatus {
        match role {
            Role::Streams => &mut self.streams,
            Role::Nodes => &mut self.nodes,
        }
    }
}

/// Brokers with a connection, and those that should have one. librdkafka connects to those that it needs; a broker in the state
/// INIT is not needed now. Addresses of the configuration count as long as no broker has told of others.
fn brokers(statistics: &Statistics) -> (usize, usize) {
    let of = |source: &'static str| {
        let all = statistics.brokers.values();
        all.filter(move |broker| broker.source == source)
    };
    let source = if of("learned").next().is_some() {
        "learned"
    } else {
        "configured"
    };
    let up = |state: &str| matches!(state, "UP" | "UPDATE");
    let count =
        |wanted: &dyn Fn(&str) -> bool| of(source).filter(|broker| wanted(&broker.state)).count();
    (count(&up), count(&|state| state != "INIT" && !up(state)))
}

/// Records between what was handed to us and the end, of each partition that we read.
fn lags(statistics: &Statistics, assigned: &[Partition]) -> BTreeMap<Partition, u64> {
    let lag = |&(topic, number): &Partition| {
        let topic = statistics.topics.get(topic.name())?;
        let partition = topic.partitions.get(&number)?;
        let position = if partition.app_offset >= 0 {
            partition.app_offset
        } else {
            // Nothing was handed over yet: what is read ahead still lies before us.
            partition.next_offset.checked_sub(partition.fetchq_cnt)?
        };
        let known = partition.hi_offset >= 0 && position >= 0;
        known.then(|| u64::try_from(partition.hi_offset.saturating_sub(position)).unwrap_or(0))
    };
    let all = assigned.iter();
    all.filter_map(|partition| Some((*partition, lag(partition)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics;

    use super::*;

    fn broker(source: &str, state: &str) -> (String, statistics::Broker) {
        let broker = statistics::Broker {
            source: source.to_owned(),
            state: state.to_owned(),
            ..Default::default()
        };
        (format!("{source}-{state}"), broker)
    }

    #[test]
    fn brokers_that_are_not_needed_are_neither_up_nor_down() {
        let mut statistics = Statistics::default();
        statistics
            .brokers
            .extend([broker("configured", "TRY_CONNECT")]);
        assert_eq!(brokers(&statistics), (0, 1));
        let known = ["UP", "UPDATE", "INIT", "DOWN", "CONNECT"];
        statistics
            .brokers
            .extend(known.map(|state| broker("learned", state)));
        statistics.brokers.extend([broker("logical", "UP")]);
        assert_eq!(brokers(&statistics), (2, 2));
    }

    #[test]
    fn lag_is_what_was_not_handed_to_us() {
        let mut statistics = Statistics::default();
        let partition = |app_offset, next_offset, fetchq_cnt, hi_offset| statistics::Partition {
            app_offset,
            next_offset,
            fetchq_cnt,
            hi_offset,
            ..Default::default()
        };
        let mut topic = statistics::Topic::default();
        topic.partitions.extend([
            (0, partition(90, 100, 10, 120)),
            (1, partition(-1001, 100, 10, 120)),
            (2, partition(-1001, -1001, 0, -1001)),
            (3, partition(10, 10, 0, 10)),
            (-1, partition(0, 0, 0, 99)),
        ]);
        statistics
            .topics
            .insert(Topic::Window.name().to_owned(), topic);
        let assigned: Vec<_> = [0, 1, 2, 9].map(|number| (Topic::Window, number)).to_vec();
        let expected = BTreeMap::from([((Topic::Window, 0), 30), ((Topic::Window, 1), 30)]);
        assert_eq!(lags(&statistics, &assigned), expected);
        let books = Books::default();
        books.set_assigned(Role::Streams, assigned);
        books.set_statistics(Role::Streams, &statistics);
        assert_eq!(books.status().streams.lag, expected);
        books.set_assigned(Role::Streams, vec![(Topic::Window, 1)]);
        assert_eq!(books.status().streams.lag.len(), 1);
    }

    #[test]
    fn counts_are_apart() {
        let books = Books::default();
        books.record(Topic::Pulse, 10, None);
        books.record(Topic::Pulse, 5, Some(Reason::Malformed("pulse_ms")));
        let counts = books.status().counts;
        assert_eq!((counts.events, counts.bytes), ([0, 1, 0], 15));
        assert_eq!(counts.refused[Reason::Malformed("").index()], 1);
        assert!(
            books.set_state(Role::Nodes, State::Ok) && !books.set_state(Role::Nodes, State::Ok)
        );
        assert_eq!(books.status().streams.state, State::Starting);
    }
}
