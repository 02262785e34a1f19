//! The Kafka sink against a real broker: killed and started again, without a topic, with an event too large.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::kafka::topics::{self, Topic};
use lab::kafka::{Access, Cluster, KafkaError, Options, declared_topics};
use rdkafka::message::{Headers, Message, OwnedMessage, Timestamp};
use sampler::doctor::{Level, Machine, Subject, examine};
use sampler::sink::{
    Capacity, Drained, Event, KafkaSettings, KafkaSink, Ledger, QueueSender, Record, SinkState,
    Topics, queue,
};
use sampler_event::StreamWindow;
use tokio::task::JoinHandle;

/// Longest wait for something that must come; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(120);
const TOPIC: &str = "flowvitals.window.v1";
/// Partitions of the declared topic.
const PARTITIONS: i32 = 12;

/// A broker, or a printed reason why there is none; where everything must be there, its absence is a failure.
fn cluster() -> Option<Cluster> {
    match Cluster::start(&Options::default(), None) {
        Ok(cluster) => Some(cluster),
        Err(KafkaError::Command(error))
            if std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_none() =>
        {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("no broker: {error}"),
    }
}

struct Running {
    ledger: Arc<Ledger>,
    sender: QueueSender,
    sink: JoinHandle<Drained>,
}

fn settings(cluster: &Cluster, topic: &str) -> KafkaSettings {
    KafkaSettings {
        brokers: cluster.broker_list(),
        topics: Topics::with_window(topic),
        node: "edge-07".to_owned(),
        properties: BTreeMap::new(),
        password_file: None,
        flush_timeout: PATIENCE,
    }
}

fn start(settings: KafkaSettings) -> Running {
    let ledger = Arc::new(Ledger::default());
    let (sender, receiver) = queue(Capacity::DEFAULT, Arc::clone(&ledger));
    let sink = KafkaSink::new(settings, Arc::clone(&ledger)).expect("a sink");
    Running {
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

/// Makes topics. The admin client has a runtime of its own, which may not live inside ours.
async fn apply(cluster: &Cluster, declared: Vec<Topic>) {
    let brokers = cluster.brokers();
    let applied = tokio::task::spawn_blocking(move || topics::apply(&brokers, &declared)).await;
    applied.expect("thread").expect("topics");
}

/// A record of the log: partition, key, sequence of the window.
type Logged = (i32, String, u64);

/// All windows of a topic, to the end of every partition; header and timestamp type are checked on the way.
fn log(cluster: &Cluster, topic: &str, partitions: i32) -> Vec<Logged> {
    let access = Access::plain(&cluster.brokers());
    let records = access.records(topic, 0..partitions, PATIENCE);
    records.expect("the topic").iter().map(logged).collect()
}

fn logged(message: &OwnedMessage) -> Logged {
    let header = message.headers().expect("headers").get(0);
    assert_eq!(
        (header.key, header.value),
        ("schema", Some(b"flowvitals.v1.StreamWindow".as_slice()))
    );
    assert!(
        matches!(message.timestamp(), Timestamp::LogAppendTime(_)),
        "{:?}",
        message.timestamp()
    );
    let key = String::from_utf8(message.key().expect("key").to_vec()).expect("text");
    let payload = message.payload().expect("payload");
    let window = <StreamWindow as sampler_event::Message>::decode(payload).expect("window");
    assert_eq!(window.stream, key);
    (message.partition(), key, window.sequence)
}

fn by_stream(logged: &[Logged]) -> HashMap<&str, Vec<u64>> {
    let mut streams: HashMap<&str, Vec<u64>> = HashMap::new();
    for (_, key, sequence) in logged {
        streams.entry(key).or_default().push(*sequence);
    }
    streams
}

/// The partition that a JVM client chooses for a key.
fn java_partition(key: &str, partitions: u32) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let bytes = key.as_bytes();
    let mut hash = 0x9747_b28c ^ u32::try_from(bytes.len()).expect("short");
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("four")).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    for (place, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * place);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    ((hash ^ (hash >> 15)) & 0x7fff_ffff) % partitions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_costs_nothing_and_doubles_nothing() {
    let Some(mut cluster) = cluster() else { return };
    apply(
        &cluster,
        topics::read(&declared_topics()).expect("declaration"),
    )
    .await;
    let subject = Subject {
        rules: Vec::new(),
        kafka: Some(settings(&cluster, TOPIC)),
        spool: None,
    };
    // The broker's own list of topics lags behind their making by a moment.
    until("a broker and three topics, as doctor sees them", || {
        let report = examine(&Machine::this(), Some(&subject), Vec::new());
        let mut kafka = report
            .checks
            .into_iter()
            .filter(|check| matches!(check.name.as_str(), "kafka" | "topic"));
        (0..4).all(|_| kafka.next().is_some_and(|check| check.level == Level::Ok))
    })
    .await;

    let streams: Vec<String> = (0..20).map(|number| format!("stream-{number}")).collect();
    let push = |running: &Running, from: u64, to: u64| {
        for sequence in from..to {
            streams
                .iter()
                .for_each(|stream| running.sender.push(window(stream, sequence)));
        }
    };
    let running = start(settings(&cluster, TOPIC));
    push(&running, 0, 100);
    until("a first delivery", || running.ledger.totals().delivered > 0).await;
    cluster.kill(1);
    push(&running, 100, 200);
    until("the word about the broker", || {
        matches!(running.ledger.state(), SinkState::Degraded(_))
    })
    .await;
    println!("while the broker is away: {}", running.ledger.state());
    let back = Instant::now();
    cluster.restart(1, None).expect("back");
    push(&running, 200, 300);
    until("delivery of all", || {
        running.ledger.totals().delivered == 6000
    })
    .await;
    println!(
        "all 6000 delivered {:.1} s after the restart began",
        back.elapsed().as_secs_f64()
    );
    until("a good state", || running.ledger.state() == SinkState::Ok).await;
    drop(running.sender);
    assert_eq!(running.sink.await.expect("sink"), Drained::default());
    let totals = running.ledger.totals();
    assert_eq!(
        (
            totals.produced,
            totals.dropped,
            totals.dead_letter,
            totals.waiting
        ),
        (6000, 0, 0, 0)
    );

    let logged = log(&cluster, TOPIC, PARTITIONS);
    let found = by_stream(&logged);
    assert_eq!(found.len(), 20);
    let expected: Vec<u64> = (0..300).collect();
    for (stream, sequences) in found {
        assert_eq!(sequences, expected, "{stream}: once each, in order");
    }
    for (partition, key, _) in &logged {
        assert_eq!(*partition, java_partition(key, 12) as i32, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_holds_and_a_large_event_is_given_up() {
    let Some(cluster) = cluster() else { return };
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
    let running = start(settings(&cluster, &topic.name));
    (0..10).for_each(|sequence| running.sender.push(window("sport", sequence)));
    until("the word about the topic", || {
        match running.ledger.state() {
            SinkState::Degraded(reason) => reason.contains(&topic.name),
            _ => false,
        }
    })
    .await;
    println!("without the topic: {}", running.ledger.state());
    let created = Instant::now();
    apply(&cluster, vec![topic.clone()]).await;
    until("delivery after the topic came", || {
        running.ledger.totals().delivered == 10
    })
    .await;
    println!(
        "delivered {:.1} s after the topic was made",
        created.elapsed().as_secs_f64()
    );
    // Random bytes, which do not compress: the broker, not the client, finds them too large.
    let noise = (0..600_i64)
        .map(|step| step.wrapping_mul(0x1e37_79b9_7f4a_7c15))
        .collect();
    let large = StreamWindow {
        stream: "sport".into(),
        sequence: 10,
        rtt_counts: noise,
        ..Default::default()
    };
    running
        .sender
        .push(Record::of(&Event::Window(Box::new(large))));
    until("the dead letter", || {
        running.ledger.loss("sport").dead_letter == 1
    })
    .await;
    running.sender.push(window("sport", 11));
    drop(running.sender);
    assert_eq!(running.sink.await.expect("sink"), Drained::default());
    let logged = log(&cluster, &topic.name, topic.partitions);
    let expected: Vec<u64> = (0..10).chain([11]).collect();
    assert_eq!(by_stream(&logged)["sport"], expected);
}
