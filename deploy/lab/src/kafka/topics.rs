//! The topics as `deploy/kafka/topics.toml` declares them, applied to a cluster and checked.
//!
//! Applying is idempotent: what is missing is created, a changed setting is set, a different
//! partition count is an error. Call it where the brokers can be reached (the right namespace).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use serde::Deserialize;

use super::KafkaError;
use crate::server::file_error;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The declaration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    topic: Vec<Topic>,
}

/// One declared topic.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Its name, version at the end.
    pub name: String,
    /// What its records' keys are, for readers of the file.
    pub key: String,
    /// Never changes.
    pub partitions: i32,
    /// Settings of the broker.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

/// What applying did to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there.
    Created,
    /// It had other settings.
    Changed,
    /// It was as declared.
    Unchanged,
}

/// Reads a declaration file.
///
/// # Errors
/// When it cannot be read or has something unknown in it.
pub fn read(path: &Path) -> Result<Vec<Topic>, KafkaError> {
    let text = std::fs::read_to_string(path).map_err(file_error(path))?;
    let declaration: Declaration =
        toml::from_str(&text).map_err(|source| KafkaError::Declaration {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
    Ok(declaration.topic)
}

/// Makes the cluster's topics as declared; what was done to each.
///
/// # Errors
/// When the cluster cannot be reached, refuses a setting, or has another partition count.
pub fn apply(brokers: &str, topics: &[Topic]) -> Result<Vec<(String, Outcome)>, KafkaError> {
    let admin = Admin::connect(brokers)?;
    topics
        .iter()
        .map(|topic| Ok((topic.name.clone(), admin.apply(topic)?)))
        .collect()
}

/// How many brokers the cluster says it has; nothing while it does not answer.
pub(super) fn broker_count(brokers: &str) -> Option<usize> {
    let consumer: BaseConsumer = client(brokers).create().ok()?;
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(5)).ok()?;
    Some(metadata.brokers().len())
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    // Connections that fail while a broker starts are expected; errors are handed back anyway.
    config.set("log_level", "0");
    config
}

struct Admin {
    client: AdminClient<DefaultClientContext>,
    /// The client's futures need somebody who waits for them.
    runtime: tokio::runtime::Runtime,
    options: AdminOptions,
    replication: i32,
}

impl Admin {
    fn connect(brokers: &str) -> Result<Self, KafkaError> {
        let client: AdminClient<_> = client(brokers)
            .create()
            .map_err(failure("cannot connect"))?;
        let metadata = client
            .inner()
            .fetch_metadata(None, TIMEOUT)
            .map_err(failure("cannot list the brokers"))?;
        let replication = metadata.brokers().len().clamp(1, 3) as i32;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(file_error(Path::new("runtime")))?;
        let options = AdminOptions::new()
            .request_timeout(Some(TIMEOUT))
            .operation_timeout(Some(TIMEOUT));
        Ok(Self {
            client,
            runtime,
            options,
            replication,
        })
    }

    fn apply(&self, topic: &Topic) -> Result<Outcome, KafkaError> {
        match self.partitions(topic)? {
            None => self.create(topic).map(|()| Outcome::Created),
            Some(count) if count != topic.partitions => Err(KafkaError::Topic {
                topic: topic.name.clone(),
                reason: format!(
                    "has {count} partitions, declared are {}; a new count needs a new topic version",
                    topic.partitions
                ),
            }),
            Some(_) if self.is_as_declared(topic)? => Ok(Outcome::Unchanged),
            Some(_) => self.alter(topic).map(|()| Outcome::Changed),
        }
    }

    /// Its partition count, if the topic is there.
    fn partitions(&self, topic: &Topic) -> Result<Option<i32>, KafkaError> {
        // All topics, not this one: asking for one by name may create it elsewhere.
        let metadata = self
            .client
            .inner()
            .fetch_metadata(None, TIMEOUT)
            .map_err(failure("cannot list the topics"))?;
        let known = metadata.topics().iter().find(|t| t.name() == topic.name);
        Ok(known.map(|t| i32::try_from(t.partitions().len()).unwrap_or(i32::MAX)))
    }

    fn create(&self, topic: &Topic) -> Result<(), KafkaError> {
        let replication = TopicReplication::Fixed(self.replication);
        let mut new = NewTopic::new(&topic.name, topic.partitions, replication);
        for (key, value) in &topic.config {
            new = new.set(key, value);
        }
        let answer = self
            .runtime
            .block_on(self.client.create_topics([&new], &self.options))
            .map_err(failure("cannot create topics"))?;
        let codes = answer.into_iter().filter_map(Result::err);
        refusal(topic, codes.map(|(_, code)| code))
    }

    fn is_as_declared(&self, topic: &Topic) -> Result<bool, KafkaError> {
        let resource = ResourceSpecifier::Topic(&topic.name);
        let answer = self
            .runtime
            .block_on(self.client.describe_configs([&resource], &self.options))
            .map_err(failure("cannot describe topics"))?;
        let described = answer
            .into_iter()
            .next()
            .and_then(Result::ok)
            .ok_or_else(|| KafkaError::Topic {
                topic: topic.name.clone(),
                reason: "its settings cannot be read".to_owned(),
            })?;
        let known = described.entry_map();
        let value_of = |key: &str| known.get(key).and_then(|entry| entry.value.as_deref());
        Ok(topic
            .config
            .iter()
            .all(|(key, value)| value_of(key) == Some(value)))
    }

    fn alter(&self, topic: &Topic) -> Result<(), KafkaError> {
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(&topic.name));
        for (key, value) in &topic.config {
            change = change.set(key, value);
        }
        let answer = self
            .runtime
            .block_on(self.client.alter_configs([&change], &self.options))
            .map_err(failure("cannot alter topics"))?;
        let codes = answer.into_iter().filter_map(Result::err);
        refusal(topic, codes.map(|(_, code)| code))
    }
}

/// The first code with which the broker refused, as an error.
fn refusal(
    topic: &Topic,
    mut codes: impl Iterator<Item = RDKafkaErrorCode>,
) -> Result<(), KafkaError> {
    codes.next().map_or(Ok(()), |code| {
        Err(KafkaError::Topic {
            topic: topic.name.clone(),
            reason: code.to_string(),
        })
    })
}

fn failure(what: &str) -> impl FnOnce(rdkafka::error::KafkaError) -> KafkaError {
    let what = what.to_owned();
    move |source| KafkaError::Client { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_declaration_is_what_consumers_count_on() {
        let topics = read(&super::super::declared_topics()).unwrap();
        let named = |name: &str| topics.iter().find(|topic| topic.name == name).unwrap();
        let window = named("flowvitals.window.v1");
        assert_eq!(window.partitions, 12);
        assert_eq!(window.config["retention.ms"], "21600000");
        assert_eq!(
            named("flowvitals.state.v1").partitions,
            window.partitions,
            "state is partitioned as its source"
        );
        for topic in &topics {
            assert_eq!(topic.config["message.timestamp.type"], "LogAppendTime");
        }
    }
}
