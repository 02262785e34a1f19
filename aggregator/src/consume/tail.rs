//! A compacted topic, read from its beginning and on, in a thread of its own.
//!
//! Input: which partitions. Output: [`Tailed`] over a bounded channel: records in their order per partition, and once per partition that its end was
//! reached. No group, no commits: who reads again reads all again. Limits: [`CHANNEL_RECORDS`] records wait for the owner.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::debug;

use super::place::TIMEOUT;
use super::settings::{Kafka, SettingsError};

/// Records that wait for the owner.
pub const CHANNEL_RECORDS: usize = 1_024;
/// How long a poll waits for a record: what is wanted anew is read so soon.
const POLL: Duration = Duration::from_millis(20);
/// A topic that is not there is asked for so often.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tailed {
    /// A record.
    Record {
        /// Number of the wish that it belongs to.
        turn: u64,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// Its key.
        key: String,
        /// Its value; none: the key is taken out.
        value: Option<Vec<u8>>,
    },
    /// All that had been there of a partition is read.
    End {
        /// Number of the wish that it belongs to.
        turn: u64,
        /// The partition.
        partition: i32,
    },
    /// Something is wrong, in words.
    Trouble(String),
}

#[derive(Debug)]
enum Wish {
    All,
    Some(Vec<i32>),
}

#[derive(Debug, Default)]
struct Wanted {
    turn: u64,
    wish: Option<Wish>,
}

/// The reader; it stops when it is dropped.
#[derive(Debug)]
pub struct Tail {
    wanted: Arc<Mutex<Wanted>>,
    stop: Arc<AtomicBool>,
}

pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(facility, "{message}");
    }

    // The readers of events have the same brokers and say what is the matter with them.
    fn error(&self, _: KafkaError, reason: &str) {
        debug!(reason, "tail");
    }

    fn stats(&self, _: rdkafka::Statistics) {}
}

impl ConsumerContext for Quiet {}

impl Tail {
    /// Starts; nothing is read before something is wished for.
    ///
    /// # Errors
    /// The settings'.
    pub fn start(
        settings: &Kafka,
        topic: &'static str,
    ) -> Result<(Self, Receiver<Tailed>), SettingsError> {
        let consumer = settings.tail()?.create_with_context(Quiet)?;
        let (to, from) = channel(CHANNEL_RECORDS);
        let tail = Self {
            wanted: Arc::default(),
            stop: Arc::default(),
        };
        let reader = Reader {
            consumer,
            topic,
            to,
            wanted: Arc::clone(&tail.wanted),
            stop: Arc::clone(&tail.stop),
            turn: 0,
            ended: BTreeSet::new(),
            again: None,
            trouble: String::new(),
        };
        thread::Builder::new()
            .name("tail".to_owned())
            .spawn(move || reader.run())
            .map_err(|error| SettingsError::Conflict(format!("no thread: {error}")))?;
        Ok((tail, from))
    }

    /// Reads these partitions from their beginning, and no others; returns the number of this wish.
    pub fn read(&self, partitions: Vec<i32>) -> u64 {
        self.wish(Wish::Some(partitions))
    }

    /// Reads all partitions from their beginning, as soon as the topic is there.
    pub fn read_all(&self) -> u64 {
        self.wish(Wish::All)
    }

    fn wish(&self, wish: Wish) -> u64 {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.turn += 1;
        wanted.wish = Some(wish);
        wanted.turn
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Reader {
    consumer: BaseConsumer<Quiet>,
    topic: &'static str,
    to: Sender<Tailed>,
    wanted: Arc<Mutex<Wanted>>,
    stop: Arc<AtomicBool>,
    turn: u64,
    /// Partitions whose end was said.
    ended: BTreeSet<i32>,
    /// When to look for the topic again.
    again: Option<Instant>,
    trouble: String,
}

impl Reader {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.turn_to_wish();
            if self.poll().is_err() {
                return;
            }
        }
    }

    fn turn_to_wish(&mut self) {
        if self.again.is_some_and(|again| Instant::now() < again) {
            return;
        }
        let wanted = {
            let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            (wanted.turn, wanted.wish.take())
        };
        let (turn, Some(wish)) = wanted else { return };
        (self.turn, self.again) = (turn, None);
        self.ended.clear();
        let assigned = match &wish {
            Wish::Some(partitions) => self.assign(partitions),
            Wish::All => count(&self.consumer, self.topic)
                .and_then(|count| self.assign(&(0..count).collect::<Vec<_>>())),
        };
        if let Err(error) = assigned {
            self.complain(format!("topic {}: {error}", self.topic));
            self.again = Some(Instant::now() + ASK_AGAIN);
            let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if wanted.turn == turn {
                wanted.wish = Some(wish);
            }
        }
    }

    fn assign(&self, partitions: &[i32]) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition_offset(self.topic, *partition, Offset::Beginning)?;
        }
        self.consumer.assign(&list)
    }

    fn poll(&mut self) -> Result<(), ()> {
        let turn = self.turn;
        let said = match self.consumer.poll(POLL) {
            None => return Ok(()),
            Some(Ok(message)) => Tailed::Record {
                turn,
                partition: message.partition(),
                offset: message.offset(),
                key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
                value: message.payload().map(<[u8]>::to_vec),
            },
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if !self.ended.insert(partition) {
                    return Ok(());
                }
                Tailed::End { turn, partition }
            }
            Some(Err(error)) => {
                self.complain(format!("topic {}: {error}", self.topic));
                return Ok(());
            }
        };
        self.trouble.clear();
        self.to.blocking_send(said).map_err(drop)
    }

    /// Says something once.
    fn complain(&mut self, trouble: String) {
        if trouble != self.trouble {
            self.trouble.clone_from(&trouble);
            // Who does not listen hears the records first.
            let _ = self.to.try_send(Tailed::Trouble(trouble));
        }
    }
}

pub(super) fn count(consumer: &BaseConsumer<Quiet>, topic: &str) -> Result<i32, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let found = metadata.topics().first();
    match found.map(|found| (found.error(), found.partitions().len())) {
        Some((None, count)) if count > 0 => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
        Some((Some(error), _)) => Err(KafkaError::MetadataFetch(Code::from(error))),
        _ => Err(KafkaError::MetadataFetch(Code::UnknownTopic)),
    }
}

/// How many partitions a topic has. Blocks, some seconds at most.
///
/// # Errors
/// If no broker answers, or the topic is not there.
pub fn partitions_of(settings: &Kafka, topic: &str) -> Result<i32, String> {
    let of = |settings: &Kafka| {
        let consumer: BaseConsumer<Quiet> = settings.tail()?.create_with_context(Quiet)?;
        Ok::<_, SettingsError>(count(&consumer, topic))
    };
    match of(settings) {
        Ok(Ok(count)) => Ok(count),
        Ok(Err(error)) => Err(format!("topic {topic}: {error}")),
        Err(error) => Err(error.to_string()),
    }
}
