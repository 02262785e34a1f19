//! A node without a kernel side, a broker, and what arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::clock::unix_ms;
use lab::environment::setting;
use lab::kafka::apply::{self as rights, Grants};
use lab::kafka::declaration::Declaration;
use lab::kafka::topics::{self, Topic};
use lab::kafka::{Cluster, KafkaError, Options, declared_topics};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rdkafka::message::{Message as _, OwnedMessage, Timestamp};
use sampler::laws;
use sampler::sink::{
    Breaker, Capacity, Drained, Event, KafkaSettings, KafkaSink, Ledger, Outlet, Record, SinkState,
    Topics, spooled_queue,
};
use sampler::spool::{Faults, Found, Reference, Spool, SpoolSettings};
use sampler_event::{Flag, Message, NodeHeartbeat, StreamState, StreamWindow};
use tokio::task::JoinHandle;

/// Longest wait for something that must come; far above what it takes.
pub const PATIENCE: Duration = Duration::from_secs(180);
pub const TOPIC: &str = "flowvitals.window.v1";
pub const MIB: u64 = 1 << 20;
/// Length of a window as its events say it.
const WINDOW_MS: u32 = 1000;

/// Whether what is missing is a failure.
pub fn required() -> bool {
    std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_some()
}

/// Random numbers whose seed is said when the test fails.
pub struct Seeded {
    seed: u64,
    pub random: StdRng,
}

impl Seeded {
    pub fn new() -> Self {
        let seed = setting("FLOWVITALS_SEED", rand::random());
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
        }
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("run it again with FLOWVITALS_SEED={}", self.seed);
        }
    }
}

/// A cluster, or a printed reason why there is none.
pub fn start_cluster(options: &Options) -> Option<Cluster> {
    match Cluster::start(options, None) {
        Ok(cluster) => Some(cluster),
        Err(KafkaError::Command(error)) if !required() => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("no broker: {error}"),
    }
}

/// So many brokers with the declared topics.
pub async fn cluster(nodes: usize) -> Option<Cluster> {
    let options = Options {
        nodes,
        ..Options::default()
    };
    let cluster = start_cluster(&options)?;
    let declared = topics::read(&declared_topics()).expect("declaration");
    apply(&cluster, declared).await;
    Some(cluster)
}

/// Makes topics. The admin client has a runtime of its own, which may not live inside ours.
pub async fn apply(cluster: &Cluster, declared: Vec<Topic>) {
    let brokers = cluster.brokers();
    let applied = tokio::task::spawn_blocking(move || topics::apply(&brokers, &declared)).await;
    applied.expect("thread").expect("topics");
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the sink says a word of what is wrong.
pub async fn until_said(node: &Node, word: &str) {
    let start = Instant::now();
    loop {
        let state = node.ledger.state();
        if matches!(&state, SinkState::Degraded(reason) if reason.contains(word)) {
            println!("said: {state}");
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{word}, not {state}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Makes the declared topics as the administrator, with or without the declared rights.
pub async fn declare(cluster: &Cluster, grants: Grants) {
    let admin = cluster.access("admin");
    let applied = tokio::task::spawn_blocking(move || {
        let declaration = Declaration::read(&declared_topics()).expect("declaration");
        rights::apply(&admin, &declaration, grants)
    });
    applied.await.expect("thread").expect("applied");
}

/// How a node is made.
pub struct Plan {
    pub brokers: Vec<String>,
    pub topic: String,
    pub max_bytes: u64,
    pub replay_events_per_s: u32,
    pub resume: bool,
    pub capacity: [Capacity; 3],
    pub faults: Option<Arc<dyn Faults>>,
    pub properties: BTreeMap<String, String>,
    pub password_file: Option<PathBuf>,
    pub streams: usize,
}

impl Plan {
    pub fn new(brokers: Vec<String>, streams: usize) -> Self {
        Self {
            brokers,
            topic: TOPIC.to_owned(),
            max_bytes: 256 * MIB,
            replay_events_per_s: 1000,
            resume: false,
            capacity: Capacity::SPOOLED,
            faults: None,
            properties: BTreeMap::new(),
            password_file: None,
            streams,
        }
    }

    /// Starts a life.
    pub fn start(&self, directory: &Path) -> Node {
        let ledger = Arc::new(Ledger::default());
        let instance = rand::rng().random();
        let settings = SpoolSettings {
            directory: directory.to_path_buf(),
            max_bytes: self.max_bytes,
            fsync: Duration::from_millis(100),
            instance,
            resume: self.resume,
            faults: self.faults.clone(),
        };
        let (spool, found, newest) =
            Spool::start(settings, Arc::clone(&ledger)).expect("the spool opens");
        let (sender, receiver) =
            spooled_queue(self.capacity, Arc::clone(&ledger), Some(spool.clone()));
        let settings = KafkaSettings {
            brokers: self.brokers.clone(),
            topics: Topics::with_window(&self.topic),
            node: "edge-07".to_owned(),
            properties: self.properties.clone(),
            password_file: self.password_file.clone(),
            flush_timeout: PATIENCE,
        };
        let sink = KafkaSink::new(settings, Arc::clone(&ledger))
            .expect("a sink")
            .with_spool(spool.clone(), self.replay_events_per_s);
        let breaker = sink.breaker();
        Node {
            outlet: Outlet::spooled(sender, Arc::clone(&ledger), spool.clone()),
            sink: tokio::spawn(sink.run(receiver)),
            names: (0..self.streams).map(|n| format!("stream-{n}")).collect(),
            ledger,
            spool,
            found,
            newest,
            breaker,
            instance,
            next: 0,
            slowest_push: Duration::ZERO,
        }
    }
}

/// A node: one event per stream and edge.
pub struct Node {
    pub ledger: Arc<Ledger>,
    pub spool: Spool,
    pub found: Found,
    pub newest: Option<Reference>,
    pub breaker: Breaker,
    pub instance: u64,
    /// Edges so far: the next sequence of every stream.
    pub next: u64,
    /// Longest time that the window stage was held up.
    pub slowest_push: Duration,
    pub outlet: Outlet,
    sink: JoinHandle<Drained>,
    names: Vec<String>,
}

impl Node {
    /// Closes a window: `value` gives what a stream counted in it.
    pub fn edge(&mut self, value: impl Fn(usize) -> u64, state: Vec<u8>) {
        let (sequence, start_ms) = (self.next, unix_ms() - u64::from(WINDOW_MS));
        let window = |(n, name): (usize, &String)| {
            Event::Window(Box::new(StreamWindow {
                node: "edge-07".to_owned(),
                site: "ams1".to_owned(),
                stream: name.clone(),
                instance: self.instance,
                sequence,
                window_start_ms: start_ms,
                window_ms: WINDOW_MS,
                emitted_ms: unix_ms(),
                bytes_sent: value(n),
                // As large as a real one.
                rtt_counts: (0..200).map(|step| 1 + step % 60).collect(),
                ..StreamWindow::default()
            }))
        };
        let mut records: Vec<Record> = self
            .names
            .iter()
            .enumerate()
            .map(|named| Record::of(&window(named)))
            .collect();
        self.next += 1;
        let states = self.names.iter().map(|name| StreamState {
            stream: name.clone(),
            next_sequence: self.next,
            ..StreamState::default()
        });
        records.push(Record::of(&Event::Node(Box::new(NodeHeartbeat {
            node: "edge-07".to_owned(),
            instance: self.instance,
            sequence,
            window_start_ms: start_ms,
            window_ms: WINDOW_MS,
            emitted_ms: unix_ms(),
            streams: states.collect(),
            ..NodeHeartbeat::default()
        }))));
        let begin = Instant::now();
        self.outlet
            .edge(records, start_ms + u64::from(WINDOW_MS), Some(state));
        self.slowest_push = self.slowest_push.max(begin.elapsed());
    }

    /// So many edges, so far apart.
    pub async fn edges(&mut self, count: u64, pause: Duration) {
        for _ in 0..count {
            self.edge(|_| 1, Vec::new());
            tokio::time::sleep(pause).await;
        }
    }

    /// The same, each on the disk before the next: time is compressed here, and the way to the disk is short.
    pub async fn spooled_edges(&mut self, count: u64, pause: Duration) {
        for _ in 0..count {
            self.edges(1, pause).await;
            until("the edge on the disk", || self.ledger.totals().at_risk == 0).await;
        }
    }

    /// Waits until nothing waits any more, in memory or on disk.
    pub async fn all_through(&self) {
        let produced = self.ledger.totals().produced;
        until("delivery of all", || {
            let totals = self.ledger.totals();
            let earlier = totals.earlier;
            totals.waiting + totals.spooled + earlier.waiting + earlier.spooled == 0
        })
        .await;
        assert!(produced <= self.ledger.totals().produced);
        self.check_laws();
    }

    /// All laws of the ledger, now.
    pub fn check_laws(&self) {
        for law in laws::of_events(&self.ledger.totals()) {
            assert!(law.holds(), "{law:?}: {:?}", self.ledger.totals());
        }
    }

    /// Ends the life without a word to its sink; the directory is free then.
    pub async fn abandon(self, directory: &Path) {
        self.sink.abort();
        drop((self.outlet, self.spool));
        let lock = File::open(directory.join("lock")).expect("a lock");
        until("a free directory", || lock.try_lock().is_ok()).await;
    }

    /// Ends the life in good order.
    pub async fn stop(self) -> (Drained, Arc<Ledger>) {
        drop(self.outlet);
        let left = self.sink.await.expect("sink");
        self.spool.stop().await;
        (left, self.ledger)
    }
}

/// A window as it arrived.
pub struct Arrival {
    pub window: StreamWindow,
    pub append_ms: u64,
}

impl Arrival {
    pub fn is_replayed(&self) -> bool {
        self.window.flags & Flag::Replayed as u32 != 0
    }
}

/// All windows of a topic, to the end of every partition.
pub fn arrivals(cluster: &Cluster, topic: &str, partitions: i32) -> Vec<Arrival> {
    let access = cluster.access("admin");
    let records = access.records(topic, 0..partitions, PATIENCE);
    let arrival = |message: OwnedMessage| {
        let Timestamp::LogAppendTime(append_ms) = message.timestamp() else {
            panic!("{:?}", message.timestamp());
        };
        let window = StreamWindow::decode(message.payload().expect("payload"));
        Arrival {
            window: window.expect("a window"),
            append_ms: append_ms as u64,
        }
    };
    records
        .expect("the topic")
        .into_iter()
        .map(arrival)
        .collect()
}

/// What arrived, each event once: by life and stream, the sequences; and how many came again.
pub struct Once {
    pub sequences: BTreeMap<(u64, String), BTreeSet<u64>>,
    pub events: u64,
    pub doubles: u64,
    pub bytes_sent: u64,
}

pub fn once(arrivals: &[Arrival]) -> Once {
    let mut once = Once {
        sequences: BTreeMap::new(),
        events: 0,
        doubles: 0,
        bytes_sent: 0,
    };
    for Arrival { window, .. } in arrivals {
        let key = (window.instance, window.stream.clone());
        if once
            .sequences
            .entry(key)
            .or_default()
            .insert(window.sequence)
        {
            once.events += 1;
            once.bytes_sent += window.bytes_sent;
        } else {
            once.doubles += 1;
        }
    }
    once
}

/// Resident memory of this process, MiB.
pub fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        let value = line.strip_prefix("VmRSS:")?;
        value.split_whitespace().next()?.parse::<u64>().ok()
    });
    kib.unwrap_or_default() / 1024
}
