//! The topic of dead letters.
//!
//! Input: records that were refused. Output: the same bytes in `flowvitals.dlq.v1`, with what is known of them as headers.
//! Limits: at most [`MOST_PER_S`] in any second, others are only counted; a topic that is missing or full costs nobody's time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext};
use service::producer::Served;
use tracing::{debug, warn};

use super::books::Books;
use super::settings::{Kafka, SettingsError};
use crate::input::{Raw, Reason};

/// Where they go.
pub const TOPIC: &str = service::topics::DEAD_LETTERS;
/// Dead letters in any second.
pub const MOST_PER_S: usize = 100;
/// Refusals are logged at most this often; all are counted.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// How long the last ones may take when the aggregator stops.
const FLUSH: Duration = Duration::from_secs(2);

/// The producer of dead letters.
pub(super) struct DeadLetters {
    producer: Served<Context>,
    books: Arc<Books>,
    pace: Mutex<Pace>,
}

struct Context(Arc<Books>);

impl ClientContext for Context {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(facility, "{message}");
    }

    // The readers have the same brokers and say what is the matter with them.
    fn error(&self, _: KafkaError, reason: &str) {
        debug!(reason, "dead letters");
    }

    fn stats(&self, _: rdkafka::Statistics) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let sent = result.is_ok();
        if let Err((error, _)) = result {
            debug!(%error, "a dead letter is lost");
        }
        self.0.count(|counts| match sent {
            true => counts.dead_letters_sent += 1,
            false => counts.dead_letters_failed += 1,
        });
    }
}

impl DeadLetters {
    /// Makes the producer; it connects by itself.
    pub(super) fn new(settings: &Kafka, books: Arc<Books>) -> Result<Self, SettingsError> {
        let producer = settings
            .producer()?
            .create_with_context(Context(Arc::clone(&books)))?;
        Ok(Self {
            producer: Served::start(producer, "dead-letters")?,
            books,
            pace: Mutex::default(),
        })
    }

    /// Buries a record that was already counted as refused. Never waits.
    pub(super) fn bury(&self, raw: &Raw<'_>, reason: Reason, now: Instant) {
        let (may_go, may_log) = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            (pace.may_go(now), pace.may_log(now))
        };
        if may_log {
            let (topic, partition, offset) = (raw.topic.name(), raw.partition, raw.offset);
            warn!(topic, partition, offset, %reason, "a record is no event of ours: refused and counted");
        }
        if !may_go {
            self.books
                .count(|counts| counts.dead_letters_throttled += 1);
        } else if let Err(error) = self.send(raw, reason) {
            debug!(%error, "a dead letter is lost");
            self.books.count(|counts| counts.dead_letters_failed += 1);
        }
    }

    fn send(&self, raw: &Raw<'_>, reason: Reason) -> Result<(), KafkaError> {
        let texts = [
            ("reason", reason.to_string()),
            ("topic", raw.topic.name().to_owned()),
            ("partition", raw.partition.to_string()),
            ("offset", raw.offset.to_string()),
        ];
        let mut headers = OwnedHeaders::new_with_capacity(6);
        for (key, value) in &texts {
            headers = headers.insert(Header {
                key,
                value: Some(value),
            });
        }
        for (key, value) in [("schema", raw.schema), ("key", raw.key)] {
            headers = headers.insert(Header { key, value });
        }
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(TOPIC).headers(headers);
        record.payload = raw.payload;
        let sent = self.producer.send(record);
        sent.map_err(|(error, _)| error)
    }

    /// Lets the last ones go, for a moment.
    pub(super) fn flush(&self) {
        if let Err(error) = self.producer.flush(FLUSH) {
            debug!(%error, "dead letters are left behind");
        }
    }
}

/// How fast dead letters and words about them may come. Pure.
#[derive(Debug, Default)]
struct Pace {
    last: VecDeque<Instant>,
    logged: Option<Instant>,
}

impl Pace {
    fn may_go(&mut self, now: Instant) -> bool {
        if self.last.len() >= MOST_PER_S {
            let oldest = self.last.front().copied().unwrap_or(now);
            if now.saturating_duration_since(oldest) < Duration::from_secs(1) {
                return false;
            }
            self.last.pop_front();
        }
        self.last.push_back(now);
        true
    }

    fn may_log(&mut self, now: Instant) -> bool {
        let may = self
            .logged
            .is_none_or(|last| now.saturating_duration_since(last) >= LOG_PAUSE);
        if may {
            self.logged = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_go_in_any_second() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let mut gone = Vec::new();
        for ms in 0..5000 {
            let now = start + Duration::from_millis(ms);
            if pace.may_go(now) {
                gone.push(now);
            }
        }
        assert_eq!(gone.len(), 500);
        for pair in gone.windows(MOST_PER_S + 1) {
            assert!(pair[MOST_PER_S] - pair[0] >= Duration::from_secs(1));
        }
        assert_eq!(pace.last.len(), MOST_PER_S);
    }

    #[test]
    fn words_are_few() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let words = (0..180).filter(|second| pace.may_log(start + Duration::from_secs(*second)));
        assert_eq!(words.count(), 3);
    }
}
