//! Records and topics that a broker refuses.

use std::fs;
use std::time::Duration;

use lab::clock::unix_ms;
use lab::kafka::Options;
use lab::kafka::apply::Grants;
use lab::kafka::topics::Topic;
use sampler::sink::{Drained, Event, Record};
use sampler_event::StreamWindow;

use super::harness::*;

const SAMPLER: &str = "flowvitals-sampler";

/// A topic of our own for windows.
fn topic(config: &[(&str, &str)]) -> Topic {
    let config = config.iter();
    Topic {
        name: "flowvitals.window.v9".to_owned(),
        key: "stream".to_owned(),
        partitions: 2,
        config: config
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_record_goes_to_the_dead_letters_and_a_missing_topic_is_held() {
    let Some(cluster) = cluster(1).await else {
        return;
    };
    let topic = topic(&[
        ("message.timestamp.type", "LogAppendTime"),
        ("max.message.bytes", "2000"),
    ]);
    let place = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(cluster.broker_list(), 2);
    plan.topic.clone_from(&topic.name);
    // Batches of one: a large batch is not what is to be refused.
    plan.properties
        .insert("batch.num.messages".to_owned(), "1".to_owned());
    let mut node = plan.start(place.path());
    node.spooled_edges(10, Duration::from_millis(5)).await;
    until_said(&node, &topic.name).await;
    // Heartbeats have a topic: they are not held up.
    until("heartbeats", || node.ledger.totals().delivered == 10).await;
    assert_eq!(node.spool.status().records, 20, "held, and safe");
    apply(&cluster, vec![topic.clone()]).await;

    // Random bytes, which do not compress: the broker, not the client, finds them too large.
    let noise = (0..600_i64)
        .map(|step| step.wrapping_mul(0x1e37_79b9_7f4a_7c15))
        .collect();
    let large = StreamWindow {
        stream: "poison".into(),
        instance: node.instance,
        rtt_counts: noise,
        ..StreamWindow::default()
    };
    let records = vec![Record::of(&Event::Window(Box::new(large)))];
    node.outlet.edge(records, unix_ms(), None);
    node.spooled_edges(10, Duration::from_millis(5)).await;
    node.all_through().await;
    until("an empty spool", || node.spool.status().records == 0).await;
    assert_eq!(node.ledger.loss("poison").dead_letter, 1);
    let totals = node.ledger.totals();
    assert_eq!((totals.dead_letter, totals.dropped), (1, 0));
    until("a dead letter on the disk", || {
        node.spool.status().dead_letters == 1
    })
    .await;
    assert_eq!(node.stop().await.0, Drained::default());
    let letters = fs::read_to_string(place.path().join("dead-letter.jsonl")).expect("read");
    let letter: serde_json::Value = serde_json::from_str(letters.trim_end()).expect("JSON");
    println!("dead letter: {} of {}", letter["reason"], letter["key"]);
    assert_eq!(letter["key"], "poison");
    let found = once(&arrivals(&cluster, &topic.name, topic.partitions));
    assert_eq!((found.events, found.doubles), (40, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_write_all_is_held_until_it_is_given() {
    let options = Options {
        users: vec![SAMPLER.to_owned()],
        ..Options::default()
    };
    let Some(cluster) = start_cluster(&options) else {
        return;
    };
    declare(&cluster, Grants::Leave).await;
    let place = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(cluster.broker_list(), 3);
    plan.properties = cluster.access(SAMPLER).properties;
    let mut node = plan.start(place.path());
    node.spooled_edges(20, Duration::from_millis(5)).await;
    until_said(&node, "uthoriz").await;
    until("all on the disk", || node.spool.status().records == 80).await;
    let totals = node.ledger.totals();
    assert_eq!(
        (totals.delivered, totals.dropped, totals.dead_letter),
        (0, 0, 0)
    );

    declare(&cluster, Grants::Give).await;
    node.spooled_edges(20, Duration::from_millis(5)).await;
    node.all_through().await;
    until("an empty spool", || node.spool.status().records == 0).await;
    let (left, ledger) = node.stop().await;
    assert_eq!(left, Drained::default());
    assert_eq!(ledger.totals().delivered, 160);
    let found = once(&arrivals(&cluster, TOPIC, 12));
    assert_eq!((found.events, found.doubles), (120, 0));
}

/// A topic that goes by the producer's clock and takes nothing that is older than its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_timestamp_is_a_dead_letter_and_the_rest_flows() {
    let Some(cluster) = cluster(1).await else {
        return;
    };
    let config = |before_max_ms| {
        topic(&[
            ("message.timestamp.type", "CreateTime"),
            ("message.timestamp.before.max.ms", before_max_ms),
        ])
    };
    apply(&cluster, vec![config("0")]).await;
    let place = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(cluster.broker_list(), 2);
    plan.topic = config("0").name;
    // Long enough for every record to be old.
    plan.properties
        .insert("linger.ms".to_owned(), "50".to_owned());
    let mut node = plan.start(place.path());
    node.spooled_edges(10, Duration::from_millis(5)).await;
    until("dead letters", || node.ledger.totals().dead_letter == 20).await;
    node.all_through().await;
    until("dead letters on the disk", || {
        node.spool.status().dead_letters == 20
    })
    .await;
    apply(&cluster, vec![config("3600000")]).await;
    node.spooled_edges(10, Duration::from_millis(5)).await;
    node.all_through().await;
    until("an empty spool", || node.spool.status().records == 0).await;
    let (left, ledger) = node.stop().await;
    assert_eq!(left, Drained::default());
    let totals = ledger.totals();
    assert_eq!((totals.dead_letter, totals.dropped), (20, 0));
    assert_eq!(ledger.loss("stream-0").dead_letter, 10);
    let letters = fs::read_to_string(place.path().join("dead-letter.jsonl")).expect("read");
    assert_eq!(letters.lines().count(), 20);
    let cause = letters.lines().next().expect("a letter");
    println!("{}", &cause[..cause.len().min(120)]);
}
