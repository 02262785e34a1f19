//! The daemon, lossy traffic and a real broker: absent at start, there, killed, back, until a graceful stop.
//!
//! `FLOWVITALS_AWAY_S=600` keeps the broker away for ten minutes.
//! Needs Java and Maven; without them it says so and passes, except where
//! `FLOWVITALS_REQUIRE_KERNEL` is set: there it fails.

use std::{
    collections::BTreeMap,
    iter,
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use lab::{
    clock::unix_ms,
    counters::{TcpCounters, wait_closed},
    environment::setting,
    filter::{Selector, Towards},
    kafka::{
        Access, Cluster, KafkaError, Options as KafkaOptions, declared_topics,
        topics::{self, Topic},
    },
    netns::Namespace,
    network::Options,
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};
use rdkafka::message::{Headers, Message as _, OwnedMessage, Timestamp};
use sampler_event::{Flag, Message, NodeHeartbeat, StreamPulse, StreamWindow};

use crate::harness::{Sampler, http_get, network, turn};
use crate::killed::metric;

/// A broker that starts or comes back, and a producer that finds it.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the broker is away, s.
const AWAY_S: u64 = 8;
const STREAMS: u16 = 20;
const FIRST_PORT: u16 = 8_200;
/// Topics, and the types in them.
pub const WINDOWS: (&str, &str) = ("flowvitals.window.v1", "flowvitals.v1.StreamWindow");
const PULSES: (&str, &str) = ("flowvitals.pulse.v1", "flowvitals.v1.StreamPulse");
pub const HEARTBEATS: (&str, &str) = ("flowvitals.node.v1", "flowvitals.v1.NodeHeartbeat");

/// The first of three neighbouring ports that are free in the namespace, none of which a connection is given by chance.
pub fn free_port(namespace: &Namespace) -> u16 {
    let is_free =
        |port: &u16| (0..3).all(|after| TcpListener::bind(("127.0.0.1", *port + after)).is_ok());
    let free = || (9_092u16..9_700).step_by(3).find(is_free);
    namespace
        .run_in(free)
        .expect("the namespace")
        .expect("a free port")
}

pub fn start_broker(namespace: &Namespace, first_port: u16) -> Option<Cluster> {
    let options = KafkaOptions {
        first_port: Some(first_port),
        ..KafkaOptions::default()
    };
    match Cluster::start(&options, Some(namespace)) {
        Ok(cluster) => Some(cluster),
        Err(KafkaError::Command(error))
            if std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_none() =>
        {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("no broker: {error}"),
    }
}

pub fn wait_log(sampler: &Sampler, what: &str, done: impl Fn(&str) -> bool) {
    let begin = Instant::now();
    while !done(&sampler.log()) {
        assert!(
            begin.elapsed() < PATIENCE,
            "waited in vain until {what}:\n{}",
            sampler.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Everything in a declared topic, decoded.
pub fn decoded<M: Message + Default>(
    namespace: &Namespace,
    brokers: &str,
    declared: &[Topic],
    name_and_schema: (&str, &str),
    key: impl Fn(&M) -> &str,
) -> Vec<M> {
    let appended = appended(namespace, brokers, declared, name_and_schema, key);
    appended.into_iter().map(|(_, event)| event).collect()
}

/// Everything in a declared topic, decoded, with the Unix time in ms at which the broker took it; its header must name the type and its
/// key must be the event's own.
fn appended<M: Message + Default>(
    namespace: &Namespace,
    brokers: &str,
    declared: &[Topic],
    (name, schema): (&str, &str),
    key: impl Fn(&M) -> &str,
) -> Vec<(u64, M)> {
    let topic = declared.iter().find(|topic| topic.name == name);
    let partitions = 0..topic.expect("a declared topic").partitions;
    let records = namespace
        .run_in(|| Access::plain(brokers).records(name, partitions, PATIENCE))
        .expect("the namespace")
        .expect("the topic");
    let decode = |record: &OwnedMessage| {
        let header = record.headers().expect("headers").get(0);
        assert_eq!(header.key, "schema");
        assert_eq!(header.value, Some(schema.as_bytes()));
        let event = M::decode(record.payload().expect("bytes")).expect("an event");
        assert_eq!(record.key(), Some(key(&event).as_bytes()));
        let Timestamp::LogAppendTime(append_ms) = record.timestamp() else {
            panic!("{:?}", record.timestamp());
        };
        (append_ms as u64, event)
    };
    records.iter().map(decode).collect()
}

/// Once each: the sequences of every stream are 0, 1, 2, …
fn assert_once<'a>(kind: &str, events: impl Iterator<Item = (&'a str, u64)>) {
    let mut streams = BTreeMap::<&str, Vec<u64>>::new();
    for (stream, sequence) in events {
        streams.entry(stream).or_default().push(sequence);
    }
    assert!(!streams.is_empty(), "no {kind}");
    let (count, mut events) = (streams.len(), 0);
    for (stream, mut sequences) in streams {
        sequences.sort_unstable();
        let expected: Vec<u64> = (0..sequences.len() as u64).collect();
        assert_eq!(sequences, expected, "{kind} of {stream}");
        events += sequences.len();
    }
    println!("{events} {kind} of {count}: once each");
}

#[test]
fn every_event_arrives_once_whatever_the_broker_does() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    network
        .set_loss(Towards::Client, &Selector::default(), 0.02)
        .expect("loss");
    let namespace = network.server();
    let ports: Vec<u16> = (FIRST_PORT..FIRST_PORT + STREAMS).collect();
    let address = |port: &u16| SocketAddr::new(network.server_v4(), *port);
    let broker_port = free_port(namespace);
    let streams: String = ports
        .iter()
        .map(|port| {
            format!(
                "[[stream]]\nname = \"stream-{port}\"\nrate = 1.0\npulse_ms = 500\nlocal = [\"{}\"]\n",
                address(port)
            )
        })
        .collect();
    let sampler = Sampler::start(
        namespace,
        // What it costs in a build for tests is not tried here.
        &format!(
            "[limits]\ncpu_percent = 100.0\n[kafka]\nbrokers = [\"127.0.0.1:{broker_port}\"]\n{streams}"
        ),
    );
    let before = TcpCounters::read(namespace).expect("counters");
    let listens: Vec<_> = ports.iter().map(address).map(Listen::new).collect();
    let server = Server::start(namespace, &listens).expect("a server");
    let plan = |port| {
        let long = Plan::new("steady", 3, vec![address(port)]);
        long.asking(1_000_000, 5_000, Duration::from_millis(200))
    };
    let plans: Vec<_> = ports.iter().map(plan).collect();
    let client = Client::start(network.client(), &plans).expect("clients");

    // No broker yet: windows are closed all the same, and it says what it waits for.
    let degraded = |log: &str| log.matches("sink: degraded").count();
    wait_log(&sampler, "it misses the broker", |log| degraded(log) == 1);
    let health = http_get(namespace, "/healthz");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    assert!(health.contains("windows flow; sink: degraded"), "{health}");

    let Some(mut cluster) = start_broker(namespace, broker_port) else {
        return;
    };
    let brokers = cluster.brokers();
    let declared = topics::read(&declared_topics()).expect("declared topics");
    namespace
        .run_in(|| topics::apply(&brokers, &declared))
        .expect("the namespace")
        .expect("topics");
    let ok = |log: &str| log.matches("sink: ok").count();
    wait_log(&sampler, "it produces", |log| ok(log) == 1);
    assert!(http_get(namespace, "/healthz").ends_with("ok\n"));

    cluster.kill(1);
    let away = Instant::now();
    let away_s = setting("FLOWVITALS_AWAY_S", AWAY_S);
    std::thread::sleep(Duration::from_secs(away_s));
    wait_log(&sampler, "it misses the broker again", |log| {
        degraded(log) >= 2
    });
    let health = http_get(namespace, "/healthz");
    assert!(health.contains("windows flow; sink: degraded"), "{health}");
    cluster.restart(1, Some(namespace)).expect("it is back");
    let (back, back_ms) = (Instant::now(), unix_ms());
    wait_log(&sampler, "it produces again", |log| ok(log) >= 2);
    println!(
        "broker away for {:.1} s, all confirmed {:.1} s after it was back",
        (back - away).as_secs_f64(),
        back.elapsed().as_secs_f64()
    );

    sampler.wait_for("the backlog is sent", |_| {
        metric(namespace, "flowvitals_spool_backlog_events") == 0.0
    });

    client.stop().expect("clients");
    let served = server.stop().expect("a server");
    assert!(wait_closed(namespace, &ports, PATIENCE).expect("sockets"));
    let kernel = TcpCounters::read(namespace)
        .expect("counters")
        .since(&before);
    let log = sampler.stop_with_log();
    assert!(log.contains("every event is confirmed"), "{log}");

    let (brokers, declared) = (brokers.as_str(), declared.as_slice());
    let appended_windows = appended(namespace, brokers, declared, WINDOWS, |w: &StreamWindow| {
        &w.stream
    });
    say_lateness(&appended_windows, back_ms);
    let windows: Vec<_> = appended_windows.into_iter().map(|(_, w)| w).collect();
    let pulses = decoded(namespace, brokers, declared, PULSES, |p: &StreamPulse| {
        &p.stream
    });
    let mut heartbeats = decoded(
        namespace,
        brokers,
        declared,
        HEARTBEATS,
        |h: &NodeHeartbeat| &h.node,
    );
    assert_once(
        "windows",
        windows.iter().map(|w| (w.stream.as_str(), w.sequence)),
    );
    assert_once(
        "heartbeats",
        heartbeats.iter().map(|h| ("node", h.sequence)),
    );
    heartbeats.sort_by_key(|heartbeat| heartbeat.sequence);
    let last = heartbeats.last().expect("a heartbeat");
    // Pulses wait in memory alone: an outage that is longer than their queue costs the oldest, and says so.
    if away_s <= AWAY_S {
        assert_eq!(last.events_dropped, 0);
    }
    if last.events_dropped == 0 {
        assert_once(
            "pulses",
            pulses.iter().map(|p| (p.stream.as_str(), p.sequence)),
        );
    }

    // Windowing never paused, least of all while the broker was away.
    for (one, next) in iter::zip(&heartbeats, &heartbeats[1..]) {
        // A window may be late on a loaded machine; one that waited for the broker would be by far.
        let step = next.window_start_ms - one.window_start_ms;
        assert!(
            (1_000..=3_000).contains(&step),
            "{step} ms without a window"
        );
    }
    assert_eq!(last.dead_letter, 0);
    assert!(last.broken_laws.is_empty(), "{:?}", last.broken_laws);
    let rss = |heartbeat: &NodeHeartbeat| heartbeat.rss_bytes >> 20;
    println!(
        "resident memory: {} MiB at the beginning, {} at most; {} pulses dropped",
        rss(&heartbeats[0]),
        heartbeats.iter().map(rss).max().unwrap_or_default(),
        last.events_dropped,
    );
    let sum = |of: fn(&StreamWindow) -> u64| windows.iter().map(of).sum::<u64>();
    assert_eq!(sum(|w| w.flows_seen), served.len() as u64);
    assert_eq!(sum(|w| w.flows_closed), last.flows_closed);
    let (retrans_segs, expected) = (sum(|w| w.retrans_segs), kernel.data_retrans_segs());
    println!("{retrans_segs} segments retransmitted in the windows, {expected} in the kernel");
    // The kernel's has those of the connections to and in the broker too, which is in the same namespace and was killed.
    assert!(retrans_segs > 0 && retrans_segs <= expected);
    let written: u64 = served.iter().map(|flow| flow.bytes_written).sum();
    let acked = sum(|w| w.bytes_acked);
    assert!(acked > 0 && acked <= written, "{acked} of {written}");
}

/// How old live windows were when they arrived after the broker was back, and the first of them.
fn say_lateness(windows: &[(u64, StreamWindow)], back_ms: u64) {
    let live = windows.iter().filter(|(append_ms, window)| {
        *append_ms >= back_ms
            && window.emitted_ms >= back_ms
            && window.flags & Flag::Replayed as u32 == 0
    });
    let late = |(append_ms, window): &(u64, StreamWindow)| append_ms - window.emitted_ms;
    let all: Vec<u64> = live.map(late).collect();
    println!(
        "{} live windows after the broker was back: the latest {} ms after it was made",
        all.len(),
        all.iter().max().copied().unwrap_or_default()
    );
}
