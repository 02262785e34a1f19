//! A broker with our topics, and a site of nodes that write windows to it.

use anyhow::{Result, bail, ensure};
use lab::kafka::{self, Cluster, topics};
use lab::netns::Namespace;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use sampler_event::{Flag, Message, StreamWindow};
use std::time::Duration;

use crate::fixture;

/// Nodes of the site.
pub const NODES: u64 = 20;
/// Streams of each.
pub const STREAMS: u64 = 50;
/// Sampled flows of a stream on a node.
const FLOWS: u32 = 100;
/// Longest wait for brokers.
const PATIENCE: Duration = Duration::from_secs(120);

/// One broker with the declared topics, here.
pub fn broker() -> Result<Cluster> {
    let cluster = Cluster::start(&kafka::Options::default(), None)?;
    declare(&cluster)?;
    Ok(cluster)
}

/// The same inside a namespace.
pub fn broker_in(namespace: &Namespace) -> Result<Cluster> {
    let cluster = Cluster::start(&kafka::Options::default(), Some(namespace))?;
    namespace.run_in(|| declare(&cluster))??;
    Ok(cluster)
}

fn declare(cluster: &Cluster) -> Result<()> {
    let declared = topics::read(&kafka::declared_topics())?;
    topics::apply(&cluster.brokers(), &declared)?;
    Ok(())
}

/// The nodes of a site, written for by one producer.
pub struct Site {
    producer: ThreadedProducer<DefaultProducerContext>,
    /// A window for each stream, the same on all nodes but for its identity.
    windows: Vec<StreamWindow>,
    /// Names of its nodes begin with this.
    nodes: &'static str,
    /// The next sequence of every stream on every node.
    next: u64,
}

impl Site {
    /// Connects, with what the sampler sets.
    pub fn new(brokers: &str) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("partitioner", "murmur2_random")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "0")
            .set("compression.type", "zstd")
            .set("linger.ms", "20")
            .create()?;
        let window = |stream| {
            let mut window = fixture::window(stream, FLOWS, fixture::REGION);
            window.stream = format!("sport-{stream}");
            window.site = "ams1".to_owned();
            window.window_ms = 1_000;
            window
        };
        Ok(Self {
            producer,
            windows: (0..STREAMS).map(window).collect(),
            nodes: "edge",
            next: 0,
        })
    }

    /// The same streams on as many other nodes, which had no broker: what they write is from their spools.
    pub fn returning(brokers: &str) -> Result<Self> {
        let mut site = Self::new(brokers)?;
        site.nodes = "back";
        for window in &mut site.windows {
            window.flags |= Flag::Replayed as u32;
        }
        Ok(site)
    }

    /// Windows that were written.
    pub fn written(&self) -> u64 {
        self.next * NODES * STREAMS
    }

    /// One second of the site: a window of every stream from every node, which began at `start_ms`.
    pub fn second(&mut self, start_ms: u64) -> Result<()> {
        for node in 0..NODES {
            self.node_second(node, start_ms)?;
        }
        self.next += 1;
        Ok(())
    }

    /// The part of a second that one node writes; who writes by nodes says when the second is over.
    pub fn node_second(&mut self, node: u64, start_ms: u64) -> Result<()> {
        for window in &mut self.windows {
            window.node = format!("{}-{node}", self.nodes);
            window.sequence = self.next;
            window.window_start_ms = start_ms;
            let payload = window.encode_to_vec();
            send(&self.producer, &window.stream, &payload)?;
        }
        Ok(())
    }

    /// All nodes have written their part.
    pub fn second_over(&mut self) {
        self.next += 1;
    }

    /// Waits for the brokers.
    pub fn flush(&self) -> Result<()> {
        self.producer.flush(PATIENCE)?;
        ensure!(self.producer.in_flight_count() == 0, "not all was written");
        Ok(())
    }
}

fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    key: &str,
    payload: &[u8],
) -> Result<()> {
    let header = Header {
        key: "schema",
        value: Some("flowvitals.v1.StreamWindow"),
    };
    let mut record = BaseRecord::to("flowvitals.window.v1")
        .key(key)
        .payload(payload)
        .headers(OwnedHeaders::new().insert(header));
    loop {
        record = match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => back,
            Err((error, _)) => bail!("not written: {error}"),
        };
        std::thread::sleep(Duration::from_millis(5));
    }
}
