//! The declared rights against a real authorizer: who is granted something can do its work, and nothing else; who is granted
//! nothing hears why.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aggregator::consume::DEAD_LETTERS_TOPIC;
use aggregator::input::Topic;
use lab::kafka::apply::{self, Grants};
use lab::kafka::declaration::Declaration;
use lab::kafka::{Access, Options, declared_topics};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use sampler::sink::SinkState;
use std::sync::Mutex;

use crate::daemon::Daemon;
use crate::member::PATIENCE;
use crate::nodes::Nodes;
use crate::start_cluster;

const SAMPLER: &str = "flowvitals-sampler";
const AGGREGATOR: &str = "flowvitals-aggregator";
const READER: &str = "flowvitals-reader";
const NOBODY: &str = "nobody";

/// What became of each record, in order.
#[derive(Default)]
struct Reports(Mutex<Vec<Option<Code>>>);

impl ClientContext for Reports {
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let code = result
            .as_ref()
            .err()
            .and_then(|(error, _)| error.rdkafka_error_code());
        self.0.lock().expect("reports").push(code);
    }
}

/// Writes one record as an idempotent producer; what became of it.
fn write(access: &Access, topic: &str) -> Option<Code> {
    write_as(access, topic, "true")
}

fn write_as(access: &Access, topic: &str, idempotent: &str) -> Option<Code> {
    let mut config = access.config();
    config.set("enable.idempotence", idempotent);
    config.set("message.timeout.ms", "20000");
    let producer: BaseProducer<Reports> = config
        .create_with_context(Reports::default())
        .expect("a producer");
    let record: BaseRecord<'_, str, str> = BaseRecord::to(topic).key("k").payload("x");
    if let Err((error, _)) = producer.send(record) {
        return error.rdkafka_error_code();
    }
    // What is refused is reported, not left waiting.
    let _ = producer.flush(PATIENCE);
    let reports = producer.context().0.lock().expect("reports");
    reports.first().copied().unwrap_or(Some(Code::NoError))
}

/// Reads a topic without a group; an error, or none where a record or the end came.
#[track_caller]
fn read(access: &Access, topic: &str) -> Option<Code> {
    let mut config = access.config();
    config
        .set("group.id", "none")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    // Who may not even describe a topic hears of it only when asking.
    let described = consumer
        .fetch_metadata(Some(topic), PATIENCE)
        .expect("an answer");
    if let Some(error) = described.topics()[0].error() {
        return Some(error.into());
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning)
        .expect("a place");
    consumer.assign(&list).expect("assigned");
    // Who is in no group has no right to one, and needs none.
    first(&consumer, &[Code::GroupAuthorizationFailed])
}

/// Joins a group; an error, or none where a record or an end came.
#[track_caller]
fn join(access: &Access, group: &str, topic: &str) -> Option<Code> {
    let mut config = access.config();
    config
        .set("group.id", group)
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    consumer.subscribe(&[topic]).expect("subscribed");
    first(&consumer, &[])
}

#[track_caller]
fn first(consumer: &BaseConsumer, passed_over: &[Code]) -> Option<Code> {
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < PATIENCE, "neither a record nor an error");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(_)) => return None,
            Some(Err(KafkaError::PartitionEOF(_))) => return None,
            Some(Err(error)) => match error.rdkafka_error_code() {
                // Connections come and go while a client finds its broker.
                Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve) => {}
                Some(code) if passed_over.contains(&code) => {}
                code => return code,
            },
        }
    }
}

/// Dead letters that there are, as somebody sees them who may read them.
fn letters(access: &Access) -> i64 {
    let consumer: BaseConsumer = access.config().create().expect("a consumer");
    let marks = consumer.fetch_watermarks(DEAD_LETTERS_TOPIC, 0, PATIENCE);
    marks.map_or(0, |(_, end)| end)
}

/// `[kafka.properties]` of the aggregator.
fn section(access: &Access) -> String {
    let line = |(name, value): (&String, &String)| format!("{name:?} = {value:?}\n");
    let lines: String = access.properties.iter().map(line).collect();
    format!("[kafka.properties]\n{lines}")
}

#[test]
fn who_is_granted_something_can_do_that_and_no_more() {
    let users = [SAMPLER, AGGREGATOR, READER, NOBODY].map(str::to_owned);
    let options = Options {
        users: users.to_vec(),
        ..Options::default()
    };
    let Some(broker) = start_cluster(&options) else {
        return;
    };
    let [admin, sampler, aggregator, reader, nobody] =
        ["admin", SAMPLER, AGGREGATOR, READER, NOBODY].map(|user| broker.cluster.access(user));
    let declaration = Declaration::read(&declared_topics()).expect("declaration");
    apply::apply(&admin, &declaration, Grants::Give).expect("applied");
    let refused = Some(Code::TopicAuthorizationFailed);

    // The sampler's own producer, idempotent, and then by hand what it never does.
    let mut nodes = Nodes::start(&sampler.brokers, &sampler.properties, 1, 20);
    (0..10).for_each(|_| nodes.round());
    let begin = Instant::now();
    while nodes.confirmed() < nodes.written() {
        assert!(begin.elapsed() < PATIENCE, "{:?}", nodes.states());
        std::thread::sleep(Duration::from_millis(10));
    }
    for topic in &declaration.topics {
        let may = Topic::of_name(&topic.name).is_some();
        let expected = if may { None } else { refused };
        assert_eq!(write(&sampler, &topic.name), expected, "{}", topic.name);
        assert_eq!(read(&sampler, &topic.name), refused, "{}", topic.name);
    }
    assert_eq!(
        join(&sampler, "flowvitals-alert", service::topics::WINDOW),
        Some(Code::GroupAuthorizationFailed)
    );

    // The daemon does its work: reads, and buries the three records that are no events.
    let daemon = Daemon::start_with(&aggregator.brokers, &section(&aggregator));
    daemon.wait_for("it answers", || daemon.get("/healthz").is_some());
    daemon.wait_for("all windows are read", || {
        daemon.metric("flowvitals_aggregator_windows_total") == nodes.written() as f64
    });
    daemon.wait_for("the dead letters are sent", || {
        daemon.metric("flowvitals_aggregator_records_refused_total") == 3.0 && letters(&reader) == 3
    });
    assert_eq!(
        read(&aggregator, DEAD_LETTERS_TOPIC),
        refused,
        "it may only write them"
    );
    daemon.stop();
    for topic in [service::topics::ALERT, service::topics::STATE] {
        assert_eq!(write(&aggregator, topic), None, "{topic}");
        assert_eq!(read(&aggregator, topic), None, "{topic}");
    }
    assert_eq!(write(&aggregator, service::topics::WINDOW), refused);
    assert_eq!(
        join(&aggregator, "another", service::topics::WINDOW),
        Some(Code::GroupAuthorizationFailed)
    );
    assert_eq!(
        join(&reader, "flowvitals-reader-7", service::topics::ALERT),
        None
    );
    // Who may write nothing is no idempotent producer either, and would wait for the right to be one.
    let written = write_as(&reader, service::topics::ALERT, "false");
    assert_eq!(written, refused);

    // Somebody with a password and no rights: both programs say so.
    let daemon = Daemon::start_with(&nobody.brokers, &section(&nobody));
    daemon.wait_for("it says why it reads nothing", || {
        let health = daemon.get("/healthz").unwrap_or_default();
        health.contains("authoriz") || health.contains("Authoriz")
    });
    println!(
        "without rights: {}",
        daemon.get("/healthz").expect("an answer").trim()
    );
    daemon.stop();
    let mut wrong = BTreeMap::clone(&nobody.properties);
    let mut others = Nodes::start(&nobody.brokers, &wrong, 1, 1);
    others.round();
    let begin = Instant::now();
    while !others.states()[0].contains("uthoriz") {
        assert!(begin.elapsed() < PATIENCE, "{:?}", others.states());
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("the sampler's producer: {}", others.states()[0]);
    assert_ne!(others.states()[0], SinkState::Ok.to_string());

    // A wrong password.
    wrong.insert("sasl.password".to_owned(), "wrong".to_owned());
    let stranger = Access {
        brokers: nobody.brokers.clone(),
        properties: wrong,
    };
    let daemon = Daemon::start_with(&stranger.brokers, &section(&stranger));
    daemon.wait_for("it says that it is not known", || {
        let health = daemon.get("/healthz").unwrap_or_default();
        health.to_lowercase().contains("authentication")
    });
    println!(
        "with a wrong password: {}",
        daemon.get("/healthz").expect("an answer").trim()
    );
    daemon.stop();
    nodes.stop();
}
