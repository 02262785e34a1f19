//! What Kafka holds between two moments, in the order in which the brokers took it.
//!
//! Input: partitions and two moments. Output: [`PastRecord`]s by the broker's time, over all partitions: of each the next one is held, and the oldest comes first. No group, no
//! commits, nothing is written, what is no event is counted by who asks. Limits: a record of each partition here, 4 MiB of each in librdkafka;
//! [`PATIENCE`] without a record ends it with an error.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use sampler_event::Event;
use tracing::debug;

use super::Partition;
use super::place::{self, Stretch};
use super::reader::raw;
use super::settings::{Kafka, SettingsError};
use crate::input::{Refused, Topic, decode};

/// Brokers that give nothing for so long, where there is something to give, are away.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a poll waits for a record.
const POLL: Duration = Duration::from_millis(100);

/// Why the past cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// librdkafka or a broker says no.
    #[error("{0}")]
    Kafka(#[from] KafkaError),
    /// Nothing came.
    #[error("{topic} {partition}: nothing came for {} s at offset {offset} of {end}: {reason}", PATIENCE.as_secs())]
    NoAnswer {
        /// Name of the topic.
        topic: &'static str,
        /// Number of the partition.
        partition: i32,
        /// What was to come next.
        offset: i64,
        /// Where it ends.
        end: i64,
        /// The last thing that went wrong.
        reason: String,
    },
}

/// A record.
#[derive(Clone, Debug, PartialEq)]
pub struct PastRecord {
    /// Its partition.
    pub partition: Partition,
    /// When the broker appended it, Unix ms.
    pub append_ms: u64,
    /// The event, or why it is none.
    pub event: Result<Event, Refused>,
}

/// What there is to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Records between the moments.
    pub records: u64,
    /// All partitions with anything in them begin after the first moment: older records are gone.
    pub oldest: bool,
}

#[derive(Default)]
struct Listener {
    trouble: Mutex<Option<String>>,
}

impl ClientContext for Listener {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(facility, "{message}");
    }

    fn error(&self, _: KafkaError, reason: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        *trouble = Some(reason.to_owned());
    }

    fn stats(&self, _: rdkafka::Statistics) {}
}

impl ConsumerContext for Listener {}

/// One partition.
struct Part {
    stretch: Stretch,
    queue: PartitionQueue<Listener>,
    /// What came before the queue was split off.
    strays: VecDeque<Head>,
    next: i64,
}

/// The next record of a partition. Ordered by time; what has the same by topic, partition and offset.
struct Head {
    append_ms: u64,
    part: usize,
    offset: i64,
    event: Result<Event, Refused>,
}

impl Head {
    const fn order(&self) -> (u64, usize, i64) {
        (self.append_ms, self.part, self.offset)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// Which keys are wanted, by topic.
pub type Wanted = Box<dyn Fn(Topic, &[u8]) -> bool>;

/// The past.
pub struct Past {
    consumer: Arc<BaseConsumer<Listener>>,
    parts: Vec<Part>,
    heads: BinaryHeap<Reverse<Head>>,
    /// Partition whose next record is to be fetched.
    empty: Option<usize>,
    wanted: Wanted,
    held: Held,
}

impl Past {
    /// Finds what was appended from one moment on and before another, Unix ms. Partitions of the topics are `counts`; records whose key is not
    /// `wanted` are passed over.
    ///
    /// # Errors
    /// If the settings are wrong, or a leader does not answer.
    pub fn open(
        settings: &Kafka,
        counts: &BTreeMap<Topic, i32>,
        moments_ms: (u64, u64),
        wanted: Wanted,
    ) -> Result<Self, PastError> {
        let config = settings.past()?;
        let consumer: BaseConsumer<Listener> = config.create_with_context(Listener::default())?;
        let consumer = Arc::new(consumer);
        let partitions: Vec<Partition> = counts
            .iter()
            .flat_map(|(topic, count)| (0..*count).map(|number| (*topic, number)))
            .collect();
        let [from_ms, to_ms] =
            [moments_ms.0, moments_ms.1].map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        let stretches = place::between(&consumer, &partitions, from_ms, to_ms)?;
        let records = stretches
            .iter()
            .map(|one| (one.end - one.begin).unsigned_abs())
            .sum();
        let filled = |one: &&Stretch| one.end > one.begin;
        let oldest = stretches.iter().filter(filled).all(|one| one.oldest);
        let mut list = TopicPartitionList::new();
        for one in stretches.iter().filter(filled) {
            let (topic, number) = (one.partition.0.name(), one.partition.1);
            list.add_partition_offset(topic, number, Offset::Offset(one.begin))?;
        }
        consumer.assign(&list)?;
        let part = |stretch: &Stretch| {
            let (topic, number) = (stretch.partition.0.name(), stretch.partition.1);
            let queue = consumer.split_partition_queue(topic, number);
            queue.map(|queue| Part {
                stretch: *stretch,
                queue,
                strays: VecDeque::new(),
                next: stretch.begin,
            })
        };
        let parts: Vec<Part> = stretches.iter().filter(filled).filter_map(part).collect();
        let mut past = Self {
            consumer,
            parts,
            heads: BinaryHeap::new(),
            empty: None,
            wanted,
            held: Held { records, oldest },
        };
        past.serve();
        for part in 0..past.parts.len() {
            past.refill(part)?;
        }
        Ok(past)
    }

    /// What there is.
    #[must_use]
    pub const fn held(&self) -> Held {
        self.held
    }

    /// Records passed so far, wanted or not.
    #[must_use]
    pub fn passed(&self) -> u64 {
        let passed = |part: &Part| (part.next - part.stretch.begin).unsigned_abs();
        self.parts.iter().map(passed).sum()
    }

    /// The next record; none: that was all.
    ///
    /// # Errors
    /// If the brokers give no more, though there is more.
    pub fn read(&mut self) -> Result<Option<PastRecord>, PastError> {
        if let Some(part) = self.empty.take() {
            self.refill(part)?;
        }
        let Some(Reverse(head)) = self.heads.pop() else {
            return Ok(None);
        };
        self.empty = Some(head.part);
        Ok(Some(PastRecord {
            partition: self.parts[head.part].stretch.partition,
            append_ms: head.append_ms,
            event: head.event,
        }))
    }

    /// Fetches the next wanted record of a partition, if there is one.
    fn refill(&mut self, at: usize) -> Result<(), PastError> {
        let mut waiting = Instant::now();
        loop {
            let part = &mut self.parts[at];
            if part.next >= part.stretch.end {
                return Ok(());
            }
            let found = match part.strays.pop_front() {
                Some(head) => Some(head),
                None => match part.queue.poll(POLL) {
                    Some(Ok(message)) => {
                        waiting = Instant::now();
                        let offset = message.offset();
                        part.next = part.next.max(offset + 1);
                        let fits = offset < part.stretch.end;
                        fits.then(|| head(&message, at, &self.wanted)).flatten()
                    }
                    // All that was there is read: offsets may have holes.
                    Some(Err(KafkaError::PartitionEOF(_))) => {
                        part.next = part.stretch.end;
                        None
                    }
                    Some(Err(error)) => {
                        debug!(%error, "past");
                        None
                    }
                    None => {
                        self.is_answered(at, waiting)?;
                        self.serve();
                        None
                    }
                },
            };
            if let Some(head) = found {
                let part = &mut self.parts[at];
                part.next = part.next.max(head.offset + 1);
                self.heads.push(Reverse(head));
                return Ok(());
            }
        }
    }

    fn is_answered(&self, at: usize, waiting: Instant) -> Result<(), PastError> {
        if waiting.elapsed() < PATIENCE {
            return Ok(());
        }
        let (stretch, offset) = (self.parts[at].stretch, self.parts[at].next);
        let trouble = &self.consumer.context().trouble;
        let trouble = trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Err(PastError::NoAnswer {
            topic: stretch.partition.0.name(),
            partition: stretch.partition.1,
            offset,
            end: stretch.end,
            reason: trouble.unwrap_or_else(|| "no reason was given".to_owned()),
        })
    }

    /// Serves librdkafka's callbacks, and keeps what came before the queues were split off.
    fn serve(&mut self) {
        while let Some(Ok(message)) = self.consumer.poll(Duration::ZERO) {
            let of = |part: &Part| {
                let (topic, number) = part.stretch.partition;
                (topic.name(), number) == (message.topic(), message.partition())
            };
            if let Some(at) = self.parts.iter().position(of)
                && message.offset() < self.parts[at].stretch.end
                && let Some(head) = head(&message, at, &self.wanted)
            {
                self.parts[at].strays.push_back(head);
            }
        }
    }
}

/// A record that is wanted.
fn head(message: &BorrowedMessage<'_>, part: usize, wanted: &Wanted) -> Option<Head> {
    let raw = raw(message)?;
    // Without a key it is no event, and that is to be known.
    let is_wanted = raw.key.is_none_or(|key| wanted(raw.topic, key));
    is_wanted.then(|| Head {
        append_ms: raw.append_ms,
        part,
        offset: raw.offset,
        event: decode(&raw),
    })
}
