//! What only the brokers and the machine can say about a configuration. Asks, and changes nothing.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use service::brokers::{self, AskError, Cluster};
use service::port::{self, Port};
use service::topics;

use super::store;
use crate::api::Access;
use crate::config::{Config, ConfigError};
use crate::consume::Kafka;
use crate::publish::alertmanager::Settings;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What keeps it from running.
    pub(super) errors: Vec<ConfigError>,
    /// What it would wait for.
    pub(super) warnings: Vec<String>,
    /// The brokers, if they answered.
    pub(super) cluster: Option<Cluster>,
    /// The store answers, and its tables are there.
    pub(super) store_answers: bool,
    /// The HTTP port is held by a daemon of ours.
    pub(super) already_running: bool,
}

/// Asks and looks.
pub(super) fn look(config: &Config) -> Found {
    let mut found = Found::default();
    match config.ready_to_run().and_then(|()| Kafka::of(config)) {
        Ok(_) => ask_brokers(config, &mut found),
        Err(error) => found.errors.push(error),
    }
    if let Err(error) = Settings::of(config) {
        found.errors.push(error);
    }
    store::look(config, &mut found);
    look_at_port(config, &mut found);
    if let Err(error) = Access::of(&config.http) {
        found.errors.push(error.placed(config));
    }
    found
}

/// The topics that are read.
pub(super) const READ: [&str; 3] = [topics::WINDOW, topics::PULSE, topics::NODE];

/// The topics that are written.
pub(super) fn written(config: &Config) -> Vec<&'static str> {
    match config.alerts.is_empty() {
        true => vec![topics::DEAD_LETTERS],
        false => vec![topics::ALERT, topics::STATE, topics::DEAD_LETTERS],
    }
}

fn ask_brokers(config: &Config, found: &mut Found) {
    match brokers::ask(&client_config(config)) {
        Ok(cluster) => {
            for topic in READ.into_iter().chain(written(config)) {
                if cluster.partitions.get(topic).is_none_or(|count| *count == 0) {
                    found.warnings.push(format!(
                        "topic {topic}: not there, or not for this client to see: create it as deploy/kafka declares \
                         it, and allow this client to use it"
                    ));
                }
            }
            found.cluster = Some(cluster);
        }
        Err(AskError::Settings(error)) => found.errors.push(settings_error(config, error)),
        Err(AskError::NoAnswer(reason)) => found.warnings.push(format!(
            "kafka: {}: {reason}: start the broker, or correct kafka.brokers; the aggregator waits until one is there",
            config.kafka.brokers.join(",")
        )),
    }
}

fn client_config(config: &Config) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", config.kafka.brokers.join(","));
    client.set("client.id", "flowvitals-aggregator-check");
    for (property, value) in config.kafka.properties.iter() {
        client.set(property, value);
    }
    client.set_log_level(RDKafkaLogLevel::Warning);
    client
}

/// What librdkafka does not take, and where it stands. The value is left out: it may be a password.
fn settings_error(config: &Config, error: KafkaError) -> ConfigError {
    let (property, message) = match error {
        KafkaError::ClientConfig(_, message, property, _) => (Some(property), message),
        KafkaError::ClientCreation(message) => (None, message),
        other => (None, other.to_string()),
    };
    let place = property
        .as_ref()
        .and_then(|property| config.places.kafka_properties.get(property));
    ConfigError {
        place: config.place_or_file(place),
        option: match property {
            Some(property) => format!("kafka.properties.{property}"),
            None => "kafka".to_owned(),
        },
        message,
        allowed: String::new(),
    }
}

fn look_at_port(config: &Config, found: &mut Found) {
    let listen = config.http.listen;
    match port::look(listen) {
        Port::Free => {}
        Port::Ours => found.already_running = true,
        Port::Refused(error) => found.errors.push(ConfigError {
            place: config.place_or_file(config.places.http_listen.as_ref()),
            option: "http.listen".to_owned(),
            message: format!("{listen} cannot be bound: {error}"),
            allowed: "a free port of this machine".to_owned(),
        }),
    }
}
