//! Real brokers: start, topics and rights as declared, a record in and out, a killed node, a namespace.
//!
//! Needs Java 17 and Maven; without them the tests say why they are skipped, or fail if
//! `FLOWVITALS_REQUIRE_KERNEL=1` says that everything must run.

use std::thread;
use std::time::Duration;

use lab::clock;
use lab::kafka::acl::{Acl, Operation, Pattern};
use lab::kafka::apply::{self, Grants, Line};
use lab::kafka::declaration::Declaration;
use lab::kafka::topics::{self, Outcome};
use lab::kafka::{Access, Cluster, KafkaError, Options, declared_topics};
use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const TOPIC: &str = "flowvitals.window.v1";

fn cluster(nodes: usize) -> Option<Cluster> {
    start(&Options {
        nodes,
        ..Options::default()
    })
}

fn start(options: &Options) -> Option<Cluster> {
    match Cluster::start(options, None) {
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

fn produce(brokers: &str, value: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    let record = BaseRecord::to(TOPIC).key("sport-1").payload(value);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(producer.in_flight_count(), 0);
}

/// All values of the topic, once there are `count` of them.
fn consume(brokers: &str, count: usize) -> Vec<String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("test-{count}"))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[TOPIC]).unwrap();
    let mut values = Vec::new();
    clock::wait_until(Duration::from_secs(60), || {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) {
            let value = message.payload().unwrap_or_default();
            values.push(String::from_utf8_lossy(value).into_owned());
        }
        values.len() >= count
    });
    values
}

#[test]
fn topics_become_what_they_are_declared_to_be() {
    let Some(cluster) = cluster(1) else { return };
    let brokers = cluster.brokers();
    let mut declared = topics::read(&declared_topics()).unwrap();
    fn outcomes(applied: Vec<(String, Outcome)>) -> Vec<Outcome> {
        applied.into_iter().map(|(_, outcome)| outcome).collect()
    }
    // Two at once: each topic is made by one of them, and is as declared for the other.
    let apply = || outcomes(topics::apply(&brokers, &declared).unwrap());
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(apply);
        (apply(), other.join().unwrap())
    });
    for pair in one.into_iter().zip(other) {
        let mut pair = <[_; 2]>::from(pair);
        pair.sort_by_key(|outcome| *outcome != Outcome::Created);
        assert_eq!(pair, [Outcome::Created, Outcome::Unchanged]);
    }
    assert_eq!(apply(), vec![Outcome::Unchanged; declared.len()]);

    declared[0]
        .config
        .insert("retention.ms".into(), "60000".into());
    let changed = outcomes(topics::apply(&brokers, &declared).unwrap());
    assert_eq!(changed[0], Outcome::Changed);
    assert!(changed[1..].iter().all(|o| *o == Outcome::Unchanged));

    declared[0].partitions = 13;
    let refused = topics::apply(&brokers, &declared).unwrap_err().to_string();
    assert!(refused.contains("has 12 partitions"), "{refused}");

    produce(&brokers, "one");
    assert_eq!(consume(&brokers, 1), ["one"]);
    cluster.stop();
}

#[test]
fn a_killed_node_costs_nothing_and_comes_back() {
    let Some(mut cluster) = cluster(3) else {
        return;
    };
    let brokers = cluster.brokers();
    topics::apply(&brokers, &topics::read(&declared_topics()).unwrap()).unwrap();
    produce(&brokers, "one");
    cluster.kill(2);
    produce(&brokers, "two");
    cluster.restart(2, None).unwrap();
    cluster.kill(3);
    produce(&brokers, "three");
    let mut values = consume(&brokers, 3);
    values.sort();
    assert_eq!(values, ["one", "three", "two"]);
}

#[test]
fn a_broker_lives_inside_a_namespace() {
    let namespace = match lab::netns::Namespace::new("broker") {
        Ok(namespace) => namespace,
        Err(error) if std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_some() => {
            panic!("no namespace: {error}")
        }
        Err(error) => {
            println!("skipped: {error}");
            return;
        }
    };
    let cluster = match Cluster::start(&Options::default(), Some(&namespace)) {
        Ok(cluster) => cluster,
        Err(KafkaError::Command(error))
            if std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_none() =>
        {
            println!("skipped: {error}");
            return;
        }
        Err(error) => panic!("no broker: {error}"),
    };
    let brokers = cluster.brokers();
    let declared = topics::read(&declared_topics()).unwrap();
    let inside = namespace.run_in(|| {
        topics::apply(&brokers, &declared).unwrap();
        produce(&brokers, "inside");
        consume(&brokers, 1)
    });
    assert_eq!(inside.unwrap(), ["inside"]);
    let address: std::net::SocketAddr = brokers.parse().unwrap();
    let outside = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1));
    assert!(outside.is_err(), "the broker listens outside its namespace");
}

/// The words about everything that is not as declared.
fn wrong(lines: Vec<Line>) -> Vec<String> {
    let wrong = lines.into_iter().filter(|line| !line.good);
    wrong.map(|line| line.to_string()).collect()
}

#[test]
fn rights_become_what_they_are_declared_to_be() {
    let options = Options {
        users: vec!["flowvitals-sampler".to_owned()],
        ..Options::default()
    };
    let Some(cluster) = start(&options) else {
        return;
    };
    let admin = cluster.access("admin");
    let mut declaration = Declaration::read(&declared_topics()).unwrap();
    let granted = declaration.acls();
    let before = wrong(apply::check(&admin, &declaration, Grants::Give).unwrap());
    assert_eq!(before.len(), declaration.topics.len() + granted.len());
    assert!(
        before.iter().all(|line| line.ends_with("is missing")),
        "{before:?}"
    );

    let apply =
        |declaration: &Declaration, grants| apply::apply(&admin, declaration, grants).unwrap();
    let lines = apply(&declaration, Grants::Give);
    assert!(
        lines.iter().all(|line| line.good && line.what == "created"),
        "{lines:?}"
    );
    let nothing_differs =
        || apply::check(&admin, &declaration, Grants::Give).is_ok_and(|lines| lines.is_empty());
    assert!(
        clock::wait_until(Duration::from_secs(20), nothing_differs),
        "applied, and different"
    );
    let again = apply(&declaration, Grants::Give);
    assert!(
        again
            .iter()
            .all(|line| line.good && line.what == "unchanged"),
        "{again:?}"
    );

    // One too few, one too many, and one of a stranger.
    let wide = Acl {
        operation: Operation::All,
        pattern: Pattern::Prefixed,
        name: "flowvitals.".to_owned(),
        ..granted[0].clone()
    };
    let strange = Acl {
        principal: "User:stranger".to_owned(),
        ..granted[0].clone()
    };
    let changes = [wide.clone(), strange.clone()];
    apply::change_acls(&admin, &changes, &granted[..1]).unwrap();
    let found = || wrong(apply::check(&admin, &declaration, Grants::Give).unwrap());
    let expected = [
        "User:flowvitals-sampler may write topic flowvitals.window.v1: is missing".to_owned(),
        "User:flowvitals-sampler may do everything with topic flowvitals.*: is not declared: too wide".to_owned(),
        "User:stranger may write topic flowvitals.window.v1: is not declared, and nor is who has it".to_owned(),
    ];
    assert!(
        clock::wait_until(Duration::from_secs(20), || found() == expected),
        "{:?}",
        found()
    );
    let left = wrong(apply(&declaration, Grants::Give));
    assert_eq!(left.len(), 2, "{left:?}");
    let left = wrong(apply(&declaration, Grants::GiveAndTake));
    assert_eq!(left.len(), 1, "a stranger's is left to people: {left:?}");
    apply::change_acls(&admin, &[], &[strange]).unwrap();
    assert!(clock::wait_until(Duration::from_secs(20), nothing_differs));

    declaration.topics[0].partitions = 13;
    declaration.topics[1]
        .config
        .insert("retention.ms".into(), "60000".into());
    let found = wrong(apply::check(&admin, &declaration, Grants::Give).unwrap());
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("has 12 partitions, declared are 13"),
        "{found:?}"
    );
    assert!(
        found[1].ends_with("retention.ms is 21600000, declared is 60000"),
        "{found:?}"
    );
    let refused = wrong(apply(&declaration, Grants::Give));
    assert_eq!(refused.len(), 1, "{refused:?}");

    let sampler = cluster.access("flowvitals-sampler");
    let error = apply::check(&sampler, &declaration, Grants::Give).unwrap_err();
    println!("without an administrator's rights: {error}");
    cluster.stop();
}

#[test]
fn an_open_cluster_has_no_rights_to_check() {
    let Some(cluster) = cluster(1) else { return };
    let access = Access::plain(&cluster.brokers());
    let declaration = Declaration::read(&declared_topics()).unwrap();
    let error = apply::apply(&access, &declaration, Grants::Give).unwrap_err();
    assert!(
        error.to_string().contains("everybody may do everything"),
        "{error}"
    );
    let found = wrong(apply::check(&access, &declaration, Grants::Give).unwrap());
    assert_eq!(found.len(), 1, "{found:?}");
    let left = apply::check(&access, &declaration, Grants::Leave).unwrap();
    assert_eq!(left, []);
    cluster.stop();
}
