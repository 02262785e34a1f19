//! `test-alert` of the built program: a real broker, a real Alertmanager and a receiver behind it.

use std::fs;
use std::process::{Command, Output};

use lab::alertmanager::webhook::Webhook;
use lab::alertmanager::{Alertmanager, Options};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::broker_with_topics;
use crate::member::PATIENCE;

const TOPIC: &str = "flowvitals.alert.v1";
const KEY: &str = "FlowvitalsTest|ams1|test";

/// Key and value of all records of the topic.
fn records(brokers: &str) -> Vec<(String, Option<String>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "look")
        .create()
        .expect("a consumer");
    let metadata = consumer
        .fetch_metadata(Some(TOPIC), PATIENCE)
        .expect("metadata");
    let mut list = TopicPartitionList::new();
    let mut left = 0;
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer
            .fetch_watermarks(TOPIC, partition.id(), PATIENCE)
            .expect("watermarks");
        left += high - low;
        list.add_partition_offset(TOPIC, partition.id(), Offset::Beginning)
            .expect("a place");
    }
    consumer.assign(&list).expect("assigned");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (0..left)
        .map(|_| {
            let record = consumer.poll(PATIENCE).expect("in time").expect("a record");
            let key = text(record.key().expect("a key"));
            (key, record.payload().map(text))
        })
        .collect()
}

fn test_alert(config: &std::path::Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flowvitals-aggregator"))
        .args(["test-alert", "--config"])
        .arg(config)
        .output()
        .expect("run")
}

#[test]
fn one_alert_goes_through_every_output_and_ends() {
    let Some((mut broker, brokers)) = broker_with_topics() else {
        return;
    };
    let webhook = Webhook::start().expect("a receiver");
    let options = Options {
        receivers: Some(webhook.url()),
        ..Options::default()
    };
    let started = [Alertmanager::start(&options), Alertmanager::start(&options)];
    let [Ok(first), Ok(mut second)] = started else {
        assert!(
            std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_none(),
            "{started:?}"
        );
        return println!("skipped: {started:?}");
    };
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("aggregator.toml");
    let text = format!(
        "site = 'ams1'\n[kafka]\nbrokers = {:?}\n[alertmanager]\nurls = {:?}\n",
        brokers.split(',').collect::<Vec<_>>(),
        [first.url(), second.url()]
    );
    fs::write(&config, text).expect("written");

    let output = test_alert(&config);
    let out = String::from_utf8_lossy(&output.stdout);
    println!("{out}");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(out.lines().count(), 3, "{out}");
    let came = webhook.wait(PATIENCE, |all| all.len() >= 2);
    assert!(came, "{:?}", webhook.notifications());
    for notification in webhook.notifications() {
        assert_eq!(notification.receiver, "show", "a test pages nobody");
        assert_eq!(notification.labels("alertname"), ["FlowvitalsTest"]);
    }
    let records = records(&brokers);
    assert_eq!(records.len(), 2, "{records:?}");
    assert!(records.iter().all(|(key, _)| key == KEY), "{records:?}");
    assert!(
        records[0]
            .1
            .as_ref()
            .is_some_and(|text| text.contains("\"state\":\"firing\""))
    );
    assert_eq!(records[1].1, None, "it is taken out again");

    second.kill();
    broker.cluster.kill(1);
    let output = test_alert(&config);
    let out = String::from_utf8_lossy(&output.stdout);
    println!("{out}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let failed: Vec<bool> = out.lines().map(|line| line.contains("FAILED")).collect();
    assert_eq!(failed, [true, false, true], "{out}");
}
