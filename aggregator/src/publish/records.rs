//! Records of compacted topics: alerts and states.
//!
//! Input: keys and JSON values. Output: records, each confirmed by the brokers, or counted; words of an alert after the state that
//! they come from. Errors go by their [`class`]: what can be tried again is, what will never be taken is counted, a topic that is
//! missing or forbidden is said and tried again, a producer that broke is replaced.
//! Never waits but in [`Records::flush`]. Limits: [`super::unconfirmed`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use service::delivery::{Class, class};
use service::producer::Served;
use service::topics;
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};

use super::later::Later;
use super::unconfirmed::{Id, Place, Reported, Unconfirmed};
use crate::consume::{Kafka, SettingsError};

/// A topic that takes nothing is tried again after so long, and after twice as long each time up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A record that is unconfirmed for so long is worth a word.
const STALE: Duration = Duration::from_secs(5);

/// What became of the records of a topic since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Confirmed.
    pub delivered: u64,
    /// Refused by the brokers, for good or for now; what is for now is sent again.
    pub failed: u64,
    /// Refused here for want of room, or dropped because another owner may have taken over.
    pub dropped: u64,
}

/// How it is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// By topic.
    pub fates: Vec<(&'static str, Fates)>,
    /// Records that no broker has confirmed.
    pub unconfirmed: usize,
    /// What is wrong, in words.
    pub trouble: Option<String>,
}

/// What is known of one topic.
#[derive(Debug)]
struct Topic {
    fates: Fates,
    trouble: Option<String>,
    /// Nothing is sent there before.
    again: Option<Instant>,
    pause: Duration,
}

impl Default for Topic {
    fn default() -> Self {
        Self {
            fates: Fates::default(),
            trouble: None,
            again: None,
            pause: FIRST_PAUSE,
        }
    }
}

struct Report {
    place: Place,
    id: Id,
    life: u64,
    result: Result<(), Code>,
}

struct Context {
    reports: Sender<Report>,
    reported: Arc<Notify>,
    troubles: Sender<String>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(facility, "{message}");
            }
            _ => debug!(facility, "{message}"),
        }
    }

    fn error(&self, _: KafkaError, reason: &str) {
        // Nobody listens any more only while the daemon stops.
        let _ = self.troubles.send(reason.to_owned());
    }

    fn stats(&self, _: rdkafka::Statistics) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<(Place, Id, u64)>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        let (place, id, life) = *sent;
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        };
        let _ = self.reports.send(Report {
            place,
            id,
            life,
            result,
        });
        self.reported.notify_one();
    }
}

/// The producer of records.
pub struct Records {
    config: ClientConfig,
    producer: Served<Context>,
    life: u64,
    table: Unconfirmed,
    /// Topic, key and value of records whose state is not confirmed yet.
    later: Later<(&'static str, String, String)>,
    reported: Arc<Notify>,
    reports: (Sender<Report>, Receiver<Report>),
    troubles: (Sender<String>, Receiver<String>),
    topics: BTreeMap<&'static str, Topic>,
    /// The producer broke and could not be replaced before.
    renew_at: Option<Instant>,
    /// Since when something is unconfirmed all the time.
    since: Option<Instant>,
    last_trouble: Option<String>,
}

fn producer(config: &ClientConfig, context: Context) -> Result<Served<Context>, KafkaError> {
    Served::start(config.create_with_context(context)?, "records")
}

impl Records {
    /// Makes the producer; it connects by itself.
    ///
    /// # Errors
    /// The settings'. A broker that is away is none.
    pub fn start(settings: &Kafka) -> Result<Self, SettingsError> {
        let config = settings.records()?;
        let (reports, troubles) = (channel(), channel());
        let reported = Arc::<Notify>::default();
        let context = Context {
            reports: reports.0.clone(),
            reported: Arc::clone(&reported),
            troubles: troubles.0.clone(),
        };
        let producer = producer(&config, context)?;
        Ok(Self {
            config,
            producer,
            life: 1,
            table: Unconfirmed::default(),
            later: Later::default(),
            reported,
            reports,
            troubles,
            topics: BTreeMap::new(),
            renew_at: None,
            since: None,
            last_trouble: None,
        })
    }

    /// Sends a record: to a partition or to its key's, a value or none. Never waits.
    pub fn put(
        &mut self,
        topic: &'static str,
        partition: Option<i32>,
        key: String,
        value: Option<String>,
    ) {
        self.hear();
        let place = Place { topic, key };
        if self.table.put(place.clone(), partition, value).is_none() {
            self.topic(topic).fates.dropped += 1;
            return;
        }
        if self.topic(topic).again.is_none() {
            self.send(&place);
        }
    }

    /// Sends a record of a key as soon as the state of the same key is confirmed, or has not been for too long. Never waits.
    pub fn put_after_state(&mut self, topic: &'static str, key: String, value: String) {
        self.hear();
        let state = Place {
            topic: topics::STATE,
            key: key.clone(),
        };
        let now = Instant::now();
        let word = (topic, key, value);
        let at_once = match self.table.get(&state).is_some() || self.later.has(&state) {
            true => self.later.put(state, word, now),
            false => Some(word),
        };
        if let Some((topic, key, value)) = at_once {
            self.put(topic, None, key, Some(value));
        }
    }

    /// Sends what has waited for its state.
    fn release(&mut self) {
        if self.later.is_empty() {
            return;
        }
        let table = &self.table;
        let confirmed = |state: &Place| table.get(state).is_none();
        for (topic, key, value) in self.later.release(Instant::now(), confirmed) {
            self.put(topic, None, key, Some(value));
        }
    }

    /// Drops what waits for its state, and counts it: who may have a successor says nothing of what was before. What is on is said
    /// again anyway, by whoever owns it.
    pub fn drop_words(&mut self) {
        let dropped = self.later.release_all();
        for (topic, ..) in dropped {
            self.topic(topic).fates.dropped += 1;
        }
    }

    /// Ends when the brokers have said something of a record; what was said before counts.
    pub fn reported(&self) -> impl Future<Output = ()> + use<> {
        let reported = Arc::clone(&self.reported);
        async move { reported.notified().await }
    }

    fn send(&mut self, place: &Place) {
        let Some((id, entry)) = self.table.get(place) else {
            return;
        };
        let opaque = Box::new((place.clone(), id, self.life));
        let mut record: BaseRecord<'_, str, str, _> =
            BaseRecord::with_opaque_to(place.topic, opaque).key(place.key.as_str());
        record.payload = entry.value.as_deref();
        record.partition = entry.partition;
        match self.producer.send(record) {
            Ok(()) => self.table.sent(place, id, self.life),
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                self.failed(place, id, code);
            }
        }
    }

    fn failed(&mut self, place: &Place, id: Id, code: Code) {
        match class(code) {
            Class::DeadLetter => {
                self.table.done(place, id);
                self.topic(place.topic).fates.failed += 1;
                warn!(topic = place.topic, key = place.key, %code, "a record will never be taken");
            }
            Class::Fatal => self.renew(),
            Class::Hold | Class::Retry => {
                let topic = self.topic(place.topic);
                topic.fates.failed += 1;
                topic.trouble = Some(format!("topic {}: {code}", place.topic));
                if topic.again.is_none() {
                    topic.again = Some(Instant::now() + topic.pause);
                    topic.pause = (topic.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Takes in what was reported.
    fn hear(&mut self) {
        while let Ok(report) = self.reports.1.try_recv() {
            let (place, id) = (&report.place, report.id);
            match report.result {
                Ok(()) => {
                    let topic = self.topic(place.topic);
                    topic.fates.delivered += 1;
                    (topic.pause, topic.trouble) = (FIRST_PAUSE, None);
                    self.last_trouble = None;
                    self.table.done(place, id);
                }
                Err(code) => {
                    if self.table.again(place, id, report.life) == Reported::Newest {
                        self.failed(place, id, code);
                    }
                }
            }
        }
        while let Ok(trouble) = self.troubles.1.try_recv() {
            self.last_trouble = Some(trouble);
        }
        let may_renew = self.renew_at.is_none_or(|at| Instant::now() >= at);
        if let Some((code, reason)) = self.producer.client().fatal_error().filter(|_| may_renew) {
            info!(%code, reason, "the producer of alerts is replaced");
            self.renew();
        }
    }

    /// To be called several times a second.
    pub fn tick(&mut self) {
        self.hear();
        self.release();
        let now = Instant::now();
        let due = |topic: &Topic| topic.again.is_some_and(|again| now >= again);
        if self.topics.values().any(due) {
            self.topics
                .values_mut()
                .filter(|topic| due(topic))
                .for_each(|topic| topic.again = None);
            for place in self.table.waiting() {
                if self.topic(place.topic).again.is_none() {
                    self.send(&place);
                }
            }
        }
        self.since = match self.table.is_empty() && self.later.is_empty() {
            true => None,
            false => self.since.or(Some(now)),
        };
    }

    fn renew(&mut self) {
        let context = Context {
            reports: self.reports.0.clone(),
            reported: Arc::clone(&self.reported),
            troubles: self.troubles.0.clone(),
        };
        match producer(&self.config, context) {
            Ok(producer) => {
                let old = std::mem::replace(&mut self.producer, producer);
                // Ending waits for librdkafka's thread.
                std::thread::spawn(move || drop(old));
                self.life += 1;
                self.table.all_again();
                for topic in self.topics.values_mut() {
                    topic.again = Some(Instant::now());
                }
            }
            Err(error) => {
                warn!(%error, "no producer of alerts");
                self.renew_at = Some(Instant::now() + LONGEST_PAUSE);
            }
        }
    }

    /// Waits until all is confirmed, `patience` at most; how many records are not.
    pub fn flush(&mut self, patience: Duration) -> usize {
        let end = Instant::now() + patience;
        if !self.later.is_empty() {
            self.send_all(patience / 2);
            for (topic, key, value) in self.later.release_all() {
                self.put(topic, None, key, Some(value));
            }
        }
        self.send_all(end.saturating_duration_since(Instant::now()));
        self.table.len()
    }

    fn send_all(&mut self, patience: Duration) {
        for place in self.table.waiting() {
            self.send(&place);
        }
        if let Err(error) = self.producer.flush(patience) {
            debug!(%error, "records are left behind");
        }
        self.hear();
    }

    fn topic(&mut self, topic: &'static str) -> &mut Topic {
        self.topics.entry(topic).or_default()
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let stale = self.since.is_some_and(|since| since.elapsed() >= STALE);
        let held = self.topics.values().find_map(|topic| topic.trouble.clone());
        let unconfirmed = || {
            let reason = self.last_trouble.clone();
            reason.unwrap_or_else(|| "the brokers do not confirm alerts".to_owned())
        };
        let fates = self.topics.iter();
        Status {
            fates: fates.map(|(name, topic)| (*name, topic.fates)).collect(),
            unconfirmed: self.table.len() + self.later.len(),
            trouble: held.or_else(|| stale.then(unconfirmed)),
        }
    }
}
