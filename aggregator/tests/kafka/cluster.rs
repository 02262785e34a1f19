//! Clusters that lose nodes while the sampler's producers write and the aggregator's readers read: nothing is lost, nothing
//! counts twice, whoever dies.

use std::thread;
use std::time::{Duration, Instant};

use lab::kafka::{Cluster, Options, topics};

use crate::member::PATIENCE;
use crate::nodes::Nodes;
use crate::owner::Owner;
use crate::{Broker, declared, settings, start_cluster};

const NODES: usize = 2;
const STREAMS: usize = 20;
/// How long a cluster is watched after a death.
const WATCH: Duration = Duration::from_secs(8);

/// The longest time without progress.
struct Gap {
    last: Instant,
    value: u64,
    longest: Duration,
}

impl Gap {
    fn new() -> Self {
        Self {
            last: Instant::now(),
            value: 0,
            longest: Duration::ZERO,
        }
    }

    fn begin(&mut self) {
        (self.last, self.longest) = (Instant::now(), Duration::ZERO);
    }

    fn note(&mut self, value: u64) {
        self.longest = self.longest.max(self.last.elapsed());
        if value != self.value {
            (self.last, self.value) = (Instant::now(), value);
        }
    }
}

/// A cluster at work.
struct Site {
    broker: Broker,
    nodes: Nodes,
    owner: Owner,
    confirmed: Gap,
    taken: Gap,
}

impl Site {
    fn start(brokers: usize) -> Option<Self> {
        let options = Options {
            nodes: brokers,
            ..Options::default()
        };
        let broker = start_cluster(&options)?;
        let addresses = broker.cluster.brokers();
        topics::apply(&addresses, &declared()).expect("topics");
        let nodes = Nodes::start(&addresses, &Default::default(), NODES, STREAMS);
        let mut site = Self {
            broker,
            nodes,
            owner: Owner::start(&settings(&addresses, &[])),
            confirmed: Gap::new(),
            taken: Gap::new(),
        };
        site.run_for(Duration::from_secs(2));
        site.catch_up("the first windows");
        Some(site)
    }

    fn cluster(&mut self) -> &mut Cluster {
        &mut self.broker.cluster
    }

    fn turn(&mut self) {
        self.nodes.turn();
        self.owner.drain();
        self.confirmed.note(self.nodes.confirmed());
        self.taken.note(self.owner.count());
        thread::sleep(Duration::from_millis(2));
    }

    fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn();
        }
    }

    /// Goes on until all that was written by now is confirmed and taken.
    fn catch_up(&mut self, what: &str) -> Duration {
        let (begin, written) = (Instant::now(), self.nodes.written());
        while self.nodes.confirmed() < written || self.owner.count() < written {
            let (confirmed, taken) = (self.nodes.confirmed(), self.owner.count());
            assert!(
                begin.elapsed() < PATIENCE,
                "{what}: of {written} written {confirmed} are confirmed, {taken} taken; {:?}, {:?}",
                self.nodes.states(),
                self.owner.status()
            );
            self.turn();
        }
        begin.elapsed()
    }

    fn kill(&mut self, ids: &[usize]) {
        for id in ids {
            self.cluster().kill(*id);
        }
        self.confirmed.begin();
        self.taken.begin();
    }

    /// Kills, watches, and says for how long nothing moved.
    fn lose(&mut self, ids: &[usize], what: &str) {
        self.kill(ids);
        self.run_for(WATCH);
        self.catch_up(what);
        println!(
            "{what}: longest without a confirmation {} ms, without a window taken {} ms",
            self.confirmed.longest.as_millis(),
            self.taken.longest.as_millis()
        );
    }

    /// The controller, and another node.
    fn controller_and_another(&mut self) -> (usize, usize) {
        let controller = self.broker.cluster.controller().expect("a controller");
        (controller, if controller == 1 { 2 } else { 1 })
    }

    /// Each window of each node once.
    fn end(mut self) {
        self.nodes.silence();
        self.catch_up("the last windows");
        for source in self.nodes.sources() {
            let (held, rounds) = (self.owner.sequences(&source), self.nodes.rounds);
            let whole = held.iter().copied().eq(0..rounds);
            assert!(whole, "{source:?}: {} of {rounds} held", held.len());
        }
        assert_eq!((self.nodes.lost(), self.owner.doubled), (0, 0));
        println!(
            "{} windows written and taken, 0 lost, 0 doubled; {} records recognised as taken before",
            self.nodes.written(),
            self.owner.recognised
        );
        self.owner.stop();
        self.nodes.stop();
    }
}

#[test]
fn three_brokers_go_on_without_one_and_hold_without_two() {
    let Some(mut site) = Site::start(3) else {
        return;
    };
    let (_, another) = site.controller_and_another();
    site.lose(&[another], "one of three killed");
    site.cluster().restart(another, None).expect("back");
    assert!(site.cluster().wait_in_sync(), "copies in sync");

    let (controller, _) = site.controller_and_another();
    site.lose(&[controller], "the active controller of three killed");
    site.cluster().restart(controller, None).expect("back");
    assert!(site.cluster().wait_in_sync(), "copies in sync");

    let (controller, another) = site.controller_and_another();
    site.kill(&[controller, another]);
    // Reports that were on their way.
    site.run_for(Duration::from_secs(1));
    let confirmed = site.nodes.confirmed();
    site.run_for(WATCH);
    assert_eq!(
        site.nodes.confirmed(),
        confirmed,
        "nothing is confirmed that one node alone has"
    );
    println!(
        "two of three killed: the nodes say {:?}",
        site.nodes.states()
    );
    println!(
        "two of three killed: the readers say {}",
        site.owner.status().streams.state
    );
    let back = Instant::now();
    for id in [controller, another] {
        site.cluster().restart(id, None).expect("back");
    }
    let started = back.elapsed();
    site.confirmed.begin();
    site.catch_up("two of three back");
    println!(
        "two of three back: ports open after {:.1} s, all confirmed and taken after {:.1} s",
        started.as_secs_f64(),
        back.elapsed().as_secs_f64()
    );
    site.end();
}

#[test]
fn five_brokers_go_on_without_two() {
    let Some(mut site) = Site::start(5) else {
        return;
    };
    let (controller, another) = site.controller_and_another();
    site.lose(
        &[controller, another],
        "two of five killed, the active controller among them",
    );
    site.end();
}
