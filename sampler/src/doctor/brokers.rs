//! Whether the brokers can be reached, and know the topics.
//!
//! Input: the sink's settings. Output: [`Check`]s. Nothing is sent, nothing created.

use service::brokers::{self, AskError, Cluster};

use super::report::{Check, Essential};
use crate::sink::{KafkaError, KafkaSettings, Kind, client_config};

/// Asks the brokers.
pub fn check(settings: &KafkaSettings) -> Vec<Check> {
    let config = match client_config(settings) {
        Ok(config) => config,
        Err(error) => return vec![refused(&error)],
    };
    match brokers::ask(&config) {
        Ok(cluster) => judge(settings, &cluster),
        Err(AskError::Settings(error)) => vec![refused(&error.into())],
        Err(AskError::NoAnswer(reason)) => {
            let found = format!("{}: {reason}", settings.brokers.join(","));
            let todo = "start the broker, or correct kafka.brokers; the sampler runs without and sends when one is there";
            vec![Check::no("kafka", found, todo, None)]
        }
    }
}

fn refused(error: &KafkaError) -> Check {
    let todo = "correct [kafka] in the configuration";
    let essential = Some(Essential::Configuration);
    Check::no("kafka", error.to_string(), todo, essential)
}

fn judge(settings: &KafkaSettings, cluster: &Cluster) -> Vec<Check> {
    let mut checks = vec![Check::ok(
        "kafka",
        format!("answers; brokers: {}", cluster.brokers.join(", ")),
    )];
    for kind in Kind::ALL {
        let name = settings.topics.of(kind);
        checks.push(match cluster.partitions.get(name) {
            Some(count) if *count > 0 => Check::ok("topic", format!("{name}: {count} partitions")),
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
    use std::time::Duration;

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
            password_file: None,
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
