//! Every stage is made to lose, and each loss is found in the event, the heartbeat and the metrics; nothing else is missing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ebpf_abi::cells::{Cell, Extremes};
use rdkafka::mocking::MockCluster;
use sampler::laws;
use sampler::metrics::{Registry, StreamSeries};
use sampler::sink::{Capacity, Event, Record, Topics};
use sampler::spool::Faults;
use sampler::stage::clock::Now;
use sampler::stage::counts::Cells;
use sampler::stage::heartbeat::Outside;
use sampler::stage::streams::{Order, Wanted};
use sampler::stage::window::Identity;
use sampler::stage::{Kernel, Stage};
use sampler_event::{NodeHeartbeat, StreamPulse, StreamWindow};
use service::metrics::text;

use super::harness::*;

/// A kernel side of one slot.
struct OneCell(std::cell::RefCell<Cell>);

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

fn window(length: usize) -> Record {
    Record::of(&Event::Window(Box::new(StreamWindow {
        stream: "sport".to_owned(),
        rtt_counts: vec![i64::MAX; length],
        ..StreamWindow::default()
    })))
}

/// The lines of a metric, as a scrape shows them.
fn shown(registry: &Registry, name: &str) -> Vec<String> {
    let text = text::render(&registry.families());
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.map(str::to_owned).collect()
}

fn close(
    stage: &mut Stage,
    kernel: &OneCell,
    second: u64,
    outside: &Outside,
) -> (StreamWindow, NodeHeartbeat) {
    let now = Now {
        monotonic_us: second * 1_000_000,
        wall_ms: second * 1000,
    };
    let output = stage.close_window(now, kernel, 1000, false, outside);
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

#[tokio::test(flavor = "multi_thread")]
async fn every_loss_is_where_it_belongs_and_nothing_is_unexplained() {
    let cluster = MockCluster::new(1).expect("mock cluster");
    for topic in [TOPIC, Topics::NODE, Topics::PULSE] {
        cluster.create_topic(topic, 4, 1).expect("topic");
    }
    let place = tempfile::tempdir().expect("a directory");
    let full = Arc::new(Full::default());
    let mut plan = Plan::new(vec![cluster.bootstrap_servers()], 1);
    plan.max_bytes = MIB;
    plan.faults = Some(full.clone());
    plan.properties
        .insert("message.max.bytes".to_owned(), "20000".to_owned());
    let lane = Capacity {
        events: 10,
        bytes: MIB as usize,
    };
    plan.capacity = [lane; 3];
    let node = plan.start(place.path());
    let totals = || node.ledger.totals();

    // Dead letter: too large for the broker.
    node.outlet.edge(vec![window(3000)], 1000, None);
    until("the dead letter", || totals().dead_letter == 1).await;

    // Spool: full while the broker is away. 5,000 are in flight, 10 queue, the rest is on disk until it is full.
    cluster.broker_down(1).expect("down");
    for _ in 0..80 {
        node.outlet
            .edge((0..100).map(|_| window(50)).collect(), 2000, None);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until("drops of the spool", || totals().dropped_by.spool > 0).await;

    // Queue: pulses are in memory only, and so are windows while the disk is full.
    let pulse = || {
        Record::of(&Event::Pulse(StreamPulse {
            stream: "sport".to_owned(),
            ..StreamPulse::default()
        }))
    };
    node.outlet.pulses((0..6000).map(|_| pulse()));
    full.0.store(true, Ordering::Relaxed);
    node.outlet
        .edge((0..100).map(|_| window(50)).collect(), 3000, None);
    until("drops of the queue", || {
        totals().unspooled == 100 && totals().dropped_by.queue >= 90
    })
    .await;
    until("quiet books", || {
        node.spool.status().pending == totals().spooled
    })
    .await;
    node.check_laws();

    // Flow bound and reads: the window stage's own losses.
    let kernel = OneCell(std::cell::RefCell::new(Cell::EMPTY));
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
        name: "sport".to_owned(),
        rate: 1.0,
        pulse_ms: 0,
        rtt_slow_us: 1000,
        labels: Default::default(),
    };
    assert!(stage.apply(&[wanted], 1000, start, &kernel).is_empty());
    {
        let mut cell = kernel.0.borrow_mut();
        cell.counters.flows_seen = 9;
        cell.counters.flows_selected = 9;
        cell.counters.flows_sampled = 7;
        cell.counters.flows_refused = 2;
        cell.counters.flows_closed = 3;
    }
    stage.streams.stream_mut(0).lost_reads += 1;
    let loss = node.ledger.loss("sport");
    let outside = Outside {
        events: totals(),
        lost_by_stream: vec![("sport".to_owned(), loss.dropped, loss.dead_letter)],
        ..Outside::default()
    };
    let (window, heartbeat) = close(&mut stage, &kernel, 1, &outside);

    // In the event.
    assert_eq!((window.lost_flows, window.lost_reads), (2, 1));
    assert_eq!(window.spool_dropped_events, totals().dropped);
    assert_eq!(window.dead_letter_events, 1);
    // In the heartbeat, by stream and in all.
    let state = &heartbeat.streams[0];
    assert_eq!(
        (state.lost_flows, state.lost_reads, state.dead_letter_events),
        (2, 1, 1)
    );
    assert_eq!(state.spool_dropped_events, totals().dropped);
    let by = totals().dropped_by;
    assert_eq!(
        (
            heartbeat.events_dropped_queue,
            heartbeat.events_dropped_spool,
            heartbeat.events_dropped_unreadable,
            heartbeat.dead_letter,
            heartbeat.flows_refused,
        ),
        (by.queue, by.spool, 0, 1, 2)
    );
    assert_eq!(heartbeat.events_unspooled, 100);
    assert_eq!(heartbeat.broken_laws, Vec::<String>::new());
    // In the metrics.
    let registry = Registry::new(
        StreamSeries::All,
        Duration::from_secs(1),
        Arc::clone(&node.ledger),
        Some(node.spool.clone()),
    );
    registry.observe_window(&window);
    registry.observe_heartbeat(&heartbeat);
    registry.set_flows(stage.ledger().clone());
    for (name, value) in [
        (
            "flowvitals_events_dropped_total{reason=\"queue\"}",
            by.queue,
        ),
        (
            "flowvitals_events_dropped_total{reason=\"spool\"}",
            by.spool,
        ),
        ("flowvitals_events_dead_letter_total", 1),
        ("flowvitals_spool_unspooled_events_total", 100),
        ("flowvitals_flows_refused_total", 2),
    ] {
        assert_eq!(shown(&registry, name), [format!("{name} {value}")]);
    }
    let differences = shown(&registry, "flowvitals_ledger_difference");
    assert_eq!(differences.len(), 5);
    assert!(
        differences.iter().all(|line| line.ends_with(" 0")),
        "{differences:?}"
    );

    // Nothing unexplained: what was produced has arrived, or is one of the losses.
    full.0.store(false, Ordering::Relaxed);
    cluster.broker_up(1).expect("up");
    node.all_through().await;
    let end = totals();
    println!("{end:?}");
    assert_eq!(end.produced, 1 + 8000 + 6000 + 100);
    assert_eq!(end.delivered, end.produced - end.dropped - 1);
    assert!(laws::of_events(&end).iter().all(laws::Law::holds));
    // The spool lost more than one stream's worth only of this stream: all of it is charged.
    assert_eq!(node.ledger.loss("sport").dropped, end.dropped);
    node.stop().await;
}
