//! Records and topics that a broker refuses.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use lab::kafka::topics::Topic;
use sampler::sink::{Drained, Event, Record, SinkState};
use sampler_event::StreamWindow;

use super::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_record_goes_to_the_dead_letters_and_a_missing_topic_is_held() {
    let Some(cluster) = cluster().await else {
        return;
    };
    let topic = Topic {
        name: "flowvitals.window.v9".to_owned(),
        key: "stream".to_owned(),
        partitions: 2,
        config: BTreeMap::from([
            (
                "message.timestamp.type".to_owned(),
                "LogAppendTime".to_owned(),
            ),
            ("max.message.bytes".to_owned(), "2000".to_owned()),
        ]),
    };
    let place = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(cluster.broker_list(), 2);
    plan.topic.clone_from(&topic.name);
    // Batches of one: a large batch is not what is to be refused.
    plan.properties
        .insert("batch.num.messages".to_owned(), "1".to_owned());
    let mut node = plan.start(place.path());
    node.edges(10, Duration::from_millis(5)).await;
    until("the word about the topic", || match node.ledger.state() {
        SinkState::Degraded(reason) => reason.contains(&topic.name),
        _ => false,
    })
    .await;
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
    node.outlet.edge(records, now_ms(), None);
    node.edges(10, Duration::from_millis(5)).await;
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
