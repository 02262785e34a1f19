//! What librdkafka is told.
//!
//! Input: brokers, topics and the operator's own properties. Output: a client configuration that never loses or doubles
//! an event within one producer's life, or an error fit for exit status 78.
//! Limits: properties pass as they are; those that would break the promise are refused, by us or by librdkafka itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::producer::BaseProducer;

use super::credentials;
use crate::sink::record::Kind;

/// Where events of each kind go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Topic of the windows.
    pub window: String,
    /// Topic of the pulses.
    pub pulse: String,
    /// Topic of the heartbeats.
    pub node: String,
}

impl Topics {
    /// Topic of the pulses where nothing else is asked for.
    pub const PULSE: &str = service::topics::PULSE;
    /// Topic of the heartbeats where nothing else is asked for.
    pub const NODE: &str = service::topics::NODE;

    /// The given topic for windows, the usual ones for the rest.
    pub fn with_window(window: impl Into<String>) -> Self {
        Self {
            window: window.into(),
            pulse: Self::PULSE.to_owned(),
            node: Self::NODE.to_owned(),
        }
    }

    /// The topic of a kind.
    pub fn of(&self, kind: Kind) -> &str {
        match kind {
            Kind::Node => &self.node,
            Kind::Window => &self.window,
            Kind::Pulse => &self.pulse,
        }
    }
}

/// Settings of the Kafka sink.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Bootstrap brokers, `host:port`.
    pub brokers: Vec<String>,
    /// Topics.
    pub topics: Topics,
    /// Name of the node, for the client's id.
    pub node: String,
    /// The operator's `[kafka.properties]`.
    pub properties: BTreeMap<String, String>,
    /// The file with `sasl.password`, if it is in one.
    pub password_file: Option<PathBuf>,
    /// How long the sink may take to empty itself when the daemon stops.
    pub flush_timeout: Duration,
}

impl KafkaSettings {
    /// All that librdkafka has against the settings, without a word to a broker.
    pub fn validate(&self) -> Result<(), KafkaError> {
        let mut config = client_config(self)?;
        // A producer connects to its brokers as soon as it is made.
        config.remove("bootstrap.servers");
        let _producer: BaseProducer = config.create()?;
        Ok(())
    }
}

/// Why there is no producer.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// librdkafka knows no such property, or does not take the value.
    #[error("kafka.properties: {property}: {message}")]
    Property {
        /// The property.
        property: String,
        /// What librdkafka says.
        message: String,
    },
    /// The property would break what the sampler promises.
    #[error("kafka.properties: {property}: {reason} (allowed: {allowed})")]
    Protected {
        /// The property.
        property: String,
        /// Why it is not passed on.
        reason: &'static str,
        /// What may stand there.
        allowed: &'static str,
    },
    /// The file with the password cannot be used.
    #[error("kafka.password_file: {path}: {reason}", path = .path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why, without what is in it.
        reason: String,
    },
    /// The properties contradict each other, or a file that they name cannot be used.
    #[error("kafka: {0}")]
    Conflict(String),
}

const PASSWORD: &str = "sasl.password";
/// Messages that librdkafka may hold; above the bound of the events in flight, so that it never refuses one.
const BUFFERED_MESSAGES: &str = "20000";
/// Their bytes, KiB.
const BUFFERED_KIB: &str = "16384";

/// Ours, before the operator's.
const DEFAULTS: [(&str, &str); 11] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // Without end: a message that timed out may or may not be in the log, and sending it again could double it.
    ("message.timeout.ms", "0"),
    // The partitioner of the JVM clients, which join by key with these topics.
    ("partitioner", "murmur2_random"),
    ("compression.type", "zstd"),
    ("linger.ms", "10"),
    ("queue.buffering.max.messages", BUFFERED_MESSAGES),
    ("queue.buffering.max.kbytes", BUFFERED_KIB),
    // A broker that comes back is found within a second (there is half as much again by chance) rather than ten.
    ("reconnect.backoff.max.ms", "500"),
    // A topic that the operator forgot must not appear with the broker's own partition count.
    ("allow.auto.create.topics", "false"),
    ("socket.keepalive.enable", "true"),
];

/// Property, the only value it may have (none: it may not be set), and why.
const PROTECTED: [(&str, Option<&str>, &str); 8] = [
    (
        "enable.idempotence",
        Some("true"),
        "events could be doubled or change their order",
    ),
    (
        "message.timeout.ms",
        Some("0"),
        "an event that timed out may be in the log all the same",
    ),
    (
        "delivery.timeout.ms",
        Some("0"),
        "an event that timed out may be in the log all the same",
    ),
    (
        "partitioner",
        Some("murmur2_random"),
        "a stream's events would go to other partitions than its peers' do",
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
    ("transactional.id", None, "the sampler uses no transactions"),
    ("dr_msg_cb", None, "delivery reports are the sampler's own"),
];

/// librdkafka's configuration for the sampler's producer.
pub fn client_config(settings: &KafkaSettings) -> Result<ClientConfig, KafkaError> {
    let mut config = ClientConfig::new();
    for (property, value) in DEFAULTS {
        config.set(property, value);
    }
    config.set("bootstrap.servers", settings.brokers.join(","));
    config.set("client.id", format!("flowvitals-sampler-{}", settings.node));
    for (property, value) in &settings.properties {
        refuse_protected(property, value)?;
        let name = canonical(property);
        if name != property && settings.properties.contains_key(name) {
            let message = format!("is another name of {name}, which is set too");
            let property = property.clone();
            return Err(KafkaError::Property { property, message });
        }
        config.set(name, value);
    }
    if let Some(path) = &settings.password_file {
        if settings.properties.contains_key(PASSWORD) {
            let message = "is set by kafka.password_file too".to_owned();
            let property = PASSWORD.to_owned();
            return Err(KafkaError::Property { property, message });
        }
        config.set(PASSWORD, credentials::password(path)?);
    }
    config.set_log_level(RDKafkaLogLevel::Warning);
    Ok(config)
}

/// The name under which [`DEFAULTS`] has a property. librdkafka takes two names of one property in any order, so that
/// our value under the one could win over the operator's under the other, and no conflict would be seen.
fn canonical(property: &str) -> &str {
    match property {
        "request.required.acks" => "acks",
        "delivery.timeout.ms" => "message.timeout.ms",
        "compression.codec" => "compression.type",
        "queue.buffering.max.ms" => "linger.ms",
        name => name,
    }
}

fn refuse_protected(property: &str, value: &str) -> Result<(), KafkaError> {
    for (name, only, reason) in PROTECTED {
        if name == property && only != Some(value.trim()) {
            let allowed = only.unwrap_or("leave it out");
            return Err(KafkaError::Protected {
                property: property.to_owned(),
                reason,
                allowed,
            });
        }
    }
    Ok(())
}

impl From<ClientError> for KafkaError {
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
    use std::sync::Arc;

    use super::super::KafkaSink;
    use super::*;
    use crate::sink::Ledger;

    fn settings(properties: &[(&str, &str)]) -> KafkaSettings {
        KafkaSettings {
            brokers: vec!["127.0.0.1:1".to_owned()],
            topics: Topics::with_window("w"),
            node: "edge-07".to_owned(),
            properties: properties
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            password_file: None,
            flush_timeout: Duration::ZERO,
        }
    }

    /// Makes the producer for real: it is librdkafka that knows its properties.
    #[track_caller]
    fn refused(properties: &[(&str, &str)], expected: &str) {
        match KafkaSink::new(settings(properties), Arc::new(Ledger::default())) {
            Ok(_) => panic!("{properties:?} must be refused"),
            Err(error) => assert!(error.to_string().contains(expected), "{error}"),
        }
    }

    #[test]
    fn nothing_breaks_idempotence_silently() {
        refused(
            &[("enable.idempotence", "false")],
            "enable.idempotence: events could be doubled",
        );
        refused(&[("acks", "1")], "acks");
        refused(&[("request.required.acks", "0")], "acks");
        refused(&[("max.in.flight", "6")], "max.in.flight");
        refused(&[("retries", "0")], "retries");
        refused(&[("delivery.timeout.ms", "1000")], "timed out");
        refused(&[("partitioner", "random")], "(allowed: murmur2_random)");
        refused(&[("bootstrap.servers", "x:1")], "kafka.brokers");
        refused(&[("transactional.id", "x")], "(allowed: leave it out)");
    }

    #[test]
    fn says_which_property_is_wrong_but_no_value() {
        refused(
            &[("no.such.thing", "x")],
            "kafka.properties: no.such.thing: No such configuration property",
        );
        refused(&[("linger.ms", "soon")], "linger.ms");
        refused(
            &[
                ("security.protocol", "ssl"),
                ("ssl.ca.location", "/nonexistent/ca.pem"),
            ],
            "ssl.ca.location",
        );
        let error = KafkaError::from(ClientError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "not possible".to_owned(),
            "sasl.password".to_owned(),
            "secret".to_owned(),
        ));
        assert_eq!(
            error.to_string(),
            "kafka.properties: sasl.password: not possible"
        );
    }

    #[test]
    fn the_operators_properties_win_where_they_may() {
        for (property, name, value) in [
            ("compression.codec", "compression.type", "lz4"),
            ("queue.buffering.max.ms", "linger.ms", "20"),
            ("acks", "acks", "-1"),
            ("message.timeout.ms", "message.timeout.ms", "0"),
        ] {
            let settings = settings(&[(property, value)]);
            let config = client_config(&settings).expect("allowed");
            let native = config.create_native_config().expect("librdkafka takes it");
            assert_eq!(native.get(name).expect("set"), value, "{property}");
            KafkaSink::new(settings, Arc::new(Ledger::default())).expect("a producer");
        }
        refused(
            &[("compression.codec", "lz4"), ("compression.type", "zstd")],
            "another name of compression.type",
        );
    }
}
