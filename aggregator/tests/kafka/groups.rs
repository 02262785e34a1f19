//! Members of the group come, go and die while the nodes write: every window is held by one member, once; and a member that
//! stands still holds up nobody else.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aggregator::consume::Kafka;

use crate::member::PATIENCE;
use crate::nodes::Nodes;
use crate::owner::Owner;
use crate::{Broker, Killed, MEMBER, broker_with_topics, settings};

const NODES: usize = 2;
const STREAMS: usize = 40;
/// Seconds for which an owner stands still; more by this variable.
const STILL: (&str, u64) = ("FLOWVITALS_TEST_STILL_S", 15);

struct Site {
    broker: Broker,
    nodes: Nodes,
    owners: Vec<Owner>,
}

impl Site {
    fn start() -> Option<(Self, Kafka)> {
        let (broker, brokers) = broker_with_topics()?;
        let mut site = Self {
            broker,
            nodes: Nodes::start(&brokers, &Default::default(), NODES, STREAMS),
            owners: Vec::new(),
        };
        site.nodes.round();
        let settings = settings(&brokers, &[]);
        Some((site, settings))
    }

    fn turn(&mut self) {
        self.nodes.turn();
        self.owners.iter_mut().for_each(Owner::drain);
        thread::sleep(Duration::from_millis(2));
    }

    fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn();
        }
    }

    /// Goes on until it holds; how long that took.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let begin = Instant::now();
        while !holds(self) {
            let shares: Vec<_> = self.owners.iter().map(Owner::share).collect();
            assert!(
                begin.elapsed() < PATIENCE,
                "{what} did not come: {shares:?}"
            );
            self.turn();
        }
        begin.elapsed()
    }

    /// Goes on until the members have shares alike, and hold all that was written by now.
    fn settle(&mut self, what: &str) {
        let share = 12 / self.owners.len();
        let shared = self.until(what, |site| {
            site.owners.iter().all(|owner| owner.share() == share)
        });
        let rounds = self.nodes.rounds;
        let whole = self.until(what, |site| site.is_whole(rounds));
        println!(
            "{what}: shared after {:.1} s, whole after {:.1} s",
            shared.as_secs_f64(),
            (shared + whole).as_secs_f64()
        );
        self.audit();
    }

    /// Whether of each source one member has every window of the first rounds.
    fn is_whole(&self, rounds: u64) -> bool {
        let held: u64 = self.owners.iter().map(Owner::count).sum();
        let has = |owner: &Owner, source| owner.sequences(source).len() as u64 >= rounds;
        held >= rounds * (NODES * STREAMS) as u64
            && self.nodes.sources().iter().all(|source| {
                let owners = self.owners.iter().filter(|owner| has(owner, source));
                owners.count() == 1
            })
    }

    /// Of each source one member has every window from the first on, once.
    fn audit(&self) {
        for source in self.nodes.sources() {
            let owned = self.owners.iter().map(|owner| owner.sequences(&source));
            let mut owned: Vec<_> = owned.filter(|sequences| !sequences.is_empty()).collect();
            assert_eq!(owned.len(), 1, "{source:?} belongs to one member");
            let sequences = owned.remove(0);
            let whole = sequences.iter().copied().eq(0..sequences.len() as u64);
            assert!(whole, "{source:?} has a hole");
        }
        for owner in &self.owners {
            assert_eq!(owner.doubled, 0);
            assert!(
                owner.is_aligned(),
                "windows and pulses of a stream at one member"
            );
        }
    }

    fn end(mut self) {
        self.nodes.silence();
        let rounds = self.nodes.rounds;
        self.until("the last windows", |site| site.is_whole(rounds));
        self.audit();
        let held: u64 = self.owners.iter().map(Owner::count).sum();
        assert_eq!(held, self.nodes.written());
        assert_eq!(self.nodes.lost(), 0);
        self.owners.into_iter().for_each(Owner::stop);
        self.nodes.stop();
        drop(self.broker);
    }
}

#[test]
fn members_come_go_and_die_and_every_window_is_held_once() {
    let Some((mut site, settings)) = Site::start() else {
        return;
    };
    for members in [1, 2, 4] {
        while site.owners.len() < members {
            site.owners.push(Owner::start(&settings));
        }
        site.settle(&format!("{members} members"));
        site.run_for(Duration::from_secs(1));
    }
    let leaving = site.owners.remove(1);
    let left = thread::spawn(move || leaving.stop());
    site.settle("3 members, after one left");
    left.join().expect("stopped");

    let mut child = Killed(
        Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "is_a_member_until_it_is_killed", "--ignored"])
            .env(MEMBER, settings.brokers.join(","))
            .stdout(Stdio::null())
            .spawn()
            .expect("a process"),
    );
    site.until("a fourth", |site| {
        site.owners.iter().all(|owner| owner.share() == 3)
    });
    // Let it read on: who is killed right at its birth has no session yet.
    site.run_for(Duration::from_secs(3));
    child.end();
    site.settle("3 members, after the fourth was killed");
    site.end();
}

#[test]
fn an_owner_that_stands_still_slows_neither_producers_nor_other_groups() {
    let Some((mut site, settings)) = Site::start() else {
        return;
    };
    let another = Kafka {
        group_prefix: "other".to_owned(),
        ..settings.clone()
    };
    let mut still = Owner::start(&settings);
    site.owners.push(Owner::start(&another));
    site.settle("the other group");
    let seconds = std::env::var(STILL.0)
        .ok()
        .and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(STILL.1));
    // Nobody takes what the first one reads. (Far more is written than it may hold.)
    let (end, mut behind) = (Instant::now() + time, 0);
    while Instant::now() < end {
        site.turn();
        site.nodes.round();
        behind = behind.max(site.nodes.written() - site.owners[0].count());
    }
    let written = site.nodes.written();
    let caught_up = site.until("all, in the other group", |site| {
        site.nodes.confirmed() >= written && site.owners[0].count() >= written
    });
    assert!(still.status().counts.pauses > 0, "nothing was held up");
    assert_eq!(still.count(), 0, "nobody took anything");
    println!(
        "stood still for {} s: {written} windows written meanwhile, at most {behind} of them not yet in the other group, \
         all of them {:.2} s after the end",
        time.as_secs(),
        caught_up.as_secs_f64()
    );
    let begin = Instant::now();
    while still.count() < site.nodes.written() {
        assert!(begin.elapsed() < PATIENCE, "{} taken", still.count());
        still.drain();
        site.turn();
    }
    println!("caught up in {:.1} s", begin.elapsed().as_secs_f64());
    assert_eq!((still.share(), still.doubled), (12, 0));
    still.stop();
    site.end();
}
