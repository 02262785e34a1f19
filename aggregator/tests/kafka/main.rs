//! The readers against a real broker: everything arrives, members share and take over, nothing is lost to a dead broker or a slow
//! owner, and what is no event is buried. One test has a Cassandra beside the broker.

mod alerts;
mod backtest;
mod bad_input;
mod cassandra;
mod cluster;
mod daemon;
mod groups;
mod kills;
mod member;
mod nodes;
mod owner;
mod owners;
mod paused;
mod play;
mod produced;
mod rights;
mod store;
mod test_alert;
mod writer;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aggregator::consume::{DEAD_LETTERS_TOPIC, Kafka, State};
use aggregator::input::{Reason, Topic};
use lab::kafka::{Access, Cluster, KafkaError, Options, declared_topics, topics};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::member::{Member, PATIENCE, all_until};
use crate::writer::{Writer, round_of};

/// Partitions of windows, and of pulses.
const PARTITIONS: i32 = 12;
/// Where the process of a member that is killed finds its brokers.
const MEMBER: &str = "FLOWVITALS_TEST_MEMBER_BROKERS";
/// So many tests have brokers at a time: they mostly wait, but what they wait for takes a machine with room.
static TURNS: Semaphore = Semaphore::const_new(2);

struct Broker {
    cluster: Cluster,
    // Given back once the cluster has ended.
    _turn: SemaphorePermit<'static>,
}

/// A broker, or a printed reason why there is none; where everything must be there, its absence is a failure.
fn broker() -> Option<Broker> {
    start_cluster(&Options::default())
}

fn start_cluster(options: &Options) -> Option<Broker> {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let turn = runtime.block_on(TURNS.acquire()).expect("never closed");
    let begin = Instant::now();
    match Cluster::start(options, None) {
        Ok(cluster) => {
            let seconds = begin.elapsed().as_secs_f64();
            println!("{} broker(s) after {seconds:.1} s", options.nodes);
            Some(Broker {
                cluster,
                _turn: turn,
            })
        }
        Err(KafkaError::Command(error))
            if std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_none() =>
        {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("no broker: {error}"),
    }
}

fn declared() -> Vec<topics::Topic> {
    topics::read(&declared_topics()).expect("declaration")
}

fn broker_with_topics() -> Option<(Broker, String)> {
    let broker = broker()?;
    let brokers = broker.cluster.brokers();
    topics::apply(&brokers, &declared()).expect("topics");
    Some((broker, brokers))
}

fn settings(brokers: &str, properties: &[(&str, &str)]) -> Kafka {
    let usual = [("statistics.interval.ms", "500")];
    let properties = usual.iter().chain(properties);
    Kafka {
        brokers: vec![brokers.to_owned()],
        group_prefix: "test".to_owned(),
        properties: properties
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    }
}

fn is_good(member: &Member) -> bool {
    let status = member.status();
    status.streams.state == State::Ok && status.nodes.state == State::Ok
}

fn consumer(brokers: &str, group: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer")
}

#[test]
fn everything_arrives_and_a_killed_broker_costs_nothing() {
    let Some((mut broker, brokers)) = broker_with_topics() else {
        return;
    };
    let writer = Writer::new(&brokers);
    writer.round(20, 0..20);
    writer.flush();
    let mut member = Member::start(&settings(&brokers, &[]));
    let took = member.until("what was written before", |member| {
        member.events.len() == round_of(20, 20)
    });
    println!(
        "{} events {:.1} s after the start",
        member.events.len(),
        took.as_secs_f64()
    );
    for (topic, partitions) in [
        (Topic::Window, PARTITIONS),
        (Topic::Pulse, PARTITIONS),
        (Topic::Node, 3),
    ] {
        assert_eq!(member.numbers_of(topic), (0..partitions).collect());
    }
    member.until("the end of the history", |member| {
        member.caught_up == member.assigned
    });
    member.until("a good state without lag", |member| {
        let streams = member.status().streams;
        let lag = streams.lag.values().sum::<u64>();
        is_good(member) && (streams.brokers_up, streams.lag.len(), lag) == (1, 24, 0)
    });

    let mut slowest = Duration::ZERO;
    for sequence in 20..30 {
        writer.round(1, sequence..sequence + 1);
        let expected = member.events.len() + round_of(1, 1);
        slowest =
            slowest.max(member.until("live events", |member| member.events.len() == expected));
    }
    println!("live events: {:.0} ms at most", slowest.as_secs_f64() * 1e3);
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");

    let committer = member.consume.committer();
    (0..PARTITIONS).for_each(|number| committer.commit(Topic::Window, number, 1));
    // Of another member, and no offset at all: nobody is harmed.
    committer.commit(Topic::Window, 99, 1);
    committer.commit(Topic::Pulse, 0, -5);
    let group = consumer(&brokers, "test-alert");
    member.until("the commits", |_| {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(Topic::Window.name(), 0, PARTITIONS - 1);
        let committed = group.committed_offsets(list, PATIENCE);
        committed.is_ok_and(|list| {
            list.elements()
                .iter()
                .all(|one| one.offset() == Offset::Offset(1))
        })
    });

    let before = member.events.len();
    broker.cluster.kill(1);
    member.until("the word about the broker", |member| {
        matches!(member.status().streams.state, State::Degraded(_))
    });
    println!(
        "while the broker is away: {}",
        member.status().streams.state
    );
    member.until("a broker that is down", |member| {
        let streams = member.status().streams;
        (streams.brokers_up, streams.brokers_down) == (0, 1) && streams.last_error.is_some()
    });
    writer.round(20, 100..110);
    // Longer than a session lasts.
    thread::sleep(Duration::from_secs(8));
    let back = Instant::now();
    broker.cluster.restart(1, None).expect("back");
    println!(
        "the broker's port is open after {:.1} s",
        back.elapsed().as_secs_f64()
    );
    member.until("what was written meanwhile", |member| {
        member.events.len() == before + round_of(20, 10)
    });
    println!(
        "all there {:.1} s after the restart began",
        back.elapsed().as_secs_f64()
    );
    member.until("a good state", is_good);
    assert_eq!(member.status().counts.refused, [0; Reason::COUNT]);
    member.consume.stop();
}

#[test]
fn reading_begins_a_horizon_ago_and_passes_nothing_over() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let writer = Writer::new(&brokers);
    writer.round(20, 0..10);
    writer.flush();
    thread::sleep(Duration::from_secs(3));
    let horizon = Duration::from_secs(2);
    let mut member = Member::start_with(&settings(&brokers, &[]), horizon);
    let mut written = 10;
    // All the while that it finds its place, where nothing is newer than the horizon.
    while !(member.has_share(12) && member.numbers_of(Topic::Node).len() == 3) {
        writer.round(20, written..written + 1);
        written += 1;
        thread::sleep(Duration::from_millis(20));
        member.drain();
    }
    writer.round(20, written..written + 10);
    writer.flush();
    let expected = round_of(20, usize::try_from(written).expect("few"));
    member.until("all but the old ones", |member| {
        member.events.len() >= expected
    });
    assert_eq!(member.events.len(), expected);
    assert!(member.events.iter().all(|(_, _, sequence)| *sequence >= 10));
    member.consume.stop();
}

#[test]
fn members_share_the_partitions_and_take_over() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let writer = Writer::new(&brokers);
    let heartbeats = 10;
    writer.round(40, 0..10);
    writer.flush();
    let whole = round_of(40, heartbeats);
    let settings = settings(&brokers, &[]);
    let mut first = Member::start(&settings);
    first.until("all partitions", |member| member.seen.len() == whole);
    let mut second = Member::start(&settings);
    let took = all_until(&mut [&mut first, &mut second], "a share", |members| {
        members.iter().all(|member| member.has_share(6))
    });
    println!(
        "shared {:.1} s after the second started",
        took.as_secs_f64()
    );
    all_until(
        &mut [&mut first, &mut second],
        "the horizon, read again",
        |members| {
            let seen: usize = members.iter().map(|member| member.seen.len()).sum();
            seen == whole + heartbeats
        },
    );
    for member in [&first, &second] {
        assert_eq!(
            member.numbers_of(Topic::Window),
            member.numbers_of(Topic::Pulse)
        );
        assert_eq!(
            member.numbers_of(Topic::Node).len(),
            3,
            "all nodes are known to all"
        );
    }
    assert!(
        first
            .numbers_of(Topic::Window)
            .is_disjoint(&second.numbers_of(Topic::Window))
    );

    let stopped = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| second.consume.stop());
        first.until("all partitions again", |member| member.has_share(12));
    });
    println!(
        "taken over {:.1} s after a stop",
        stopped.elapsed().as_secs_f64()
    );
    assert!(
        stopped.elapsed() < Duration::from_secs(8),
        "{:?}",
        stopped.elapsed()
    );
    first.until("the horizon, read again", |member| {
        member.seen.len() == whole
    });

    let mut child = Killed(
        Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "is_a_member_until_it_is_killed", "--ignored"])
            .env(MEMBER, &brokers)
            .stdout(Stdio::null())
            .spawn()
            .expect("a process"),
    );
    first.until("a share", |member| member.has_share(6));
    // Let the other one read on: who is killed right at its birth has no session yet.
    let shared = Instant::now();
    first.until("a while", |_| shared.elapsed() > Duration::from_secs(3));
    let killed = Instant::now();
    child.end();
    first.until("all partitions again", |member| member.has_share(12));
    println!(
        "taken over {:.1} s after a kill",
        killed.elapsed().as_secs_f64()
    );
    // The session's 6 s, a heartbeat of ours to hear of it, and the hand-over.
    assert!(
        killed.elapsed() < Duration::from_secs(10),
        "{:?}",
        killed.elapsed()
    );
    first.until("the horizon, read again", |member| {
        member.seen.len() == whole
    });
    first.consume.stop();
}

/// A process that ends with us.
struct Killed(Child);

impl Killed {
    fn end(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
#[ignore = "started by another test, as a process that can be killed"]
fn is_a_member_until_it_is_killed() {
    let Ok(brokers) = std::env::var(MEMBER) else {
        return;
    };
    let mut member = Member::start(&settings(&brokers, &[]));
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        member.drain();
        thread::sleep(Duration::from_millis(5));
    }
}

/// All records of a partition of a topic.
fn log(brokers: &str, topic: &str, partition: i32) -> Vec<OwnedMessage> {
    let records = Access::plain(brokers).records(topic, [partition], PATIENCE);
    records.expect("the topic")
}

fn header(message: &OwnedMessage, name: &str) -> String {
    let headers = message.headers().expect("headers");
    let found = headers.iter().find(|header| header.key == name);
    let value = found.and_then(|header| header.value);
    String::from_utf8(value.unwrap_or_else(|| panic!("no header {name}")).to_vec()).expect("text")
}

#[test]
fn what_is_no_event_is_buried_and_the_rest_goes_on() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let writer = Writer::new(&brokers);
    let schema = Topic::Window.schema();
    let garbage: BTreeMap<&str, (&str, &[u8])> = BTreeMap::from([
        ("undecodable", (schema, &b"garbage"[..])),
        ("empty", (schema, b"")),
        ("schema", ("flowvitals.v2.StreamWindow", b"garbage")),
        ("too_large", (schema, &[0; 20_000])),
    ]);
    writer.round(5, 0..10);
    for (schema, payload) in garbage.values() {
        writer.raw(Topic::Window, Some(3), "sport-1", schema, payload);
    }
    writer.round(5, 10..20);
    writer.flush();
    let mut member = Member::start(&settings(&brokers, &[]));
    member.until("the events around the garbage", |member| {
        member.events.len() == round_of(5, 20)
    });
    member.until("the dead letters", |member| {
        member.status().counts.dead_letters_sent == 4
    });
    let refused = Reason::LABELS
        .into_iter()
        .zip(member.status().counts.refused);
    for (label, count) in refused {
        assert_eq!(count, u64::from(garbage.contains_key(label)), "{label}");
    }
    let letters = log(&brokers, DEAD_LETTERS_TOPIC, 0);
    assert_eq!(letters.len(), 4);
    for letter in &letters {
        let reason = header(letter, "reason");
        let (schema, payload) = garbage[reason.as_str()];
        assert_eq!(letter.payload().unwrap_or_default(), payload, "{reason}");
        for (name, expected) in [
            ("schema", schema),
            ("key", "sport-1"),
            ("topic", Topic::Window.name()),
            ("partition", "3"),
        ] {
            assert_eq!(header(letter, name), expected, "{reason}");
        }
        assert!(
            header(letter, "offset")
                .parse::<i64>()
                .is_ok_and(|offset| offset >= 0)
        );
    }

    // A flood: a hundred a second are kept, all are counted, and events go on.
    for number in 0..3000_u32 {
        writer.raw(
            Topic::Pulse,
            Some(1),
            "sport-1",
            "none",
            &number.to_le_bytes(),
        );
    }
    writer.round(5, 20..30);
    writer.flush();
    member.until("the events after the flood", |member| {
        member.events.len() == round_of(5, 30)
    });
    member.until("the count of the flood", |member| {
        let counts = member.status().counts;
        let fates =
            counts.dead_letters_sent + counts.dead_letters_throttled + counts.dead_letters_failed;
        (counts.refused.iter().sum::<u64>(), fates) == (3004, 3004)
    });
    let counts = member.status().counts;
    println!(
        "of 3000: {} kept, {} only counted",
        counts.dead_letters_sent - 4,
        counts.dead_letters_throttled
    );
    assert!(
        (100..1500).contains(&counts.dead_letters_sent),
        "{counts:?}"
    );
    assert_eq!(counts.dead_letters_failed, 0);
    member.consume.stop();
}

#[test]
fn a_slow_owner_neither_leaves_the_group_nor_loses_anything() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let writer = Writer::new(&brokers);
    // Far more than the channel holds; and who does not poll for 10 s is put out of the group.
    writer.round(40, 0..300);
    writer.flush();
    let settings = settings(&brokers, &[("max.poll.interval.ms", "10000")]);
    let mut member = Member::start(&settings);
    member.until("the first events", |member| member.events.len() > 1000);
    thread::sleep(Duration::from_secs(20));
    assert!(member.status().counts.pauses > 0, "nothing was held up");
    writer.round(40, 300..320);
    writer.flush();
    member.until("everything", |member| {
        member.seen.len() == round_of(40, 320)
    });
    assert_eq!(member.events.len(), round_of(40, 320));
    assert_eq!(member.revocations, 0);
    assert!(is_good(&member), "{:?}", member.status());

    // While the owner sleeps, another member gets its share all the same: the group need not wait.
    writer.round(40, 320..620);
    writer.flush();
    thread::sleep(Duration::from_secs(2));
    let mut second = Member::start(&settings);
    let took = second.until("a share", |member| member.has_share(6));
    println!(
        "shared {:.1} s after the start, while the other owner slept",
        took.as_secs_f64()
    );
    assert!(took < Duration::from_secs(10), "{took:?}");
    all_until(&mut [&mut member, &mut second], "everything", |members| {
        let seen: usize = members.iter().map(|member| member.seen.len()).sum();
        seen == round_of(40, 620) + 620
    });
    second.consume.stop();
    member.consume.stop();
}

#[test]
fn missing_topics_are_named_and_read_when_they_are_there() {
    let Some(broker) = broker() else { return };
    let brokers = broker.cluster.brokers();
    let mut member = Member::start(&settings(&brokers, &[]));
    let names = |state: &State, topic: Topic| matches!(state, State::Degraded(reason) if reason.contains(topic.name()));
    member.until("the words about the topics", |member| {
        let status = member.status();
        names(&status.streams.state, Topic::Window) && names(&status.nodes.state, Topic::Node)
    });
    println!("without the topics: {}", member.status().streams.state);
    let mut topics = declared();
    // The one of dead letters stays away.
    topics.retain(|topic| Topic::of_name(&topic.name).is_some());
    let created = Instant::now();
    topics::apply(&brokers, &topics).expect("topics");
    let writer = Writer::new(&brokers);
    writer.raw(Topic::Pulse, Some(0), "sport-1", "none", b"garbage");
    writer.round(5, 0..10);
    writer.flush();
    member.until("everything", |member| {
        member.events.len() == round_of(5, 10)
    });
    println!(
        "read {:.1} s after the topics were made",
        created.elapsed().as_secs_f64()
    );
    assert!(
        created.elapsed() < Duration::from_secs(20),
        "{:?}",
        created.elapsed()
    );
    member.until("a good state", is_good);
    let counts = member.status().counts;
    assert_eq!(
        (counts.refused.iter().sum::<u64>(), counts.dead_letters_sent),
        (1, 0)
    );
    let stopping = Instant::now();
    member.consume.stop();
    assert!(
        stopping.elapsed() < Duration::from_secs(10),
        "a dead letter holds nobody up"
    );
}
