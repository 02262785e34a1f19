//! What a cluster is to be, as `deploy/kafka/cluster.toml` declares it: topics, and who may do what. Pure but for the reading.
//!
//! Input: the file. Output: [`Declaration`], and the ACLs that it comes to. Limits: a topic may be written and read, a group
//! be read; everything else is for the cluster's administrators.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::KafkaError;
use super::acl::{Acl, Operation, Pattern, Resource};
use crate::server::file_error;

/// The declaration file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// Topics.
    #[serde(rename = "topic")]
    pub topics: Vec<Topic>,
    /// Who may do what.
    #[serde(default, rename = "principal")]
    pub principals: Vec<Principal>,
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

/// Somebody, and all that they may do.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// As Kafka knows them: `User:` and a name.
    pub name: String,
    /// Topics that they may read.
    #[serde(default)]
    pub read: Vec<String>,
    /// Topics that they may write.
    #[serde(default)]
    pub write: Vec<String>,
    /// Consumer groups that they may be members of; with `*` at the end, all that begin so.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// How many copies there are of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// Copies.
    pub all: i32,
    /// Copies that must have a write before it is confirmed.
    pub in_sync: i32,
}

impl Copies {
    /// What a cluster of so many brokers can keep. Up to four brokers one may be away; with five or more two may, and a
    /// confirmed write is on three.
    #[must_use]
    pub fn for_brokers(brokers: usize) -> Self {
        let (all, in_sync) = match brokers {
            0 | 1 => (1, 1),
            2 => (2, 1),
            3 | 4 => (3, 2),
            _ => (5, 3),
        };
        Self { all, in_sync }
    }
}

impl Declaration {
    /// Reads a declaration file.
    ///
    /// # Errors
    /// When it cannot be read, has something unknown in it, or grants what it does not declare.
    pub fn read(path: &Path) -> Result<Self, KafkaError> {
        let text = std::fs::read_to_string(path).map_err(file_error(path))?;
        let declaration: Self =
            toml::from_str(&text).map_err(|source| KafkaError::Declaration {
                path: path.to_owned(),
                source: Box::new(source),
            })?;
        for principal in &declaration.principals {
            let mut named = principal.read.iter().chain(&principal.write);
            if let Some(unknown) = named.find(|name| !declaration.has_topic(name)) {
                return Err(KafkaError::Topic {
                    topic: unknown.clone(),
                    reason: format!("is granted to {} and not declared", principal.name),
                });
            }
        }
        Ok(declaration)
    }

    pub(super) fn has_topic(&self, name: &str) -> bool {
        self.topics.iter().any(|topic| topic.name == name)
    }

    /// Everything that is granted.
    #[must_use]
    pub fn acls(&self) -> Vec<Acl> {
        self.principals.iter().flat_map(Principal::acls).collect()
    }
}

impl Principal {
    fn acls(&self) -> Vec<Acl> {
        let on = |resource, pattern, name: &str, operation| Acl {
            resource,
            pattern,
            name: name.to_owned(),
            principal: self.name.clone(),
            host: "*".to_owned(),
            operation,
            allow: true,
        };
        let topic =
            |operation| move |name: &String| on(Resource::Topic, Pattern::Literal, name, operation);
        let group = |name: &String| match name.strip_suffix('*') {
            Some(prefix) => on(Resource::Group, Pattern::Prefixed, prefix, Operation::Read),
            None => on(Resource::Group, Pattern::Literal, name, Operation::Read),
        };
        let read = self.read.iter().map(topic(Operation::Read));
        let write = self.write.iter().map(topic(Operation::Write));
        read.chain(write)
            .chain(self.groups.iter().map(group))
            .collect()
    }
}

impl Topic {
    /// Its settings in a cluster of so many brokers.
    #[must_use]
    pub fn settings(&self, brokers: usize) -> BTreeMap<String, String> {
        let in_sync = Copies::for_brokers(brokers).in_sync.to_string();
        let mut settings = self.config.clone();
        settings
            .entry("min.insync.replicas".to_owned())
            .or_insert(in_sync);
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::declared_topics;

    fn shipped() -> Declaration {
        Declaration::read(&declared_topics()).unwrap()
    }

    #[test]
    fn the_shipped_declaration_is_what_consumers_count_on() {
        let topics = shipped().topics;
        let named = |name: &str| topics.iter().find(|topic| topic.name == name).unwrap();
        let window = named("flowvitals.window.v1");
        assert_eq!(window.partitions, 12);
        assert_eq!(window.config["retention.ms"], "21600000");
        assert_eq!(
            named("flowvitals.pulse.v1").partitions,
            window.partitions,
            "windows and pulses of a stream go to one member"
        );
        assert_eq!(
            named("flowvitals.state.v1").partitions,
            window.partitions,
            "state is partitioned as its source"
        );
        for topic in &topics {
            assert_eq!(topic.config["message.timestamp.type"], "LogAppendTime");
        }
    }

    #[test]
    fn a_sampler_may_write_three_topics_and_nothing_else() {
        let acls = shipped().acls();
        let sampler = "User:flowvitals-sampler";
        let granted: Vec<_> = acls.iter().filter(|acl| acl.principal == sampler).collect();
        let names: Vec<_> = granted.iter().map(|acl| acl.name.as_str()).collect();
        assert_eq!(
            names,
            ["window", "pulse", "node"].map(|kind| format!("flowvitals.{kind}.v1"))
        );
        for acl in granted {
            assert_eq!(
                (acl.resource, acl.pattern, acl.operation),
                (Resource::Topic, Pattern::Literal, Operation::Write)
            );
        }
    }

    #[test]
    fn a_star_at_the_end_of_a_group_is_a_prefix() {
        let acls = shipped().acls();
        let groups = acls.iter().filter(|acl| acl.resource == Resource::Group);
        let prefixed: Vec<_> = groups
            .filter(|acl| acl.pattern == Pattern::Prefixed)
            .map(|acl| acl.name.as_str())
            .collect();
        assert_eq!(prefixed, ["flowvitals-reader-"]);
    }

    #[test]
    fn a_majority_of_the_copies_has_what_was_confirmed() {
        let copies = |brokers| {
            let copies = Copies::for_brokers(brokers);
            (copies.all, copies.in_sync)
        };
        assert_eq!([1, 3, 5].map(copies), [(1, 1), (3, 2), (5, 3)]);
        let topic = &shipped().topics[0];
        assert_eq!(topic.settings(5)["min.insync.replicas"], "3");
    }

    #[test]
    fn what_is_not_declared_cannot_be_granted() {
        let folder = std::env::temp_dir().join(format!("declaration-{}", std::process::id()));
        let text = "topic = []\n[[principal]]\nname = \"User:x\"\nread = [\"y\"]\n";
        std::fs::write(&folder, text).unwrap();
        let error = Declaration::read(&folder).unwrap_err().to_string();
        std::fs::remove_file(&folder).unwrap();
        assert_eq!(error, "topic y: is granted to User:x and not declared");
    }
}
