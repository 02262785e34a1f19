//! Whether the brokers can be reached, and know the topics.
//!
//! Input: the sink's settings. Output: [`Check`]s. Limits: [`TIMEOUT`] for the answer; metadata says that a broker
//! answers, not that it takes records. Nothing is sent, nothing created.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use super::report::{Check, Essential};
use crate::sink::{KafkaError, KafkaSettings, Kind, client_config};

/// How long the brokers may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Events of librdkafka that are looked at for the cause, and how long each may take.
const EVENTS: usize = 10;
const EVENT_WAIT: Duration = Duration::from_millis(50);

/// Remembers the first thing that went wrong: later ones are mostly its consequences.
#[derive(Default)]
struct Listener {
    first_error: Mutex<Option<String>>,
}

impl ClientContext for Listener {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: ClientError, reason: &str) {
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

/// Asks the brokers.
pub fn check(settings: &KafkaSettings) -> Vec<Check> {
    let producer = client_config(settings).and_then(|config| {
        BaseProducer::from_config_and_context(&config, Listener::default())
            .map_err(KafkaError::from)
    });
    let producer = match producer {
        Ok(producer) => producer,
        Err(error) => {
            let todo = "correct [kafka] in the configuration";
            return vec![Check::no(
                "kafka",
                error.to_string(),
                todo,
                Some(Essential::Configuration),
            )];
        }
    };
    match producer.client().fetch_metadata(None, TIMEOUT) {
        Ok(metadata) => judge(settings, &metadata),
        Err(error) => {
            let first = first_error(&producer);
            let found = format!(
                "{}: {}",
                settings.brokers.join(","),
                first.unwrap_or_else(|| error.to_string())
            );
            let todo = "start the broker, or correct kafka.brokers; the sampler runs without and sends when one is there";
            vec![Check::no("kafka", found, todo, None)]
        }
    }
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

fn judge(settings: &KafkaSettings, metadata: &Metadata) -> Vec<Check> {
    let brokers: Vec<String> = metadata
        .brokers()
        .iter()
        .map(|broker| format!("{}:{}", broker.host(), broker.port()))
        .collect();
    let mut checks = vec![Check::ok(
        "kafka",
        format!("answers; brokers: {}", brokers.join(", ")),
    )];
    for kind in Kind::ALL {
        let name = settings.topics.of(kind);
        let partitions = metadata
            .topics()
            .iter()
            .find(|topic| topic.name() == name)
            .map(|topic| topic.partitions().len());
        checks.push(match partitions {
            Some(count) if count > 0 => Check::ok("topic", format!("{name}: {count} partitions")),
            _ => Check::no(
                "topic",
                format!("{name}: not there, or not for this client to see"),
                "create it as deploy/kafka declares it, and allow this client to write; its events wait until then",
                None,
            ),
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rdkafka::mocking::MockCluster;

    use super::super::report::Level;
    use super::*;
    use crate::sink::Topics;

    fn settings(brokers: String) -> KafkaSettings {
        KafkaSettings {
            brokers: vec![brokers],
            topics: Topics::with_window("flowvitals.window.v1"),
            node: "n".to_owned(),
            properties: BTreeMap::new(),
            flush_timeout: Duration::ZERO,
        }
    }

    #[test]
    fn sees_brokers_and_topics() {
        let cluster = MockCluster::new(1).expect("mock cluster");
        cluster
            .create_topic("flowvitals.window.v1", 12, 1)
            .expect("topic");
        cluster
            .create_topic("flowvitals.node.v1", 12, 1)
            .expect("topic");
        let checks = check(&settings(cluster.bootstrap_servers()));
        let levels: Vec<Level> = checks.iter().map(|check| check.level).collect();
        assert_eq!(
            levels,
            [Level::Ok, Level::Ok, Level::Ok, Level::No],
            "{checks:?}"
        );
        assert!(
            checks[3].found.starts_with("flowvitals.pulse.v1"),
            "{checks:?}"
        );
    }

    #[test]
    fn a_broker_that_is_away_keeps_nothing_from_running() {
        let checks = check(&settings("127.0.0.1:1".to_owned()));
        assert_eq!(
            (checks.len(), checks[0].level, checks[0].essential),
            (1, Level::No, None)
        );
        assert!(checks[0].found.contains("Connection refused"), "{checks:?}");
    }

    #[test]
    fn a_wrong_property_does() {
        let mut settings = settings("127.0.0.1:1".to_owned());
        settings
            .properties
            .insert("acks".to_owned(), "1".to_owned());
        assert_eq!(
            check(&settings)[0].essential,
            Some(Essential::Configuration)
        );
    }
}
