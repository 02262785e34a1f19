//! The built daemon over a real Cassandra: it says what is missing, writes what was produced, answers as with the embedded store,
//! and catches up after the node was killed. One node for all of it, since it takes seconds to start.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use aggregator::config::Config;
use aggregator::store::cassandra::Cassandra;
use lab::cassandra as node;
use lab::clock::unix_ms;
use lab::server::ServerError;
use serde_json::Value;

use crate::alerts::{RULE, alerts};
use crate::broker_with_topics;
use crate::daemon::Daemon;
use crate::play::Play;
use crate::produced::{STREAMS, Site, is_whole};
use crate::store::{config, is, is_writing, settle};
use crate::writer::Writer;

/// A node; none where it cannot be started and need not be.
fn start_node() -> Option<node::Cassandra> {
    match node::Cassandra::start(&node::Options::default(), None) {
        Ok(node) => Some(node),
        Err(ServerError::Command(error))
            if std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_none() =>
        {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("no node: {error}"),
    }
}

/// Runs a command of the program with a daemon's configuration.
fn command(daemon: &Daemon, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flowvitals-aggregator"))
        .arg(arguments[0])
        .arg("--config")
        .arg(daemon.config())
        .args(&arguments[1..])
        .output()
        .expect("the program")
}

/// Holds what a daemon's Cassandra has against what was produced.
fn compare(daemon: &Daemon, site: &Site) {
    let config = Config::load(&daemon.config()).expect("a configuration");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Cassandra::open(&config).expect("settings");
        is_whole(&store, &site.truth).await;
    });
}

fn section(node: &node::Cassandra, keyspace: &str) -> String {
    let points = node.contact_points();
    format!("[store]\nkind = \"cassandra\"\ncontact_points = {points:?}\nkeyspace = {keyspace:?}\n")
}

#[test]
fn everything_over_one_node() {
    let Some(mut node) = start_node() else { return };
    answers_are_those_of_the_embedded_store(&node);
    killed_and_back(&mut node);
}

/// The same log through both stores: the same answers, to the last byte. (No heartbeats: they come by a topic of their own, so that
/// `nodes_expected` depends on who reads which first.)
fn answers_are_those_of_the_embedded_store(node: &node::Cassandra) {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let role = "roles = [\"store\"]\n";
    let cassandra = Daemon::start_as(&brokers, role, &section(node, "flowvitals"));
    without_tables(&cassandra);
    let folder = tempfile::tempdir().expect("a folder");
    let section = config(&folder.path().join("store"));
    let embedded = Daemon::start_in("other", &brokers, role, &section);
    let mut site = Site::new(3);
    site.loss = 30;
    let writer = Writer::new(&brokers);
    let start_ms = unix_ms() / 60_000 * 60_000 - 3 * 3_600_000;
    for second in 0..200 {
        site.second(&writer, start_ms + second * 1_000);
    }
    site.end(&writer);
    settle(&embedded, site.windows());
    settle(&cassandra, site.windows());
    compare(&cassandra, &site);
    let questions = questions(start_ms, start_ms + 200_000);
    let mut differs = None;
    // The last checkpoint of one can be some seconds older.
    cassandra.wait_for("the answers are the same", || {
        let same = |question: &&String| cassandra.get(question) == embedded.get(question);
        differs = questions.iter().find(|question| !same(question));
        differs.is_none()
    });
    is_told_whole(&cassandra, &site, start_ms);
    println!("{} answers are the same", questions.len());
    cassandra.stop();
    embedded.stop();
}

fn questions(from_ms: u64, to_ms: u64) -> Vec<String> {
    let mut questions = vec![
        "/api/v1/streams".to_owned(),
        "/api/v1/alerts?from_ms=0".to_owned(),
    ];
    for stream in (0..STREAMS).map(|stream| format!("/api/v1/streams/sport-{stream}")) {
        for metric in [
            "retrans_segs",
            "data_segs_out",
            "retrans_ratio",
            "rtt_slow_ratio",
        ] {
            for over_s in [1, 10, 60, 3_600, 7_200] {
                for at_ms in [
                    from_ms + 61_500,
                    from_ms + 120_000,
                    to_ms,
                    to_ms + 3_600_000,
                ] {
                    let total = format!("total?metric={metric}&over_s={over_s}&at_ms={at_ms}");
                    questions.push(format!("{stream}/{total}"));
                }
            }
        }
        for step_ms in [1_000, 7_000, 60_000, 120_000] {
            let span = format!("from_ms={from_ms}&to_ms={to_ms}&step_ms={step_ms}");
            questions.push(format!("{stream}/windows?{span}"));
        }
    }
    questions
}

/// What is answered is what was produced: a series adds up to it.
fn is_told_whole(daemon: &Daemon, site: &Site, start_ms: u64) {
    for stream in (0..STREAMS).map(|stream| format!("sport-{stream}")) {
        let to_ms = start_ms + 240_000;
        for step_ms in [1_000, 60_000] {
            let series = daemon.json(&format!(
                "/api/v1/streams/{stream}/windows?from_ms={start_ms}&to_ms={to_ms}&step_ms={step_ms}"
            ));
            let windows = series["windows"].as_array().expect("a list");
            let sent = windows
                .iter()
                .filter_map(|w| w["counters"]["data_segs_out"].as_u64());
            let produced = site.truth.iter().filter(|((of, _), _)| *of == stream);
            let produced: u64 = produced.map(|(_, (_, sent))| sent).sum();
            assert_eq!(
                sent.sum::<u64>(),
                produced,
                "{stream} in steps of {step_ms} ms"
            );
            assert!(
                series["late_parts"].as_u64().is_some_and(|parts| parts > 0),
                "{stream}"
            );
        }
    }
}

/// It waits and says for what, as `check` does; with the tables it begins.
fn without_tables(daemon: &Daemon) {
    daemon.wait_for("it says what is missing", || {
        let health = daemon.get("/healthz").unwrap_or_default();
        health.contains("lacks tables") && health.contains("schema --config FILE --apply")
    });
    let check = command(daemon, &["check"]);
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(said.contains("warning: cassandra: "), "{said}");
    assert!(said.contains("lacks tables"), "{said}");
    let applied = command(daemon, &["schema", "--apply"]);
    assert!(applied.status.success(), "{applied:?}");
    let check = command(daemon, &["check"]);
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("answers, and has its tables"), "{said}");
    daemon.wait_for("it begins", || is_writing(daemon));
}

/// The node is killed while nodes produce and an incident begins: the alert is told in time, and afterwards every window is stored,
/// once. Two processes share the streams.
fn killed_and_back(node: &mut node::Cassandra) {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let play = Play::start(&brokers, 7);
    let section = section(node, "killed");
    let both = Daemon::start_with(&brokers, &format!("{section}{RULE}"));
    let applied = command(&both, &["schema", "--apply"]);
    assert!(applied.status.success(), "{applied:?}");
    let stores = Daemon::start_as(&brokers, "roles = [\"store\"]\n", &section);
    let daemons = [&both, &stores];
    for daemon in daemons {
        daemon.wait_for("it has its share", || {
            is_well(daemon)
                && daemon
                    .log()
                    .contains("-store\" role=\"streams\" partitions=6")
        });
    }
    for daemon in daemons {
        daemon.wait_for("it writes", || {
            daemon.metric("flowvitals_store_rows_written_total") > 20.0
        });
    }
    node.kill(1);
    both.wait_for("the role that stores waits", || !is_well(&both));
    println!("{}", both.get("/healthz").unwrap_or_default());
    both.wait_for("the alert is on all the same", || {
        !alerts(&both, "state=on").is_empty()
    });
    assert!(!is_well(&both), "the store is still away");
    let alert = alerts(&both, "state=on").remove(0);
    println!(
        "with the store away, an alert {} ms after its onset",
        alert["said_ms"].as_u64().unwrap_or_default()
            - alert["onset_ms"].as_u64().unwrap_or_default()
    );
    // Of the last seconds memory answers; of what is over nobody does.
    let path = "/api/v1/streams/sport-0/total?metric=data_segs_out";
    assert_eq!(both.json(path)["source"], "memory");
    let over_ms = unix_ms() - 3_600_000;
    let over = both.json(&format!("{path}&at_ms={over_ms}"));
    assert!(
        over["error"]
            .as_str()
            .is_some_and(|error| error.starts_with("store: ")),
        "{over}"
    );
    node.restart(1, None).expect("back");
    for daemon in daemons {
        daemon.wait_for("it goes on", || is_well(daemon));
    }
    play.calm();
    both.wait_for("the alert is over", || alerts(&both, "state=on").is_empty());
    let site = play.stop();
    for daemon in daemons {
        daemon.wait_for("all is taken in", || {
            let lag = daemon.metric("flowvitals_store_consumer_lag");
            let missing = daemon.metric("flowvitals_store_missing_events");
            is_well(daemon) && (lag, missing) == (0.0, 0.0)
        });
        let paused_s = daemon.metric("flowvitals_store_paused_seconds_total");
        assert!(paused_s > 1.0, "{paused_s}");
    }
    thread::sleep(Duration::from_secs(8));
    compare(&both, &site);
    is_kept_with_its_evidence(&both, &alert);
    both.stop();
    stores.stop();
}

fn is_well(daemon: &Daemon) -> bool {
    let health = daemon.get("/healthz").unwrap_or_default();
    health.starts_with("ok") && is(daemon, "writing")
}

/// The episode is in the store, and the windows around its onset are.
fn is_kept_with_its_evidence(daemon: &Daemon, alert: &Value) {
    let number = |name: &str| alert[name].as_u64().expect("a number");
    let (id, onset_ms) = (
        alert["episode_id"].as_str().expect("an id"),
        number("onset_ms"),
    );
    let list = alerts(daemon, &format!("from_ms={}", onset_ms - 60_000));
    assert!(
        list.iter().any(|alert| alert["episode_id"] == id),
        "{list:?}"
    );
    let path = format!("/api/v1/alerts/loss%7Cams1%7Csport-0/{id}?evidence=1000");
    daemon.wait_for("its evidence is stored", || {
        daemon.json(&path)["evidence_windows"].as_u64() > Some(0)
    });
    let episode = daemon.json(&path);
    let kinds: Vec<_> = episode["changes"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    assert_eq!(
        kinds.first().map(|change| &change["kind"]),
        Some(&"fired".into())
    );
    assert_eq!(
        kinds.last().map(|change| &change["state"]),
        Some(&"ok".into())
    );
    let evidence = episode["evidence"].as_array().expect("a list");
    println!("{} windows of evidence", evidence.len());
    let around = onset_ms - 60_000..onset_ms + 60_000;
    let mut ids = BTreeSet::new();
    for window in evidence {
        assert_eq!(window["window"]["stream"], "sport-0");
        let start_ms = window["window"]["window_start_ms"]
            .as_u64()
            .expect("a start");
        assert!(
            around.contains(&start_ms),
            "{start_ms} is not around {onset_ms}"
        );
        assert!(ids.insert(window["id"].as_str().expect("an id")), "twice");
    }
    assert!(ids.len() > 40, "{} windows", ids.len());
}
