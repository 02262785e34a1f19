//! Topics of a cluster, made as they are declared and held against the declaration.
//!
//! Applying is idempotent: what is missing is created, a changed setting is set; a different partition count and too few copies
//! are errors. Checking changes nothing. Call it where the brokers can be reached (the right namespace).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;

pub use super::declaration::Topic;

use super::access::Access;
use super::acl_client::{AclClient, TIMEOUT};
use super::declaration::{Copies, Declaration};
use super::{AclError, KafkaError};
use crate::server::file_error;

/// How long the list of topics may lag behind their making.
const SETTLED: Duration = Duration::from_secs(20);

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

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        })
    }
}

/// The topics of a declaration file.
///
/// # Errors
/// As [`Declaration::read`].
pub fn read(path: &Path) -> Result<Vec<Topic>, KafkaError> {
    Declaration::read(path).map(|declaration| declaration.topics)
}

/// Makes the topics of a cluster without passwords as declared; what was done to each.
///
/// # Errors
/// When the cluster cannot be reached, refuses a setting, or has another partition count.
pub fn apply(brokers: &str, topics: &[Topic]) -> Result<Vec<(String, Outcome)>, KafkaError> {
    let admin = Admin::connect(&Access::plain(brokers))?;
    let apply = |topic: &Topic| Ok((topic.name.clone(), admin.apply(topic)?));
    topics.iter().map(apply).collect()
}

/// What a cluster has of a topic.
struct Found {
    partitions: i32,
    /// Of the partition that has fewest.
    copies: i32,
}

/// An administrator's connection.
pub(super) struct Admin {
    client: AdminClient<DefaultClientContext>,
    /// The client's futures need somebody who waits for them.
    runtime: tokio::runtime::Runtime,
    options: AdminOptions,
    brokers: usize,
}

impl Admin {
    pub(super) fn connect(access: &Access) -> Result<Self, KafkaError> {
        let client: AdminClient<_> = access
            .config()
            .create()
            .map_err(failure("cannot connect"))?;
        let metadata = client
            .inner()
            .fetch_metadata(None, TIMEOUT)
            .map_err(failure("cannot list the brokers"))?;
        let brokers = metadata.brokers().len();
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
            brokers,
        })
    }

    pub(super) fn acls(&self) -> AclClient<'_, DefaultClientContext> {
        AclClient::new(self.client.inner())
    }

    /// Brokers that the cluster has, and copies that it keeps by that.
    pub(super) fn size(&self) -> (usize, Copies) {
        (self.brokers, Copies::for_brokers(self.brokers))
    }

    pub(super) fn apply(&self, topic: &Topic) -> Result<Outcome, KafkaError> {
        match self.find(topic)? {
            None if self.create(topic)? => Ok(Outcome::Created),
            // It came between the two: somebody else made it, or a broker whose answer was lost asked the controller twice.
            None => {
                self.settle(std::slice::from_ref(topic));
                let found = self.find(topic)?.ok_or_else(|| KafkaError::Topic {
                    topic: topic.name.clone(),
                    reason: "is there, and no broker lists it".to_owned(),
                })?;
                self.adapt(topic, &found)
            }
            Some(found) => self.adapt(topic, &found),
        }
    }

    /// Gives a topic that is there the declared settings.
    fn adapt(&self, topic: &Topic, found: &Found) -> Result<Outcome, KafkaError> {
        if let Some(reason) = self.unchangeable(topic, found).into_iter().next() {
            let topic = topic.name.clone();
            return Err(KafkaError::Topic { topic, reason });
        }
        if self.other_settings(topic)?.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        self.alter(topic).map(|()| Outcome::Changed)
    }

    /// Everything in which a topic differs from its declaration.
    pub(super) fn differences(&self, topic: &Topic) -> Result<Vec<String>, KafkaError> {
        let Some(found) = self.find(topic)? else {
            return Ok(vec!["is missing".to_owned()]);
        };
        let mut differences = self.unchangeable(topic, &found);
        let settings = self.other_settings(topic)?;
        differences.extend(settings.into_iter().map(|(name, there, wanted)| {
            let there = there.as_deref().unwrap_or("not set");
            format!("{name} is {there}, declared is {wanted}")
        }));
        Ok(differences)
    }

    /// What cannot be changed here: a partition count never can, copies are moved by the cluster's own tools.
    fn unchangeable(&self, topic: &Topic, found: &Found) -> Vec<String> {
        let (wanted, copies) = (topic.partitions, self.size().1.all);
        let mut reasons = Vec::new();
        if found.partitions != wanted {
            reasons.push(format!(
                "has {} partitions, declared are {wanted}; a new count needs a new topic version",
                found.partitions
            ));
        }
        if found.copies < copies {
            reasons.push(format!(
                "has {} copies, {} brokers keep {copies}; kafka-reassign-partitions adds them",
                found.copies, self.brokers
            ));
        }
        reasons
    }

    fn find(&self, topic: &Topic) -> Result<Option<Found>, KafkaError> {
        // All topics, not this one: asking for one by name may create it elsewhere.
        let metadata = self
            .client
            .inner()
            .fetch_metadata(None, TIMEOUT)
            .map_err(failure("cannot list the topics"))?;
        let known = metadata.topics().iter().find(|t| t.name() == topic.name);
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        Ok(known.map(|topic| {
            let copies = topic.partitions().iter().map(|p| p.replicas().len());
            Found {
                partitions: number(topic.partitions().len()),
                copies: number(copies.min().unwrap_or(0)),
            }
        }))
    }

    /// Whether it was made; if not, it is there already.
    fn create(&self, topic: &Topic) -> Result<bool, KafkaError> {
        let replication = TopicReplication::Fixed(self.size().1.all);
        let mut new = NewTopic::new(&topic.name, topic.partitions, replication);
        let settings = topic.settings(self.brokers);
        for (key, value) in &settings {
            new = new.set(key, value);
        }
        let answer = self
            .runtime
            .block_on(self.client.create_topics([&new], &self.options))
            .map_err(failure("cannot create topics"))?;
        let codes = answer.into_iter().filter_map(Result::err);
        let mut codes = codes.map(|(_, code)| code).peekable();
        match codes.peek() {
            Some(RDKafkaErrorCode::TopicAlreadyExists) => Ok(false),
            _ => refusal(topic, codes).map(|()| true),
        }
    }

    /// Name, value there, value wanted of the settings that differ.
    fn other_settings(
        &self,
        topic: &Topic,
    ) -> Result<Vec<(String, Option<String>, String)>, KafkaError> {
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
        let value_of = |key: &str| known.get(key).and_then(|entry| entry.value.clone());
        let wanted: BTreeMap<_, _> = topic.settings(self.brokers);
        let all = wanted.into_iter();
        let all = all.map(|(key, wanted)| (value_of(&key), key, wanted));
        Ok(all
            .filter(|(there, _, wanted)| there.as_ref() != Some(wanted))
            .map(|(there, key, wanted)| (key, there, wanted))
            .collect())
    }

    fn alter(&self, topic: &Topic) -> Result<(), KafkaError> {
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(&topic.name));
        let settings = topic.settings(self.brokers);
        for (key, value) in &settings {
            change = change.set(key, value);
        }
        let answer = self
            .runtime
            .block_on(self.client.alter_configs([&change], &self.options))
            .map_err(failure("cannot alter topics"))?;
        let codes = answer.into_iter().filter_map(Result::err);
        refusal(topic, codes.map(|(_, code)| code))
    }

    /// Waits until the brokers' list of topics holds all of them.
    pub(super) fn settle(&self, topics: &[Topic]) {
        crate::clock::wait_until(SETTLED, || {
            let there = |topic| self.find(topic).is_ok_and(|found| found.is_some());
            topics.iter().all(there)
        });
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

impl From<AclError> for KafkaError {
    fn from(source: AclError) -> Self {
        Self::Acl(source)
    }
}
