//! Both roles in one daemon that is killed at any moment while nodes produce: the store holds what was produced, to the last window, and
//! each incident is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use lab::clock::unix_ms;
use lab::environment::setting;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::alerts::{RULE, alerts, words};
use crate::broker_with_topics;
use crate::daemon::Daemon;
use crate::play::{Incident, Play};
use crate::produced::compare;
use crate::store::{config, is_writing, settle_and_stop};

const KEY: &str = "loss|ams1|sport-0";
/// The rule looks at so much, and nobody sees the end of an incident before it is over for so long, ms.
const OVER_MS: u64 = 5_000;

/// So long after the end of an incident the rule has fired what it will and ended what it has, ms of event time.
const SETTLED_MS: u64 = 12_000;

/// `FLOWVITALS_KILLS` and `FLOWVITALS_SEED` change how often and when.
#[test]
fn killed_at_any_moment_nothing_is_lost_doubled_or_said_twice() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let kills = setting("FLOWVITALS_KILLS", 8);
    let seed = setting("FLOWVITALS_SEED", unix_ms());
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
        println!("{} killed; its log:\n{}", unix_ms(), brief(&daemon.log()));
        daemon.kill();
    }
    println!("{whole} lives had read before their end, {on} ended while the alert was on");
    let daemon = start();
    daemon.wait_for("both roles read", || reads(&daemon));
    play.calm();
    daemon.wait_for("nothing is on", || {
        // Seconds after the beginning of an incident nothing is on either.
        let is_judged = play.incidents().last().is_none_or(|(_, to_ms)| {
            let newest_ms = daemon.metric("flowvitals_aggregator_newest_timestamp_seconds") * 1e3;
            to_ms.is_some_and(|to_ms| newest_ms as u64 >= to_ms + SETTLED_MS)
        });
        let last = words(&brokers, KEY).pop();
        is_judged
            && alerts(&daemon, "state=on").is_empty()
            && last.is_none_or(|last| last["state"] == "ok")
    });
    let incidents = play.incidents();
    let site = play.stop();
    settle_and_stop(daemon, site.windows());
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

/// What a life says of alerts and of what is wrong.
fn brief(log: &str) -> String {
    let of_note = ["WARN", "ERROR", "reads ", "alert"];
    let lines = log.lines();
    let lines = lines.filter(|line| of_note.iter().any(|word| line.contains(word)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Holds what was said against what happened.
fn told_once(words: &[Value], incidents: &[Incident]) {
    println!("incidents: {incidents:?}");
    for word in words {
        let of = |name: &str| &word[name];
        let (kind, state, epoch) = (of("kind"), of("state"), of("owner_epoch"));
        let (id, starts, said) = (of("episode_id"), of("starts_at_ms"), of("said_ms"));
        println!("{said}: {kind} by owner {epoch}, {state}, {id} since {starts}");
    }
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
