//! How a client reaches a cluster: brokers, and what else librdkafka must be told.
//!
//! Input: addresses and properties. Output: client configurations. Limits: the values are librdkafka's to judge.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::OwnedMessage;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::KafkaError;
use crate::clock;
use crate::server::file_error;

/// Brokers and properties.
#[derive(Clone, Default)]
pub struct Access {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// Properties of librdkafka.
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for Access {
    // Some of the values are passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties: Vec<_> = self.properties.keys().collect();
        write!(f, "{} {properties:?}", self.brokers)
    }
}

impl Access {
    /// Without anything but the brokers.
    #[must_use]
    pub fn plain(brokers: &str) -> Self {
        Self {
            brokers: brokers.to_owned(),
            properties: BTreeMap::new(),
        }
    }

    /// With the properties of a file, `name=value` in each line; empty lines and those that begin with # are passed over.
    ///
    /// # Errors
    /// If it cannot be read, or a line is none of these.
    pub fn with_file(brokers: &str, path: &Path) -> Result<Self, KafkaError> {
        let text = std::fs::read_to_string(path).map_err(file_error(path))?;
        let mut access = Self::plain(brokers);
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once('=').ok_or_else(|| KafkaError::Property {
                path: path.to_owned(),
                line: number,
            })?;
            let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
            access.properties.insert(name, value);
        }
        Ok(access)
    }

    /// For librdkafka.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        // Connections that fail while a broker starts are expected; errors are handed back anyway.
        config.set("log_level", "0");
        config
    }

    /// All records of some partitions of a topic, to the end that each has while it is read. Errors on the way are printed: the client
    /// goes on by itself.
    ///
    /// # Errors
    /// If there is no client, or the ends do not come `within` that time.
    pub fn records(
        &self,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
        within: Duration,
    ) -> Result<Vec<OwnedMessage>, KafkaError> {
        let failed = |source| KafkaError::Client {
            what: format!("reading {topic} to its end"),
            source,
        };
        let mut config = self.config();
        config
            .set("group.id", "lab")
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().map_err(failed)?;
        let mut assigned = TopicPartitionList::new();
        for partition in partitions {
            assigned
                .add_partition_offset(topic, partition, Offset::Beginning)
                .map_err(failed)?;
        }
        consumer.assign(&assigned).map_err(failed)?;
        let (mut records, mut left, begin) = (Vec::new(), assigned.count(), clock::now());
        while left > 0 {
            if begin.elapsed() >= within {
                let late = RDKafkaErrorCode::OperationTimedOut;
                return Err(failed(ClientError::MessageConsumption(late)));
            }
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => records.push(message.detach()),
                Some(Err(ClientError::PartitionEOF(_))) => left -= 1,
                Some(Err(error)) => println!("{topic}: {error}"),
                None => {}
            }
        }
        Ok(records)
    }

    /// How many brokers the cluster says it has; nothing while it does not answer.
    pub(super) fn broker_count(&self) -> Option<usize> {
        let consumer: BaseConsumer = self.config().create().ok()?;
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(5)).ok()?;
        Some(metadata.brokers().len())
    }

    /// Copies in sync of the partition that has fewest, internal topics too; nothing while the cluster does not answer.
    pub(super) fn fewest_in_sync(&self) -> Option<usize> {
        let consumer: BaseConsumer = self.config().create().ok()?;
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(5)).ok()?;
        let partitions = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions());
        partitions.map(|partition| partition.isr().len()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_properties_is_read_and_its_values_are_not_shown() {
        let path = std::env::temp_dir().join(format!("access-{}", std::process::id()));
        std::fs::write(&path, "# admin\n\nsasl.password = a=b\n").unwrap();
        let access = Access::with_file("x:1", &path).unwrap();
        assert_eq!(access.properties["sasl.password"], "a=b");
        assert_eq!(format!("{access:?}"), r#"x:1 ["sasl.password"]"#);
        std::fs::write(&path, "# admin\nsasl.password\n").unwrap();
        let error = Access::with_file("x:1", &path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(error.ends_with(":2: not name=value"), "{error}");
    }
}
