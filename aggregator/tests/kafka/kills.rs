//! Both roles in one daemon that is killed at any moment while nodes produce: the store holds what was produced, to the last window, and
//! each incident is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::alerts::{RULE, alerts, words};
use crate::broker_with_topics;
use crate::daemon::Daemon;
use crate::produced::{Site, compare};
use crate::store::{config, is_writing, number, settle};
use crate::writer::{Writer, now_ms};

const KEY: &str = "loss|ams1|sport-0";
/// The rule looks at so much, and nobody sees the end of an incident before it is over for so long, ms.
const OVER_MS: u64 = 5_000;

/// Begin and end of a loss, event time in ms; the end is not known before it is there.
type Incident = (u64, Option<u64>);

/// Nodes that produce in real time, with a loss now and then, whoever consumes.
pub struct Play {
    calm: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    incidents: Arc<Mutex<Vec<Incident>>>,
    thread: JoinHandle<Site>,
}

impl Play {
    pub fn start(brokers: &str, seed: u64) -> Self {
        let writer = Writer::new(brokers);
        let (calm, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let incidents = Arc::<Mutex<Vec<Incident>>>::default();
        let (calms, ends, known) = (Arc::clone(&calm), Arc::clone(&stop), Arc::clone(&incidents));
        let thread = thread::spawn(move || play(&writer, seed, &calms, &ends, &known));
        Self {
            calm,
            stop,
            incidents,
            thread,
        }
    }

    fn incidents(&self) -> Vec<Incident> {
        let incidents = self.incidents.lock();
        incidents.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No more loss.
    pub fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// What was produced, all of it with the brokers.
    pub fn stop(self) -> Site {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it produces")
    }
}

fn play(
    writer: &Writer,
    seed: u64,
    calm: &AtomicBool,
    stop: &AtomicBool,
    incidents: &Mutex<Vec<Incident>>,
) -> Site {
    let mut site = Site::new(seed);
    let mut start_ms = now_ms() / 1_000 * 1_000;
    let (mut number, mut turn_at) = (0, 15);
    while !stop.load(Ordering::Relaxed) {
        let wait_ms = (start_ms + 1_000).saturating_sub(now_ms());
        thread::sleep(Duration::from_millis(wait_ms));
        let over = site.loss > 0 && calm.load(Ordering::Relaxed);
        if (number >= turn_at && !calm.load(Ordering::Relaxed)) || over {
            let mut incidents = incidents.lock().unwrap_or_else(PoisonError::into_inner);
            if site.loss == 0 {
                site.loss = 50;
                incidents.push((start_ms, None));
                turn_at = number + site.random.random_range(15..40_u64);
            } else {
                site.loss = 0;
                if let Some((_, end)) = incidents.last_mut() {
                    *end = Some(start_ms);
                }
                turn_at = number + site.random.random_range(12..25_u64);
            }
        }
        site.second(writer, start_ms);
        site.heartbeats(writer, start_ms, number);
        start_ms += 1_000;
        number += 1;
    }
    site.end(writer);
    site
}

/// `FLOWVITALS_KILLS` and `FLOWVITALS_SEED` change how often and when.
#[test]
fn killed_at_any_moment_nothing_is_lost_doubled_or_said_twice() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let kills = number("FLOWVITALS_KILLS", 8);
    let seed = number("FLOWVITALS_SEED", now_ms());
    println!("seed {seed}, {kills} kills");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("store");
    let start = || Daemon::start_with(&brokers, &format!("{}{RULE}", config(&directory)));
    let play = Play::start(&brokers, seed);
    let (mut whole, mut on) = (0, 0);
    for _ in 0..kills {
        let daemon = start();
        if random.random_bool(0.8) {
            // Who was killed is a member of its groups for some seconds more. Sometimes the next one dies before it gets anything.
            daemon.wait_for("both roles read", || reads(&daemon));
            whole += 1;
        }
        thread::sleep(Duration::from_millis(random.random_range(0..8_000)));
        on += u64::from(has_alert(&daemon));
        daemon.kill();
    }
    println!("{whole} lives had read before their end, {on} ended while the alert was on");
    let daemon = start();
    daemon.wait_for("both roles read", || reads(&daemon));
    play.calm();
    daemon.wait_for("nothing is on", || {
        let last = words(&brokers, KEY).pop();
        alerts(&daemon, "state=on").is_empty() && last.is_none_or(|last| last["state"] == "ok")
    });
    let incidents = play.incidents();
    let site = play.stop();
    settle(daemon, site.windows());
    compare(&directory, &site.truth);
    told_once(&words(&brokers, KEY), &incidents);
}

fn reads(daemon: &Daemon) -> bool {
    is_writing(daemon) && daemon.log().contains("reads flowvitals.window.v1")
}

fn has_alert(daemon: &Daemon) -> bool {
    let on = daemon.get("/api/v1/alerts?state=on");
    on.is_some_and(|body| body.contains("episode_id"))
}

/// Holds what was said against what happened.
fn told_once(words: &[Value], incidents: &[Incident]) {
    let number = |value: &Value, name: &str| {
        let number = value[name].as_u64();
        number.unwrap_or_else(|| panic!("{name} of {value}"))
    };
    // An owner that has a successor says nothing any more.
    let epochs: Vec<u64> = words
        .iter()
        .map(|word| number(word, "owner_epoch"))
        .collect();
    assert!(epochs.is_sorted(), "owners: {epochs:?}");

    let mut episodes: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for word in words {
        if let Some(id) = word["episode_id"].as_str() {
            episodes.entry(id).or_default().push(word);
        }
    }
    let mut told = BTreeSet::new();
    for (id, words) in &episodes {
        let starts_at_ms = number(words[0], "starts_at_ms");
        let of = incidents.iter().find(|(from_ms, to_ms)| {
            let end_ms = to_ms.map_or(u64::MAX, |to_ms| to_ms + OVER_MS);
            (*from_ms..end_ms).contains(&starts_at_ms)
        });
        let (from_ms, to_ms) = of.unwrap_or_else(|| panic!("{id}: no incident at {starts_at_ms}"));
        assert!(
            told.insert(from_ms),
            "a second episode of one incident: {words:#?}"
        );
        for word in words {
            assert_eq!(number(word, "starts_at_ms"), starts_at_ms, "{id}");
        }
        // The same record can be there twice; two different ones can not.
        let of_kind = |kind: &str| -> BTreeSet<String> {
            let of_kind = words.iter().filter(|word| word["kind"] == kind);
            of_kind.map(|word| word.to_string()).collect()
        };
        for kind in ["fired", "resolved"] {
            let of_kind = of_kind(kind);
            assert!(of_kind.len() <= 1, "{kind} more than once: {of_kind:#?}");
        }
        let over = |word: &&&Value| word["ended"] != Value::Null;
        let ended: Vec<_> = words.iter().filter(over).collect();
        assert!(!ended.is_empty(), "{id} did not end");
        for word in ended {
            let to_ms = to_ms.expect("nobody says the end of what is on");
            assert!(
                number(word, "said_ms") > to_ms,
                "said to be over before it was: {word}"
            );
            assert_eq!(word["ended"], "cleared", "{word}");
        }
    }
    println!(
        "{} incidents, {} told, in {} words of {} owners",
        incidents.len(),
        told.len(),
        words.len(),
        epochs.iter().collect::<BTreeSet<_>>().len()
    );
    assert!(!told.is_empty(), "nothing was told");
}
