//! `backtest` of the built program on what a real broker holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rdkafka::consumer::Consumer;
use serde_json::Value;

use crate::alerts::{Feed, HIGH, RULE, STREAM, said};
use crate::daemon::Daemon;
use crate::member::PATIENCE;
use crate::writer::{Writer, round_of};
use crate::{broker, broker_with_topics, consumer, declared};

fn program(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flowvitals-aggregator"))
        .args(args)
        .current_dir(folder)
        .output()
        .expect("the program")
}

/// A folder with rules, and a configuration of the brokers.
fn folder(brokers: &str, rules: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let brokers: Vec<_> = brokers.split(',').collect();
    let config = format!("site = \"ams1\"\n[kafka]\nbrokers = {brokers:?}\n");
    fs::write(folder.path().join("aggregator.toml"), config).expect("written");
    fs::write(folder.path().join("rules.toml"), rules).expect("written");
    folder
}

const ARGS: [&str; 5] = [
    "backtest",
    "--rules",
    "rules.toml",
    "--config",
    "aggregator.toml",
];

/// The report of a run.
fn backtest(folder: &Path, more: &[&str]) -> Value {
    let args: Vec<_> = ARGS
        .iter()
        .chain(&["--json"])
        .chain(more)
        .copied()
        .collect();
    let output = program(folder, &args);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}: {err}", output.status);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// Where every partition of every topic of ours begins and ends.
fn extents(brokers: &str) -> BTreeMap<(String, i32), (i64, i64)> {
    let consumer = consumer(brokers, "extents");
    let of = |topic: &lab::kafka::topics::Topic| {
        let partitions = (0..topic.partitions).map(|number| {
            let extent = consumer.fetch_watermarks(&topic.name, number, PATIENCE);
            ((topic.name.clone(), number), extent.expect("an extent"))
        });
        partitions.collect::<Vec<_>>()
    };
    declared().iter().flat_map(of).collect()
}

fn groups(brokers: &str) -> Vec<String> {
    let groups = consumer(brokers, "groups").fetch_group_list(None, PATIENCE);
    let groups = groups.expect("groups");
    let names = groups.groups().iter().map(|group| group.name().to_owned());
    names.collect()
}

#[test]
fn what_was_fired_live_is_found_again_and_a_lower_bound_finds_more() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let feed = Feed::start(&brokers);
    let daemon = Daemon::start_with(&brokers, RULE);
    daemon.wait_for("it judges", || {
        daemon.get("/healthz").is_some()
            && daemon.metric("flowvitals_aggregator_evaluations_total") >= 5.0
    });
    feed.lose(HIGH);
    daemon.wait_for("it fires", || !said(&brokers, "fired").is_empty());
    feed.lose(0);
    daemon.wait_for("it resolves", || !said(&brokers, "resolved").is_empty());
    // Too little for the running rule.
    let judged = daemon.metric("flowvitals_aggregator_evaluations_total");
    feed.lose(1);
    daemon.wait_for("a little is lost for a while", || {
        daemon.metric("flowvitals_aggregator_evaluations_total") >= judged + 10.0
    });
    daemon.stop();
    drop(feed);

    let (before, groups_before) = (extents(&brokers), groups(&brokers));
    let folder_of = folder(&brokers, RULE);
    let same = backtest(folder_of.path(), &[]);
    let (fired, resolved) = (&said(&brokers, "fired")[0], &said(&brokers, "resolved")[0]);
    let episodes = same["episodes"].as_array().expect("episodes");
    assert_eq!(episodes.len(), 1, "{same:#}");
    for name in [
        "episode_id",
        "starts_at_ms",
        "ends_at_ms",
        "duration_ms",
        "rule",
        "stream",
    ] {
        assert_eq!(episodes[0][name], resolved[name], "{name}");
    }
    assert_eq!(episodes[0]["fired_by"], fired["fired_by"]);
    assert_eq!(episodes[0]["peak"]["value"], resolved["peak"]["value"]);
    assert_eq!(
        episodes[0]["running"]["same"],
        serde_json::json!({ "later_ms": 0, "longer_ms": 0 })
    );
    assert_eq!(same["gone"].as_array().map(Vec::len), Some(0));
    let estimate = &episodes[0]["estimate"];
    let [value, low] = ["value", "low"].map(|name| estimate[name].as_f64().expect("a number"));
    assert!(low > 0.02 && low <= value, "{estimate}");
    assert_eq!(
        (
            &episodes[0]["nodes_touched"],
            &episodes[0]["nodes_with_data"]
        ),
        (&3.into(), &3.into())
    );
    let summary = &same["summary"];
    assert_eq!(
        (&summary["pages"], &summary["streams"], &summary["nodes"]),
        (&1.into(), &1.into(), &3.into())
    );
    let held = |topic: &str| {
        let of_topic = before.iter().filter(|((name, _), _)| name == topic);
        of_topic.map(|(_, (low, high))| high - low).sum::<i64>()
    };
    for (count, topic) in [
        ("windows", service::topics::WINDOW),
        ("pulses", service::topics::PULSE),
        ("heartbeats", service::topics::NODE),
    ] {
        assert_eq!(summary[count], held(topic), "{count}");
    }
    for none in ["duplicates", "lost"] {
        assert_eq!(summary[none], 0, "{none}");
    }

    let lower = RULE
        .replace("above = 0.02", "above = 0.005")
        .replace("clear_below = 0.014", "clear_below = 0.004");
    fs::write(folder_of.path().join("rules.toml"), lower).expect("written");
    let more = backtest(folder_of.path(), &["--from", "30m"]);
    let running: Vec<_> = more["episodes"]
        .as_array()
        .expect("episodes")
        .iter()
        .map(|one| &one["running"])
        .collect();
    assert_eq!(running.len(), 2, "{more:#}");
    let earlier = running[0]["same"]["later_ms"].as_i64().expect("the same");
    assert!(earlier <= 0, "a lower bound is not later");
    assert_eq!(running[1], "new");

    // Rules that raise nothing: what the running ones said is gone.
    fs::write(
        folder_of.path().join("rules.toml"),
        RULE.replace("above = 0.02", "above = 0.5"),
    )
    .expect("written");
    let none = backtest(folder_of.path(), &["--stream", "sport-?"]);
    assert_eq!(none["episodes"].as_array().map(Vec::len), Some(0));
    assert_eq!(none["gone"][0]["episode_id"], resolved["episode_id"]);
    let others = backtest(folder_of.path(), &["--stream", "news*"]);
    assert_eq!(
        (&others["summary"]["windows"], &others["gone"]),
        (&0.into(), &Value::Array(Vec::new()))
    );

    assert_eq!(extents(&brokers), before, "a back-test writes nothing");
    assert_eq!(groups(&brokers), groups_before, "it joins no group");
}

#[test]
fn it_needs_no_group_counts_what_is_no_event_and_exports_a_test() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let writer = Writer::new(&brokers);
    writer.round(3, 0..20);
    // Once more: they were there before. And a hole.
    writer.round(1, 5..8);
    writer.round(3, 22..30);
    let schema = aggregator::input::Topic::Window.schema();
    writer.raw(
        aggregator::input::Topic::Window,
        Some(0),
        STREAM,
        schema,
        b"garbage",
    );
    writer.flush();
    let rules = RULE.replace("sport-*", "*");
    let folder = folder(&brokers, &rules);
    let report = backtest(folder.path(), &["--export", "evening.toml"]);
    let summary = &report["summary"];
    assert_eq!(
        summary["undecodable"],
        serde_json::json!({ "undecodable": 1 })
    );
    assert_eq!(summary["duplicates"], round_of(1, 3));
    assert_eq!(summary["lost"], round_of(3, 2));
    assert_eq!(summary["windows"], 3 * 28);
    assert_eq!(groups(&brokers), [] as [String; 0]);
    let lines = fs::read_to_string(folder.path().join("evening.jsonl")).expect("events");
    assert_eq!(lines.lines().count(), round_of(3, 28));
    let played = program(
        folder.path(),
        &["rules", "test", "--verbose", "evening.toml"],
    );
    let out = String::from_utf8_lossy(&played.stdout);
    assert!(
        played.status.success(),
        "{out}{}",
        String::from_utf8_lossy(&played.stderr)
    );

    let text = program(folder.path(), &ARGS);
    let out = String::from_utf8_lossy(&text.stdout);
    assert!(
        out.contains("not read: 1 records that are no events (1 undecodable)"),
        "{out}"
    );
    let late = program(
        folder.path(),
        &[&ARGS[..], &["--from", "3h", "--to", "2h"]].concat(),
    );
    let err = String::from_utf8_lossy(&late.stderr);
    assert!(
        late.status.success() && err.contains("Kafka holds no events of that time"),
        "{err}"
    );
}

#[test]
fn what_is_missing_is_said() {
    let folder_of = folder("127.0.0.1:1", RULE);
    let output = program(folder_of.path(), &ARGS);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{err}");
    assert!(err.contains("no broker of 127.0.0.1:1 answers: "), "{err}");
    let Some(broker) = broker() else { return };
    let folder_of = folder(&broker.cluster.brokers(), RULE);
    let output = program(folder_of.path(), &ARGS);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{err}");
    assert!(err.contains("topic flowvitals.window.v1: not at "), "{err}");
}
