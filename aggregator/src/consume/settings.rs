//! What librdkafka is told.
//!
//! Input: brokers, the prefix of the group and the operator's own properties. Output: client configurations, or an error fit for
//! exit status 78. Limits: properties pass as they are; those that would break what the aggregator promises are refused, by us or
//! by librdkafka itself.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::producer::BaseProducer;

use crate::config::{Config, ConfigError};

/// Section `[kafka]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kafka {
    /// Bootstrap brokers, `host:port`.
    pub brokers: Vec<String>,
    /// Beginning of the names of the consumer groups.
    pub group_prefix: String,
    /// The operator's `[kafka.properties]`.
    pub properties: BTreeMap<String, String>,
}

/// Why there is no client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// librdkafka knows no such property, or does not take the value.
    #[error("kafka.properties: {property}: {message}")]
    Property {
        /// The property.
        property: String,
        /// What librdkafka says.
        message: String,
    },
    /// The property would break what the aggregator promises.
    #[error("kafka.properties: {property}: {reason} (allowed: {allowed})")]
    Protected {
        /// The property.
        property: String,
        /// Why it is not passed on.
        reason: &'static str,
        /// What may stand there.
        allowed: &'static str,
    },
    /// The properties contradict each other, or a file that they name cannot be used.
    #[error("kafka: {0}")]
    Conflict(String),
}

/// How our clients call themselves.
pub(super) const CLIENT: &str = "flowvitals-aggregator";

/// Ours for every client, before the operator's.
const COMMON: [(&str, &str); 4] = [
    // A broker that comes back is found within two seconds rather than ten.
    ("reconnect.backoff.max.ms", "2000"),
    ("socket.keepalive.enable", "true"),
    // A topic that the operator forgot must not appear with the broker's own partition count.
    ("allow.auto.create.topics", "false"),
    ("statistics.interval.ms", "5000"),
];

/// Ours for consumers.
const CONSUMER: [(&str, &str); 11] = [
    ("group.protocol", "classic"),
    // Partitions of one number go to one member, whatever the topic.
    ("partition.assignment.strategy", "range"),
    // A member that died is replaced within eight seconds.
    ("session.timeout.ms", "6000"),
    ("heartbeat.interval.ms", "2000"),
    ("enable.auto.commit", "false"),
    // Where retention took what we wanted to begin with.
    ("auto.offset.reset", "earliest"),
    // What is read ahead, all partitions together: 32 MiB.
    ("queued.max.messages.kbytes", "32768"),
    ("queued.min.messages", "20000"),
    // After a full read-ahead the next fetch is soon: a backlog is read in the time it takes, not in steps of a second.
    ("fetch.queue.backoff.ms", "100"),
    // A topic made later is found within ten seconds, a partition's new leader too.
    ("topic.metadata.refresh.interval.ms", "10000"),
    ("max.poll.interval.ms", "60000"),
];

/// Ours for the producer of dead letters, against the operator's: it may lose, and never grows.
const DEAD_LETTERS: [(&str, &str); 6] = [
    ("enable.idempotence", "false"),
    ("message.timeout.ms", "30000"),
    ("queue.buffering.max.messages", "1000"),
    ("queue.buffering.max.kbytes", "8192"),
    ("linger.ms", "50"),
    ("compression.type", "zstd"),
];

/// Ours for the producer of alerts and states, against the operator's.
const RECORDS: [(&str, &str); 9] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // The table of unconfirmed records is the bound; a new producer could double what this one gave up.
    ("message.timeout.ms", "0"),
    ("queue.buffering.max.messages", "100000"),
    ("queue.buffering.max.kbytes", "65536"),
    ("linger.ms", "0"),
    ("compression.type", "zstd"),
    ("partitioner", "murmur2_random"),
    // A topic that is missing is said so soon.
    ("topic.metadata.propagation.max.ms", "3000"),
];

/// Property, the only value it may have (none: it may not be set), and why.
const PROTECTED: [(&str, Option<&str>, &str); 13] = [
    (
        "group.protocol",
        Some("classic"),
        "members would not take over within eight seconds",
    ),
    (
        "partition.assignment.strategy",
        Some("range"),
        "windows and pulses of a stream would go to different members",
    ),
    (
        "enable.auto.commit",
        Some("false"),
        "an event would count as done before its window is",
    ),
    (
        "auto.commit.enable",
        Some("false"),
        "an event would count as done before its window is",
    ),
    (
        "auto.offset.reset",
        Some("earliest"),
        "events would be passed over unseen",
    ),
    ("group.id", None, "the group is set by kafka.group_prefix"),
    (
        "group.instance.id",
        None,
        "a static member is replaced only after its session timed out",
    ),
    (
        "enable.partition.eof",
        Some("false"),
        "the aggregator reads on at the end",
    ),
    (
        "allow.auto.create.topics",
        Some("false"),
        "a topic would appear with the broker's own partition count",
    ),
    (
        "bootstrap.servers",
        None,
        "brokers are set by kafka.brokers",
    ),
    (
        "metadata.broker.list",
        None,
        "brokers are set by kafka.brokers",
    ),
    (
        "transactional.id",
        None,
        "the aggregator uses no transactions",
    ),
    (
        "dr_msg_cb",
        None,
        "delivery reports are the aggregator's own",
    ),
];

/// librdkafka's second names of properties that we set.
const ALIASES: [(&str, &str); 4] = [
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("compression.codec", "compression.type"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("auto.commit.enable", "enable.auto.commit"),
];

impl Kafka {
    /// From a configuration, when librdkafka has nothing against it.
    ///
    /// # Errors
    /// As [`Self::validate`], with the place of the property.
    pub fn of(config: &Config) -> Result<Self, ConfigError> {
        let settings = Self {
            brokers: config.kafka.brokers.clone(),
            group_prefix: config.kafka.group_prefix.clone(),
            properties: config.kafka.properties.0.clone(),
        };
        let wrong = |error| {
            let (property, message, allowed) = match error {
                SettingsError::Property { property, message } => (Some(property), message, ""),
                SettingsError::Protected {
                    property,
                    reason,
                    allowed,
                } => (Some(property), reason.to_owned(), allowed),
                SettingsError::Conflict(message) => (None, message, ""),
            };
            let places = &config.places.kafka_properties;
            let place = property.as_ref().and_then(|property| places.get(property));
            ConfigError {
                place: config.place_or_file(place),
                option: property.map_or("kafka".to_owned(), |property| {
                    format!("kafka.properties.{property}")
                }),
                message,
                allowed: allowed.to_owned(),
            }
        };
        settings.validate().map_err(wrong)?;
        Ok(settings)
    }

    /// Group of the role that alerts.
    #[must_use]
    pub fn alert_group(&self) -> String {
        format!("{}-alert", self.group_prefix)
    }

    /// Group of the role that stores.
    #[must_use]
    pub fn store_group(&self) -> String {
        format!("{}-store", self.group_prefix)
    }

    /// All that librdkafka has against the settings, without a word to a broker.
    ///
    /// # Errors
    /// The first property that is refused, or what contradicts what.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let (mut consumer, mut producer) = (self.consumer(&self.alert_group())?, self.producer()?);
        // A client connects to its brokers as soon as it is made.
        consumer.remove("bootstrap.servers");
        producer.remove("bootstrap.servers");
        let _consumer: BaseConsumer = consumer.create()?;
        let _producer: BaseProducer = producer.create()?;
        Ok(())
    }

    /// Configuration of a consumer of a group.
    ///
    /// # Errors
    /// If a property is protected, or set under two names.
    pub fn consumer(&self, group: &str) -> Result<ClientConfig, SettingsError> {
        let mut config = self.client(&CONSUMER)?;
        config.set("group.id", group);
        Ok(config)
    }

    /// Configuration of a consumer that reads a compacted topic by itself: no member of the group.
    ///
    /// # Errors
    /// As [`Self::consumer`].
    pub fn tail(&self) -> Result<ClientConfig, SettingsError> {
        let mut config = self.consumer(&self.alert_group())?;
        config.set("enable.partition.eof", "true");
        // Small topics, looked at for what comes next.
        config.set("queued.max.messages.kbytes", "8192");
        config.set("fetch.wait.max.ms", "100");
        Ok(config)
    }

    /// Configuration of a consumer that reads what there is of many partitions, each by itself and in a go: no member of the group.
    ///
    /// # Errors
    /// As [`Self::consumer`].
    pub fn past(&self) -> Result<ClientConfig, SettingsError> {
        let mut config = self.tail()?;
        // Of each partition: it is read ahead while another one's turn comes.
        config.set("queued.max.messages.kbytes", "4096");
        config.set("queued.min.messages", "10000");
        Ok(config)
    }

    /// Configuration of the producer of alerts and states: idempotent, and it never gives a record up by itself.
    ///
    /// # Errors
    /// As [`Self::consumer`].
    pub fn records(&self) -> Result<ClientConfig, SettingsError> {
        let mut config = self.client(&[])?;
        for (property, value) in RECORDS {
            config.set(property, value);
        }
        config.remove("request.required.acks");
        Ok(config)
    }

    /// Configuration of the producer of dead letters.
    ///
    /// # Errors
    /// As [`Self::consumer`].
    pub fn producer(&self) -> Result<ClientConfig, SettingsError> {
        let mut config = self.client(&[])?;
        for (property, value) in DEAD_LETTERS {
            config.set(property, value);
        }
        // Idempotence brings rules for these that need not hold for the operator's other clients.
        config.remove("acks").remove("request.required.acks");
        Ok(config)
    }

    fn client(&self, ours: &[(&str, &str)]) -> Result<ClientConfig, SettingsError> {
        let mut config = ClientConfig::new();
        for (property, value) in COMMON.iter().chain(ours) {
            config.set(*property, *value);
        }
        config.set("bootstrap.servers", self.brokers.join(","));
        config.set("client.id", CLIENT);
        for (property, value) in &self.properties {
            refuse_protected(property, value)?;
            let name = canonical(property);
            if name != property && self.properties.contains_key(name) {
                let message = format!("is another name of {name}, which is set too");
                let property = property.clone();
                return Err(SettingsError::Property { property, message });
            }
            config.set(name, value);
        }
        config.set_log_level(RDKafkaLogLevel::Warning);
        Ok(config)
    }
}

/// The name under which we set a property. librdkafka takes two names of one property in any order, so that ours under the one
/// could win over the operator's under the other.
fn canonical(property: &str) -> &str {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == property);
    alias.map_or(property, |(_, name)| name)
}

fn refuse_protected(property: &str, value: &str) -> Result<(), SettingsError> {
    for (name, only, reason) in PROTECTED {
        if name == property && only != Some(value.trim()) {
            return Err(SettingsError::Protected {
                property: property.to_owned(),
                reason,
                allowed: only.unwrap_or("leave it out"),
            });
        }
    }
    Ok(())
}

impl From<ClientError> for SettingsError {
    fn from(error: ClientError) -> Self {
        match error {
            // The value is left out: it may be a password.
            ClientError::ClientConfig(_, message, property, _) => {
                Self::Property { property, message }
            }
            ClientError::ClientCreation(message) => Self::Conflict(message),
            other => Self::Conflict(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(properties: &[(&str, &str)]) -> Kafka {
        let properties = properties.iter();
        Kafka {
            brokers: vec!["127.0.0.1:1".to_owned()],
            group_prefix: "flowvitals".to_owned(),
            properties: properties
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    #[track_caller]
    fn refused(properties: &[(&str, &str)], expected: &str) {
        match settings(properties).validate() {
            Ok(()) => panic!("{properties:?} must be refused"),
            Err(error) => assert!(error.to_string().contains(expected), "{error}"),
        }
    }

    #[test]
    fn what_would_lose_events_is_refused() {
        refused(&[("enable.auto.commit", "true")], "(allowed: false)");
        refused(&[("auto.commit.enable", "true")], "(allowed: false)");
        refused(&[("auto.offset.reset", "latest")], "(allowed: earliest)");
        refused(&[("group.id", "x")], "kafka.group_prefix");
        refused(&[("group.instance.id", "x")], "static member");
        refused(&[("group.protocol", "consumer")], "(allowed: classic)");
        refused(
            &[("partition.assignment.strategy", "roundrobin")],
            "(allowed: range)",
        );
        refused(&[("bootstrap.servers", "x:1")], "kafka.brokers");
    }

    #[test]
    fn says_which_property_is_wrong() {
        refused(
            &[("no.such.thing", "x")],
            "kafka.properties: no.such.thing: No such configuration property",
        );
        refused(&[("session.timeout.ms", "soon")], "session.timeout.ms");
        refused(
            &[
                ("session.timeout.ms", "20000"),
                ("max.poll.interval.ms", "10000"),
            ],
            "max.poll.interval.ms",
        );
        refused(
            &[
                ("security.protocol", "ssl"),
                ("ssl.ca.location", "/nonexistent/ca.pem"),
            ],
            "ssl.ca.location",
        );
        refused(
            &[("compression.codec", "lz4"), ("compression.type", "zstd")],
            "another name of compression.type",
        );
    }

    #[test]
    fn the_operators_properties_win_where_they_may() {
        settings(&[]).validate().expect("ours are good");
        for (property, value) in [
            ("session.timeout.ms", "10000"),
            ("heartbeat.interval.ms", "1000"),
            ("enable.auto.commit", "false"),
            ("statistics.interval.ms", "1000"),
        ] {
            let settings = settings(&[(property, value)]);
            settings.validate().expect("allowed");
            let config = settings.consumer("g").expect("allowed");
            let native = config.create_native_config().expect("taken");
            assert_eq!(native.get(property).expect("set"), value);
        }
        // Meant for other clients of the operator: no reason to refuse them.
        for (property, value) in [
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("message.timeout.ms", "0"),
            ("linger.ms", "10"),
        ] {
            settings(&[(property, value)]).validate().expect("allowed");
        }
        let config = settings(&[]).consumer("g").expect("good");
        assert_eq!(config.get("group.id"), Some("g"));
        assert_eq!(config.get("session.timeout.ms"), Some("6000"));
    }
}
