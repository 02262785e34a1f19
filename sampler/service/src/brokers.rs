//! Whether brokers can be reached, and which topics they have.
//!
//! Input: librdkafka's configuration. Output: what the brokers say of themselves. Limits: [`TIMEOUT`] for the answer;
//! metadata says that a broker answers, not that it gives or takes records. Nothing is sent, nothing created.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

/// How long the brokers may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// Events of librdkafka that are looked at for the cause, and how long each may take.
const EVENTS: usize = 10;
const EVENT_WAIT: Duration = Duration::from_millis(50);

/// What the brokers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// `host:port` of every broker.
    pub brokers: Vec<String>,
    /// Number of partitions of every topic that this client may see.
    pub partitions: BTreeMap<String, usize>,
}

/// Why the brokers said nothing.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// librdkafka does not take the configuration.
    #[error(transparent)]
    Settings(KafkaError),
    /// No broker answered; the first cause.
    #[error("{0}")]
    NoAnswer(String),
}

/// Remembers the first thing that went wrong: later ones are mostly its consequences.
#[derive(Default)]
struct Listener {
    first_error: Mutex<Option<String>>,
}

impl ClientContext for Listener {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, reason: &str) {
        let mut first = self
            .first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| reason.to_owned());
    }
}

impl ProducerContext for Listener {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &rdkafka::message::DeliveryResult<'_>, (): ()) {}
}

/// Asks the brokers. A producer does it also for who only reads: librdkafka passes over what is a consumer's alone.
///
/// # Errors
/// If the configuration is not taken, or nobody answers within [`TIMEOUT`].
pub fn ask(config: &ClientConfig) -> Result<Cluster, AskError> {
    let producer = BaseProducer::from_config_and_context(config, Listener::default())
        .map_err(AskError::Settings)?;
    let metadata = producer
        .client()
        .fetch_metadata(None, TIMEOUT)
        .map_err(|error| {
            AskError::NoAnswer(first_error(&producer).unwrap_or_else(|| error.to_string()))
        })?;
    let address =
        |broker: &rdkafka::metadata::MetadataBroker| format!("{}:{}", broker.host(), broker.port());
    let topics = metadata.topics().iter();
    Ok(Cluster {
        brokers: metadata.brokers().iter().map(address).collect(),
        partitions: topics
            .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
            .collect(),
    })
}

/// What went wrong first. librdkafka tells it in poll, one event a call, and some of them are none of ours.
fn first_error(producer: &BaseProducer<Listener>) -> Option<String> {
    for _ in 0..EVENTS {
        producer.poll(EVENT_WAIT);
        let mut first = producer
            .context()
            .first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = first.take() {
            return Some(reason);
        }
    }
    None
}
