//! Alerts of the built daemon: from windows and pulses in a real broker to the topic and the API, and from owner to owner.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aggregator::input::partition_of;
use lab::alertmanager::webhook::{Notification, Webhook};
use lab::alertmanager::{Alertmanager, Options};
use lab::clock::unix_ms;
use rdkafka::message::Message;
use sampler_event::{Event, LifeCycle, NodeHeartbeat, StreamPulse, StreamState, StreamWindow};
use serde_json::Value;
use service::topics;

use crate::daemon::Daemon;
use crate::writer::Writer;
use crate::{broker_with_topics, declared, log};

const NODES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];
pub const STREAM: &str = "sport-1";
pub const KEY: &str = "loss|ams1|sport-1";
/// Retransmits of a group of 100 segments.
pub const HIGH: u64 = 5;

pub const RULE: &str = r#"
[[alert]]
name = "loss"
streams = ["sport-*"]
metric = "retrans_ratio"
over_s = 5
above = 0.02
hold_s = 1
clear_below = 0.014
clear_for_s = 2
"#;

/// What three nodes do, until it is dropped.
pub struct Feed {
    windows: Arc<AtomicU64>,
    pulses: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    pub fn start(brokers: &str) -> Self {
        let (windows, pulses, stop) = (Arc::default(), Arc::default(), Arc::default());
        let writer = Writer::new(brokers);
        let (retrans, more, ends) = (Arc::clone(&windows), Arc::clone(&pulses), Arc::clone(&stop));
        let thread = thread::spawn(move || feed(&writer, &retrans, &more, &ends));
        Self {
            windows,
            pulses,
            stop,
            thread: Some(thread),
        }
    }

    pub fn lose(&self, retrans: u64) {
        self.windows.store(retrans, Ordering::Relaxed);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It broke: the test has failed for want of data.
            let _ = thread.join();
        }
    }
}

fn feed(writer: &Writer, windows: &AtomicU64, pulses: &AtomicU64, stop: &AtomicBool) {
    // The past that the detector learns from.
    let mut at_ms = unix_ms() / 1_000 * 1_000;
    let mut pulse_number = 0;
    for start_ms in (at_ms - 90_000..at_ms).step_by(100) {
        write_pulses(writer, start_ms, pulse_number, 0);
        pulse_number += 1;
    }
    let mut second = 0;
    while !stop.load(Ordering::Relaxed) {
        let wait_ms = (at_ms + 100).saturating_sub(unix_ms());
        thread::sleep(Duration::from_millis(wait_ms));
        write_pulses(writer, at_ms, pulse_number, pulses.load(Ordering::Relaxed));
        pulse_number += 1;
        at_ms += 100;
        if at_ms.is_multiple_of(1_000) {
            write_second(
                writer,
                at_ms - 1_000,
                second,
                windows.load(Ordering::Relaxed),
            );
            second += 1;
        }
    }
}

/// One node has pulses.
fn write_pulses(writer: &Writer, start_ms: u64, number: u64, more: u64) {
    let retrans = 16 + number * 7 % 9 + more;
    let groups = (0..16).map(|group| retrans / 16 + u64::from(group < retrans % 16));
    writer.event(&Event::Pulse(StreamPulse {
        node: NODES[0].to_owned(),
        site: "ams1".to_owned(),
        stream: STREAM.to_owned(),
        instance: 7,
        sequence: number,
        pulse_start_ms: start_ms,
        pulse_ms: 100,
        observed_ms: 100,
        sampling_rate: 0.5,
        rate_epoch: 1,
        retrans_segs: retrans,
        data_segs_out: 4_000,
        flows_active: 60,
        g_retrans_segs: groups
            .map(|count| u32::try_from(count).expect("few"))
            .collect(),
        ..StreamPulse::default()
    }));
}

fn write_second(writer: &Writer, start_ms: u64, number: u64, retrans: u64) {
    for node in NODES {
        writer.event(&Event::Window(Box::new(StreamWindow {
            node: node.to_owned(),
            site: "ams1".to_owned(),
            stream: STREAM.to_owned(),
            instance: 7,
            sequence: number,
            window_start_ms: start_ms,
            window_ms: 1_000,
            observed_ms: 1_000,
            sampling_rate: 0.5,
            rate_epoch: 1,
            flows_seen: 4,
            flows_active: 40,
            flows_active_10s: 40,
            flows_open: 40,
            retrans_segs: 16 * retrans,
            data_segs_out: 1_600,
            g_retrans_segs: vec![u32::try_from(retrans).expect("few"); 16],
            g_data_segs_out: vec![100; 16],
            ..StreamWindow::default()
        })));
        writer.event(&Event::Node(Box::new(NodeHeartbeat {
            node: node.to_owned(),
            site: "ams1".to_owned(),
            instance: 7,
            sequence: number,
            window_start_ms: start_ms,
            window_ms: 1_000,
            life_cycle: LifeCycle::Run.into(),
            streams: vec![StreamState {
                stream: STREAM.to_owned(),
                sampling_rate: 0.5,
                next_sequence: number + 1,
                ..StreamState::default()
            }],
            ..NodeHeartbeat::default()
        })));
    }
}

/// All values of the alert topic of one kind.
pub fn said(brokers: &str, kind: &str) -> Vec<Value> {
    let values = words(brokers, KEY).into_iter();
    values.filter(|value| value["kind"] == kind).collect()
}

/// All values of a key's partition of the alert topic, in their order.
pub fn words(brokers: &str, key: &str) -> Vec<Value> {
    let declared = declared();
    let topic = declared.iter().find(|topic| topic.name == topics::ALERT);
    let partition = partition_of(key.as_bytes(), topic.expect("declared").partitions);
    let records = log(brokers, topics::ALERT, partition.expect("partitions"));
    let of_key = records
        .iter()
        .filter(|record| record.key() == Some(key.as_bytes()));
    let values = of_key.filter_map(Message::payload);
    values
        .map(|value| serde_json::from_slice(value).expect("JSON"))
        .collect()
}

pub fn alerts(daemon: &Daemon, query: &str) -> Vec<Value> {
    let answer = daemon.json(&format!("/api/v1/alerts?{query}"));
    answer["alerts"].as_array().cloned().unwrap_or_default()
}

pub fn is_up(daemon: &Daemon) -> bool {
    daemon.get("/healthz").is_some()
}

pub fn has(daemon: &Daemon, state: &str) -> bool {
    let metrics = daemon.get("/metrics").unwrap_or_default();
    metrics.contains(&format!(
        "flowvitals_aggregator_alerts{{state=\"{state}\"}} 1"
    ))
}

#[test]
fn loss_is_told_in_topic_and_api_until_it_is_over() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let feed = Feed::start(&brokers);
    let daemon = Daemon::start_with(&brokers, RULE);
    daemon.wait_for("it judges", || {
        is_up(&daemon) && daemon.metric("flowvitals_aggregator_evaluations_total") >= 5.0
    });
    assert_eq!(alerts(&daemon, "state=on"), [] as [Value; 0]);
    let mut live = daemon.open("/api/v1/live");
    feed.lose(HIGH);
    let begin = Instant::now();
    daemon.wait_for("it fires", || !alerts(&daemon, "state=on").is_empty());
    println!(
        "loss to firing in the API: {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    let on = alerts(&daemon, "state=on&stream=sport-1&severity=page");
    let id = on[0]["episode_id"].as_str().expect("an id").to_owned();
    assert_eq!(on[0]["labels"]["alertname"], "FlowvitalsRetransRatio");
    assert_eq!(on[0]["worst_nodes"].as_array().map(Vec::len), Some(3));
    assert!(alerts(&daemon, "state=on&stream=news").is_empty());
    let path = format!("/api/v1/alerts/{}/{id}", KEY.replace('|', "%7C"));
    assert_eq!(daemon.json(&path)["state"], on[0]["state"]);
    let (mut heard, mut bytes) = (String::new(), [0; 65_536]);
    while !heard.contains("event: alert") || !heard.contains("event: totals") {
        let count = live.read(&mut bytes).expect("events");
        assert!(count > 0, "it ended: {heard}");
        heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    feed.lose(0);
    daemon.wait_for("it resolves", || daemon.json(&path)["ended"] == "cleared");
    let ended = daemon.json(&path);
    assert!(ended["duration_ms"].as_u64().is_some_and(|ms| ms > 0) && ended["peak"].is_object());
    for kind in ["fired", "resolved"] {
        let of_kind = said(&brokers, kind);
        assert_eq!(of_kind.len(), 1, "{kind}");
        assert_eq!(
            (&of_kind[0]["episode_id"], &of_kind[0]["stream"]),
            (&id.as_str().into(), &STREAM.into())
        );
    }
    assert!(daemon.metric("flowvitals_aggregator_alert_latency_seconds_count") >= 1.0);
    assert!(daemon.metric("flowvitals_aggregator_records_total") >= 4.0);
    // A file that is wrong changes nothing; one without the rule ends what it raised.
    feed.lose(HIGH);
    daemon.wait_for("it fires again", || {
        !alerts(&daemon, "state=firing").is_empty()
    });
    daemon.reload("[[alert]]\nname = 7\n");
    daemon.wait_for("it refuses", || daemon.log().contains("reload refused"));
    // Its metrics are a second old at most.
    daemon.wait_for("it is on all the same", || has(&daemon, "firing"));
    daemon.reload("");
    daemon.wait_for("it ends", || {
        said(&brokers, "resolved")
            .iter()
            .any(|value| value["ended"] == "rule_gone")
    });
    drop(live);
    daemon.stop();
}

/// Whether each notification about a severity of the stream says that it fires.
fn told(webhook: &Webhook, severity: &str) -> Vec<bool> {
    let about = |one: &Notification| {
        one.labels("stream").contains(&STREAM) && one.labels("severity").contains(&severity)
    };
    let all = webhook.notifications().into_iter().filter(about);
    all.map(|one| one.is_firing()).collect()
}

#[test]
fn loss_reaches_the_receiver_behind_an_alertmanager_once_and_so_does_its_end() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let webhook = Webhook::start().expect("a receiver");
    let options = Options {
        receivers: Some(webhook.url()),
        ..Options::default()
    };
    let started = Alertmanager::start(&options);
    let Ok(alertmanager) = started else {
        assert!(
            std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_none(),
            "{started:?}"
        );
        return println!("skipped: {started:?}");
    };
    let feed = Feed::start(&brokers);
    let urls = [alertmanager.url()];
    let daemon = Daemon::start_with(
        &brokers,
        &format!("[alertmanager]\nurls = {urls:?}\n{RULE}"),
    );
    daemon.wait_for("it judges", || {
        is_up(&daemon) && daemon.metric("flowvitals_aggregator_evaluations_total") >= 5.0
    });
    let begin = Instant::now();
    feed.lose(HIGH);
    daemon.wait_for("somebody is paged", || told(&webhook, "page") == [true]);
    println!(
        "loss to the receiver: {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    // Longer than the daemon says it again and a group is told of again.
    thread::sleep(Duration::from_secs(21));
    assert_eq!(told(&webhook, "page"), [true], "once");
    let begin = Instant::now();
    feed.lose(0);
    daemon.wait_for("its end is told", || {
        told(&webhook, "page") == [true, false]
    });
    println!(
        "end of the loss to the receiver: {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    thread::sleep(Duration::from_secs(21));
    assert_eq!(told(&webhook, "page"), [true, false], "once");
    let record = said(&brokers, "fired").remove(0);
    let pages = webhook.notifications();
    let page = pages
        .iter()
        .find(|one| one.labels("severity").contains(&"page"));
    let alert = &page.expect("a page").body["alerts"][0];
    for name in ["summary", "estimate", "onset", "worst_nodes", "episode_id"] {
        assert_eq!(
            alert["annotations"][name], record["annotations"][name],
            "{name}"
        );
    }
    daemon.stop();
}

#[test]
fn a_change_in_the_pulses_is_suspected() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let feed = Feed::start(&brokers);
    let daemon = Daemon::start_with(&brokers, &format!("{RULE}fast = true\n"));
    daemon.wait_for("it has learned", || {
        is_up(&daemon)
            && daemon.metric("flowvitals_aggregator_pulses_total") >= 900.0
            && daemon.metric("flowvitals_aggregator_evaluations_total") >= 1.0
    });
    let begin_ms = unix_ms();
    feed.pulses.store(120, Ordering::Relaxed);
    daemon.wait_for("it suspects", || {
        !alerts(&daemon, "state=suspect").is_empty()
    });
    let record = said(&brokers, "suspected").remove(0);
    assert_eq!(
        (&record["state"], &record["stream"]),
        (&"suspect".into(), &STREAM.into())
    );
    let said_ms = record["said_ms"].as_u64().expect("a time");
    println!(
        "loss in the pulses to the word: {} ms",
        said_ms.saturating_sub(begin_ms)
    );
    assert!(daemon.log().contains("suspect: "), "{}", daemon.log());
    assert_eq!(daemon.metric("flowvitals_aggregator_suspects_total"), 1.0);
    feed.pulses.store(0, Ordering::Relaxed);
    daemon.wait_for("it is over", || !said(&brokers, "suspect_ended").is_empty());
    assert!(
        said(&brokers, "fired").is_empty(),
        "one node alone pages nobody"
    );
    daemon.stop();
}

/// The member that owns the stream, and the other one: as soon as both have said the same for some seconds, since what they say may
/// be a second old.
pub fn owner(first: Daemon, second: Daemon, state: &str) -> (Daemon, Daemon) {
    const SAME: usize = 40;
    let (mut same, mut last) = (0, (false, false));
    first.wait_for("one of two owns the stream", || {
        let now = (has(&first, state), has(&second, state));
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same >= SAME && now.0 != now.1
    });
    match last.0 {
        true => (first, second),
        false => (second, first),
    }
}

#[test]
fn the_next_owner_fires_what_the_killed_one_could_not_and_goes_on_with_what_it_did() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let feed = Feed::start(&brokers);
    let start = || Daemon::start_with(&brokers, RULE);
    let (first, second) = (start(), start());
    for daemon in [&first, &second] {
        daemon.wait_for("it reads", || {
            is_up(daemon) && daemon.log().contains("reads flowvitals.window.v1")
        });
    }
    let (owner_1, other) = owner(first, second, "ok");
    owner_1.wait_for("it judges", || {
        owner_1.metric("flowvitals_aggregator_evaluations_total") >= 5.0
    });
    feed.lose(HIGH);
    let killed = Instant::now();
    owner_1.kill();
    other.wait_for("the other fires", || !said(&brokers, "fired").is_empty());
    println!(
        "killed before firing, fired by the other after {:.1} s",
        killed.elapsed().as_secs_f64()
    );

    let third = start();
    third.wait_for("it reads", || {
        is_up(&third) && third.log().contains("reads flowvitals.window.v1")
    });
    let (owner_2, other) = owner(other, third, "firing");
    let before: BTreeSet<u64> = said(&brokers, "repeated")
        .iter()
        .filter_map(|v| v["owner_epoch"].as_u64())
        .collect();
    let killed = Instant::now();
    owner_2.kill();
    other.wait_for("the other owns it", || has(&other, "firing"));
    println!(
        "killed in an incident, owned by the other after {:.1} s",
        killed.elapsed().as_secs_f64()
    );
    other.wait_for("the other says it again", || {
        let again = said(&brokers, "repeated");
        let epochs = again
            .iter()
            .filter_map(|value| value["owner_epoch"].as_u64());
        epochs.max() > before.last().copied()
    });
    println!(
        "… and said again after {:.1} s",
        killed.elapsed().as_secs_f64()
    );
    feed.lose(0);
    other.wait_for("it resolves", || !said(&brokers, "resolved").is_empty());
    let (fired, resolved) = (said(&brokers, "fired"), said(&brokers, "resolved"));
    assert_eq!((fired.len(), resolved.len()), (1, 1));
    for name in ["episode_id", "starts_at_ms"] {
        assert_eq!(fired[0][name], resolved[0][name], "{name}");
    }
    other.stop();
}
