//! The Kafka sink against librdkafka's mock brokers, which can be told to fail in every way that the error classes know.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use sampler::sink::{
    Capacity, Drained, Event, KafkaSettings, KafkaSink, Ledger, QueueSender, Record, SinkState,
    Topics, queue,
};
use sampler_event::{NodeHeartbeat, StreamPulse, StreamWindow};
use tokio::task::JoinHandle;

/// Longest wait for something that must come; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(60);
const PRODUCE: RDKafkaApiKey = RDKafkaApiKey::Produce;

type Cluster = MockCluster<'static, DefaultProducerContext>;

struct Bench {
    cluster: Cluster,
    ledger: Arc<Ledger>,
    sender: QueueSender,
    sink: JoinHandle<Drained>,
}

fn bench(flush_timeout: Duration, properties: &[(&str, &str)]) -> Bench {
    let cluster = MockCluster::new(1).expect("mock cluster");
    for topic in ["flowvitals.window.v1", Topics::NODE, Topics::PULSE] {
        cluster.create_topic(topic, 4, 1).expect("topic");
    }
    let settings = KafkaSettings {
        brokers: vec![cluster.bootstrap_servers()],
        topics: Topics::with_window("flowvitals.window.v1"),
        node: "edge-07".to_owned(),
        properties: properties
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect::<BTreeMap<_, _>>(),
        password_file: None,
        flush_timeout,
    };
    let ledger = Arc::new(Ledger::default());
    let (sender, receiver) = queue(Capacity::DEFAULT, Arc::clone(&ledger));
    let sink = KafkaSink::new(settings, Arc::clone(&ledger)).expect("a sink");
    Bench {
        cluster,
        ledger,
        sender,
        sink: tokio::spawn(sink.run(receiver)),
    }
}

fn window(stream: &str, sequence: u64) -> Record {
    Record::of(&Event::Window(Box::new(StreamWindow {
        stream: stream.to_owned(),
        sequence,
        ..Default::default()
    })))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything in a topic: key, schema, payload.
fn consume(cluster: &Cluster, topic: &str, count: usize) -> Vec<(String, String, Vec<u8>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "test")
        .create()
        .expect("consumer");
    // Assigned, not subscribed: no group has to come together first.
    let mut partitions = TopicPartitionList::new();
    for partition in 0..4 {
        partitions
            .add_partition_offset(topic, partition, Offset::Beginning)
            .expect("partition");
    }
    consumer.assign(&partitions).expect("assigned");
    let (mut records, start) = (Vec::new(), Instant::now());
    while records.len() < count && start.elapsed() < PATIENCE {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let header = message.headers().expect("headers").get(0);
        assert_eq!(header.key, "schema");
        let text =
            |bytes: Option<&[u8]>| String::from_utf8(bytes.expect("bytes").to_vec()).expect("text");
        records.push((
            text(message.key()),
            text(header.value),
            message.payload().expect("payload").to_vec(),
        ));
    }
    assert_eq!(records.len(), count);
    records
}

/// The sequences of the windows in the log, by stream.
fn sequences(cluster: &Cluster, count: usize) -> HashMap<String, Vec<u64>> {
    let mut by_stream: HashMap<String, Vec<u64>> = HashMap::new();
    for (key, schema, payload) in consume(cluster, "flowvitals.window.v1", count) {
        assert_eq!(schema, "flowvitals.v1.StreamWindow");
        let window =
            <StreamWindow as sampler_event::Message>::decode(payload.as_slice()).expect("a window");
        assert_eq!(window.stream, key);
        by_stream.entry(key).or_default().push(window.sequence);
    }
    by_stream
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_arrives_once_in_order_under_its_key() {
    let bench = bench(PATIENCE, &[]);
    for sequence in 0..200 {
        for stream in ["sport", "news"] {
            bench.sender.push(window(stream, sequence));
        }
    }
    bench.sender.push(Record::of(&Event::Pulse(StreamPulse {
        stream: "sport".into(),
        ..Default::default()
    })));
    bench
        .sender
        .push(Record::of(&Event::Node(Box::new(NodeHeartbeat {
            node: "edge-07".into(),
            ..Default::default()
        }))));
    drop(bench.sender);
    assert_eq!(bench.sink.await.expect("sink"), Drained::default());
    let totals = bench.ledger.totals();
    assert_eq!(
        (
            totals.produced,
            totals.delivered,
            totals.waiting,
            totals.queued_bytes
        ),
        (402, 402, 0, 0)
    );
    assert_eq!(bench.ledger.delivery().count(), 402);
    let found = sequences(&bench.cluster, 400);
    let expected: Vec<u64> = (0..200).collect();
    assert_eq!(
        found,
        HashMap::from([
            ("sport".to_owned(), expected.clone()),
            ("news".to_owned(), expected)
        ])
    );
    let (key, schema, _) = consume(&bench.cluster, Topics::NODE, 1).remove(0);
    assert_eq!(
        (key.as_str(), schema.as_str()),
        ("edge-07", "flowvitals.v1.NodeHeartbeat")
    );
    let (key, schema, _) = consume(&bench.cluster, Topics::PULSE, 1).remove(0);
    assert_eq!(
        (key.as_str(), schema.as_str()),
        ("sport", "flowvitals.v1.StreamPulse")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_too_large_is_a_dead_letter_of_its_stream() {
    let bench = bench(PATIENCE, &[("message.max.bytes", "1000")]);
    let large = StreamWindow {
        stream: "big".into(),
        rtt_counts: vec![i64::MAX; 500],
        ..Default::default()
    };
    bench
        .sender
        .push(Record::of(&Event::Window(Box::new(large))));
    bench.sender.push(window("small", 1));
    drop(bench.sender);
    assert_eq!(bench.sink.await.expect("sink"), Drained::default());
    assert_eq!(
        (
            bench.ledger.loss("big").dead_letter,
            bench.ledger.loss("small").dead_letter
        ),
        (1, 0)
    );
    assert_eq!(
        (
            bench.ledger.totals().delivered,
            bench.ledger.totals().dead_letter
        ),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_may_not_be_written_is_held_and_said() {
    let bench = bench(PATIENCE, &[]);
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    bench.cluster.request_errors(PRODUCE, &[denied; 3]);
    for sequence in 0..50 {
        bench.sender.push(window("sport", sequence));
    }
    until("the word about the topic", || match bench.ledger.state() {
        SinkState::Degraded(reason) => {
            reason.contains("flowvitals.window.v1")
                && reason.to_lowercase().contains("authorization")
        }
        _ => false,
    })
    .await;
    until("delivery after the right was given", || {
        bench.ledger.totals().delivered == 50
    })
    .await;
    until("a good state", || bench.ledger.state() == SinkState::Ok).await;
    drop(bench.sender);
    assert_eq!(bench.sink.await.expect("sink"), Drained::default());
    assert_eq!(bench.ledger.totals().dead_letter, 0);
    assert_eq!(
        sequences(&bench.cluster, 50)["sport"],
        (0..50).collect::<Vec<u64>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_producer_is_replaced_and_nothing_is_lost() {
    let bench = bench(PATIENCE, &[("linger.ms", "1")]);
    bench.sender.push(window("sport", 0));
    until("the first delivery", || {
        bench.ledger.totals().delivered == 1
    })
    .await;
    // The broker has forgotten this producer while its events are numbered on: an idempotent producer must give up.
    let forgotten = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
    bench.cluster.request_errors(PRODUCE, &[forgotten; 2]);
    for sequence in 1..100 {
        bench.sender.push(window("sport", sequence));
    }
    until("delivery by the next producer", || {
        bench.ledger.totals().delivered == 100
    })
    .await;
    drop(bench.sender);
    assert_eq!(bench.sink.await.expect("sink"), Drained::default());
    let mut found = sequences(&bench.cluster, 100)
        .remove("sport")
        .expect("windows");
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_is_said_and_found_again() {
    let bench = bench(PATIENCE, &[]);
    bench.sender.push(window("sport", 0));
    until("the first delivery", || {
        bench.ledger.state() == SinkState::Ok
    })
    .await;
    bench.cluster.broker_down(1).expect("down");
    for sequence in 1..20 {
        bench.sender.push(window("sport", sequence));
    }
    until("the word about the broker", || {
        matches!(bench.ledger.state(), SinkState::Degraded(_))
    })
    .await;
    assert_eq!(bench.ledger.totals().waiting, 19);
    bench.cluster.broker_up(1).expect("up");
    until("delivery", || bench.ledger.totals().delivered == 20).await;
    until("a good state", || bench.ledger.state() == SinkState::Ok).await;
    drop(bench.sender);
    assert_eq!(bench.sink.await.expect("sink"), Drained::default());
    assert_eq!(
        sequences(&bench.cluster, 20)["sport"],
        (0..20).collect::<Vec<u64>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_says_what_was_left() {
    let bench = bench(Duration::from_millis(300), &[]);
    bench.cluster.broker_down(1).expect("down");
    for sequence in 0..6000 {
        bench.sender.push(window("sport", sequence));
    }
    drop(bench.sender);
    let left = bench.sink.await.expect("sink");
    assert_eq!(
        left,
        Drained {
            queued: 1000,
            unconfirmed: 5000,
            spooled: 0,
        }
    );
    assert_eq!(bench.ledger.totals().waiting, 6000);
}
