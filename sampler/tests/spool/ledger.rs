//! Every stage is made to lose, and each loss is found in the event, the heartbeat and the metrics; nothing else is missing.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ebpf_abi::cells::{Cell, Extremes};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use sampler::laws;
use sampler::metrics::{Registry, StreamSeries};
use sampler::sink::{Capacity, Event, Record, Topics, Totals};
use sampler::spool::{Faults, format};
use sampler::stage::clock::Now;
use sampler::stage::counts::Cells;
use sampler::stage::heartbeat::Outside;
use sampler::stage::streams::{Order, Wanted};
use sampler::stage::window::Identity;
use sampler::stage::{Kernel, Stage};
use sampler_event::{NodeHeartbeat, StreamPulse, StreamWindow};
use service::metrics::text;
use tempfile::TempDir;

use super::harness::*;

/// A kernel side of one slot.
struct OneCell(RefCell<Cell>);

impl Cells for OneCell {
    fn add_words(&self, slot: u32, from: usize, sum: &mut [u64]) {
        let cell = self.0.borrow();
        let words = std::ptr::from_ref::<Cell>(&cell).cast::<u64>();
        let length = size_of::<Cell>() / 8;
        for (n, sum) in sum.iter_mut().enumerate().filter(|_| slot == 0) {
            assert!(from + n < length);
            // SAFETY: inside the cell, which is all words.
            *sum += unsafe { words.add(from + n).read() };
        }
    }

    fn extremes(&self, _: u32, _: u32) -> Extremes {
        Extremes::NONE
    }
}

impl Kernel for OneCell {
    fn begin_window(&self, _: u32) {}
    fn obey(&self, _: &Order) {}
    fn flows_open(&self) -> u64 {
        0
    }
    fn ended_unseen(&self, _: u64) {}
}

#[derive(Debug, Default)]
struct Full(AtomicBool);

impl Faults for Full {
    fn before_write(&self) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

const STREAM: &str = "sport";
/// Events of a kind that the sink takes from the queue and cannot send.
const IN_FLIGHT: u64 = 5_000;
/// Events of a kind that the queue holds.
const LANE: u64 = 10;
/// Length of a histogram that makes a window of about half a kilobyte.
const USUAL: usize = 50;

fn window(length: usize) -> Record {
    Record::of(&Event::Window(Box::new(StreamWindow {
        stream: STREAM.to_owned(),
        rtt_counts: vec![i64::MAX; length],
        ..StreamWindow::default()
    })))
}

fn pulse() -> Record {
    Record::of(&Event::Pulse(StreamPulse {
        stream: STREAM.to_owned(),
        ..StreamPulse::default()
    }))
}

/// A node of which every stage can be made to lose.
struct Losing {
    cluster: MockCluster<'static, DefaultProducerContext>,
    place: TempDir,
    disk: Arc<Full>,
    node: Node,
}

impl Losing {
    fn start() -> Self {
        let cluster = MockCluster::new(1).expect("mock cluster");
        for topic in [TOPIC, Topics::NODE, Topics::PULSE] {
            cluster.create_topic(topic, 4, 1).expect("topic");
        }
        let place = tempfile::tempdir().expect("a directory");
        let disk = Arc::new(Full::default());
        let mut plan = Plan::new(vec![cluster.bootstrap_servers()], 1);
        plan.max_bytes = MIB;
        plan.faults = Some(disk.clone());
        plan.properties
            .insert("message.max.bytes".to_owned(), "20000".to_owned());
        plan.capacity = [Capacity {
            events: LANE as usize,
            bytes: MIB as usize,
        }; 3];
        let node = plan.start(place.path());
        Self {
            cluster,
            place,
            disk,
            node,
        }
    }

    fn totals(&self) -> Totals {
        self.node.ledger.totals()
    }

    fn edge(&self, windows: u64) {
        let records = (0..windows).map(|_| window(USUAL)).collect();
        self.node.outlet.edge(records, 2000, None);
    }

    /// Windows until memory holds no more. The broker must be away.
    async fn fill_memory(&self) {
        while self.totals().waiting < IN_FLIGHT + LANE {
            self.edge(LANE);
            // No more at once than the queue holds, or it would make room before the sink takes any.
            until("the way to the queue", || self.totals().at_risk == 0).await;
        }
    }

    /// Too large for the broker.
    async fn lose_a_dead_letter(&self) {
        self.node.outlet.edge(vec![window(3000)], 1000, None);
        until("the dead letter", || self.totals().dead_letter == 1).await;
    }

    /// A record goes bad on the disk while it waits there.
    async fn lose_on_the_disk(&self) {
        self.cluster.broker_down(1).expect("down");
        self.fill_memory().await;
        self.edge(100);
        until("full memory, and the rest on the disk only", || {
            let totals = self.totals();
            totals.at_risk == 0 && totals.waiting == IN_FLIGHT + LANE
        })
        .await;
        self.spoil_one();
        self.cluster.broker_up(1).expect("up");
        self.node.all_through().await;
        assert_eq!(self.totals().dropped_by.unreadable, 1);
    }

    /// Turns a bit of a record in the middle of the newest segment: older ones, and the newest of all, are in memory too.
    fn spoil_one(&self) {
        let entries = fs::read_dir(self.place.path()).expect("read");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let segments = paths.filter(|path| path.extension().is_some_and(|ending| ending == "seg"));
        let newest = segments.max().expect("a segment");
        let mut bytes = fs::read(&newest).expect("read");
        let length = format::record_bytes(&window(USUAL)).expect("fits");
        let records = (bytes.len() - format::HEAD_BYTES) / length;
        let place = format::HEAD_BYTES + records / 2 * length;
        bytes[place + length / 2] ^= 1;
        fs::write(&newest, bytes).expect("written");
    }

    /// The broker is away for longer than the spool's bound lasts.
    async fn lose_in_the_spool(&self) {
        self.cluster.broker_down(1).expect("down");
        self.fill_memory().await;
        for _ in 0..40 {
            self.edge(100);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        until("drops of the spool", || self.totals().dropped_by.spool > 0).await;
    }

    /// What is in memory only: pulses, and windows while the disk is full.
    async fn lose_in_memory(&self) {
        self.node.outlet.pulses((0..6000).map(|_| pulse()));
        self.disk.0.store(true, Ordering::Relaxed);
        self.edge(100);
        until("drops of the queue", || {
            let totals = self.totals();
            totals.unspooled == 100 && totals.dropped_by.queue >= 100 - LANE
        })
        .await;
        until("quiet books", || {
            self.node.spool.status().pending == self.totals().spooled
        })
        .await;
        self.node.check_laws();
    }
}

/// The window stage of a node that loses by itself, too: flows beyond the bound, reads that fail.
struct Counting {
    stage: Stage,
    kernel: OneCell,
}

impl Counting {
    fn start() -> Self {
        let kernel = OneCell(RefCell::new(Cell::EMPTY));
        let identity = Identity {
            node: "edge-07".to_owned(),
            site: "ams1".to_owned(),
            instance: 1,
            previous_instance: 0,
            sampling_key_id: 0,
            rtt_source: 0,
            hz: 100,
        };
        let start = Now {
            monotonic_us: 0,
            wall_ms: 0,
        };
        let mut stage = Stage::new(identity, 1, 1000, start, &kernel);
        let wanted = Wanted {
            name: STREAM.to_owned(),
            rate: 1.0,
            pulse_ms: 0,
            rtt_slow_us: 1000,
            labels: Default::default(),
        };
        assert!(stage.apply(&[wanted], 1000, start, &kernel).is_empty());
        {
            let counters = &mut kernel.0.borrow_mut().counters;
            counters.flows_seen = 9;
            counters.flows_selected = 9;
            counters.flows_sampled = 7;
            counters.flows_refused = 2;
            counters.flows_closed = 3;
        }
        stage.streams.stream_mut(0).lost_reads += 1;
        Self { stage, kernel }
    }

    fn close(&mut self, outside: &Outside) -> (StreamWindow, NodeHeartbeat) {
        let now = Now {
            monotonic_us: 1_000_000,
            wall_ms: 1000,
        };
        let output = self
            .stage
            .close_window(now, &self.kernel, 1000, false, outside);
        let (mut window, mut heartbeat) = (None, None);
        for event in output.events {
            match event {
                Event::Window(event) => window = Some(*event),
                Event::Node(event) => heartbeat = Some(*event),
                Event::Pulse(_) => {}
            }
        }
        (window.expect("a window"), heartbeat.expect("a heartbeat"))
    }
}

/// A record that cannot be read does not say whose it was: it is in the node's books only.
fn look_in_events(window: &StreamWindow, heartbeat: &NodeHeartbeat, totals: &Totals) {
    let by = totals.dropped_by;
    let charged = by.queue + by.spool;
    assert_eq!(
        (
            window.lost_flows,
            window.lost_reads,
            window.spool_dropped_events,
            window.dead_letter_events
        ),
        (2, 1, charged, 1)
    );
    let state = &heartbeat.streams[0];
    assert_eq!(
        (
            state.lost_flows,
            state.lost_reads,
            state.spool_dropped_events,
            state.dead_letter_events
        ),
        (2, 1, charged, 1)
    );
    assert_eq!(
        (
            heartbeat.events_dropped_queue,
            heartbeat.events_dropped_spool,
            heartbeat.events_dropped_unreadable,
        ),
        (by.queue, by.spool, 1)
    );
    assert_eq!(
        (
            heartbeat.dead_letter,
            heartbeat.flows_refused,
            heartbeat.events_unspooled
        ),
        (1, 2, 100)
    );
    assert_eq!(heartbeat.broken_laws, Vec::<String>::new());
}

/// The lines of a metric, as a scrape shows them.
fn shown(registry: &Registry, name: &str) -> Vec<String> {
    let text = text::render(&registry.families());
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.map(str::to_owned).collect()
}

fn look_in_metrics(registry: &Registry, totals: &Totals) {
    let by = totals.dropped_by;
    for (name, value) in [
        (
            r#"flowvitals_events_dropped_total{reason="queue"}"#,
            by.queue,
        ),
        (
            r#"flowvitals_events_dropped_total{reason="spool"}"#,
            by.spool,
        ),
        (r#"flowvitals_events_dropped_total{reason="unreadable"}"#, 1),
        ("flowvitals_events_dead_letter_total", 1),
        ("flowvitals_spool_unspooled_events_total", 100),
        ("flowvitals_flows_refused_total", 2),
        (r#"flowvitals_stream_lost_reads_total{stream="sport"}"#, 1),
    ] {
        assert_eq!(shown(registry, name), [format!("{name} {value}")]);
    }
    let differences = shown(registry, "flowvitals_ledger_difference");
    assert_eq!(differences.len(), 5);
    assert!(
        differences.iter().all(|line| line.ends_with(" 0")),
        "{differences:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_loss_is_where_it_belongs_and_nothing_is_unexplained() {
    let losing = Losing::start();
    losing.lose_a_dead_letter().await;
    losing.lose_on_the_disk().await;
    losing.lose_in_the_spool().await;
    losing.lose_in_memory().await;

    let mut counting = Counting::start();
    let totals = losing.totals();
    let loss = losing.node.ledger.loss(STREAM);
    let outside = Outside {
        events: totals,
        lost_by_stream: vec![(STREAM.to_owned(), loss.dropped, loss.dead_letter)],
        ..Outside::default()
    };
    let (window, heartbeat) = counting.close(&outside);
    look_in_events(&window, &heartbeat, &totals);
    let registry = Registry::new(
        StreamSeries::All,
        Duration::from_secs(1),
        Arc::clone(&losing.node.ledger),
        Some(losing.node.spool.clone()),
    );
    registry.observe_window(&window);
    registry.observe_heartbeat(&heartbeat);
    registry.set_flows(counting.stage.ledger().clone());
    look_in_metrics(&registry, &totals);

    // Nothing unexplained: what was produced has arrived, or is one of the losses.
    losing.disk.0.store(false, Ordering::Relaxed);
    losing.cluster.broker_up(1).expect("up");
    losing.node.all_through().await;
    let end = losing.totals();
    println!("{end:?}");
    assert_eq!(end.delivered + end.dropped + end.dead_letter, end.produced);
    assert!(laws::of_events(&end).iter().all(laws::Law::holds));
    let charged = losing.node.ledger.loss(STREAM).dropped;
    assert_eq!(charged + end.dropped_by.unreadable, end.dropped);
    losing.node.stop().await;
}
