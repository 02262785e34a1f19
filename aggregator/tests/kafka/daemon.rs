//! The built daemon, from records in a real broker to answers over HTTP.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aggregator::consume::DEAD_LETTERS_TOPIC;
use aggregator::input::Topic;
use lab::clock::unix_ms;
use lab::server::free_port;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sampler_event::{Event, LifeCycle, NodeHeartbeat, StreamState, StreamWindow};
use serde_json::Value;

use crate::member::PATIENCE;
use crate::writer::Writer;
use crate::{broker_with_topics, log};

const NODES: u64 = 3;
const SECONDS: u64 = 12;
const RETRANS_SEGS: u64 = 48;

/// A running daemon; ended by force when dropped.
pub struct Daemon {
    process: Child,
    http: SocketAddr,
    folder: tempfile::TempDir,
}

impl Daemon {
    pub fn start(brokers: &str) -> Self {
        Self::start_with(brokers, "")
    }

    /// With more of a configuration.
    pub fn start_with(brokers: &str, more: &str) -> Self {
        Self::start_as(brokers, "", more)
    }

    /// With options of the file itself, and more sections.
    pub fn start_as(brokers: &str, options: &str, more: &str) -> Self {
        Self::start_in("flowvitals", brokers, options, more)
    }

    /// In groups of another name.
    pub fn start_in(group_prefix: &str, brokers: &str, options: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let http = SocketAddr::from(([127, 0, 0, 1], free_port().expect("a port")));
        let config = folder.path().join("aggregator.toml");
        let brokers: Vec<_> = brokers.split(',').collect();
        // A store of its own, unless the test has one.
        let store = match more.contains("[store]") {
            true => String::new(),
            false => format!("store.directory = {:?}\n", folder.path().join("store")),
        };
        let text = format!(
            "site = \"ams1\"\n{options}{store}[kafka]\nbrokers = {brokers:?}\ngroup_prefix = {group_prefix:?}\n[http]\nlisten = \"{http}\"\n{more}"
        );
        fs::write(&config, text).expect("a configuration");
        let log = File::create(folder.path().join("log")).expect("a log");
        let process = Command::new(env!("CARGO_BIN_EXE_flowvitals-aggregator"))
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the aggregator");
        Self {
            process,
            http,
            folder,
        }
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("aggregator.toml")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("the log")
    }

    /// The body of an answer, if there is one.
    pub fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.split_once("\r\n\r\n")?.1.to_owned())
    }

    pub fn json(&self, path: &str) -> Value {
        let body = self.get(path).expect("an answer");
        serde_json::from_str(&body).expect("JSON")
    }

    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics");
        let text = text.unwrap_or_else(|| panic!("no metrics:\n{}", self.log()));
        let parsed = service::metrics::parse(&text).expect("an exposition");
        let samples = parsed.samples.iter().filter(|sample| sample.name == name);
        samples.map(|sample| sample.value).sum()
    }

    /// As [`Self::metric`], of one sample of several.
    pub fn metric_of(&self, name: &str, label: (&str, &str)) -> f64 {
        let text = self.get("/metrics");
        let text = text.unwrap_or_else(|| panic!("no metrics:\n{}", self.log()));
        let parsed = service::metrics::parse(&text).expect("an exposition");
        let samples = parsed.named(name);
        let samples = samples.filter(|s| s.labels.get(label.0).is_some_and(|l| l == label.1));
        samples.map(|sample| sample.value).sum()
    }

    pub fn wait_for(&self, what: &str, mut done: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(
                begin.elapsed() < PATIENCE,
                "waited in vain until {what}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A request whose answer does not end.
    pub fn open(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.http).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("asked");
        stream
    }

    /// Gives it other rules.
    pub fn reload(&self, rules: &str) {
        let file = self.config();
        let text = fs::read_to_string(&file).expect("the configuration");
        let rest = text.split("[[alert]]").next().unwrap_or_default();
        fs::write(&file, format!("{rest}\n{rules}")).expect("written");
        self.signal(Signal::SIGHUP);
    }

    /// Ends it by force.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"));
        kill(pid, signal).expect("a signal");
    }

    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.process.wait().expect("a status");
        assert!(status.success(), "{status}:\n{}", self.log());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn window(node: &str, stream: &str, start_ms: u64, sequence: u64) -> Event {
    Event::Window(Box::new(StreamWindow {
        node: node.to_owned(),
        site: "ams1".to_owned(),
        stream: stream.to_owned(),
        instance: 7,
        sequence,
        window_start_ms: start_ms,
        window_ms: 1_000,
        observed_ms: 1_000,
        sampling_rate: 0.5,
        rate_epoch: 1,
        flows_seen: 4,
        flows_active: 40,
        flows_active_10s: 40,
        flows_open: 40,
        retrans_segs: RETRANS_SEGS,
        data_segs_out: 1_600,
        g_retrans_segs: vec![3; 16],
        g_data_segs_out: vec![100; 16],
        ..StreamWindow::default()
    }))
}

fn heartbeat(node: &str, start_ms: u64, sequence: u64) -> Event {
    let stream = |name: &str| StreamState {
        stream: name.to_owned(),
        sampling_rate: 0.5,
        ..StreamState::default()
    };
    Event::Node(Box::new(NodeHeartbeat {
        node: node.to_owned(),
        site: "ams1".to_owned(),
        instance: 7,
        sequence,
        window_start_ms: start_ms,
        window_ms: 1_000,
        life_cycle: LifeCycle::Run.into(),
        streams: vec![stream("sport-1"), stream("news"), stream("silent")],
        ..NodeHeartbeat::default()
    }))
}

/// The last seconds of three nodes, some of it twice, with one record of junk between.
fn write_history(writer: &Writer, end_ms: u64) {
    for second in 0..SECONDS {
        let start_ms = end_ms - (SECONDS - second) * 1_000;
        for node in (0..NODES).map(|node| format!("edge-{node}")) {
            for stream in ["sport-1", "news"] {
                let event = window(&node, stream, start_ms, second);
                writer.event(&event);
                if second % 3 == 0 {
                    writer.event(&event);
                }
            }
            writer.event(&heartbeat(&node, start_ms, second));
        }
    }
    writer.raw(
        Topic::Window,
        None,
        "sport-1",
        Topic::Window.schema(),
        b"\xff\xff\xff",
    );
    writer.flush();
}

#[test]
fn what_the_nodes_sent_is_answered_once_and_whole() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let writer = Writer::new(&brokers);
    let end_ms = unix_ms() / 1_000 * 1_000;
    // Before the daemon is there: it reads back.
    write_history(&writer, end_ms);
    let daemon = Daemon::start(&brokers);
    daemon.wait_for("it answers", || daemon.get("/healthz").is_some());
    let total = || {
        daemon.json(&format!(
            "/api/v1/streams/sport-1/total?metric=retrans_segs&over_s=10&at_ms={end_ms}"
        ))
    };
    let all = (NODES * 10 * RETRANS_SEGS) as f64 / 0.5;
    daemon.wait_for("all windows are merged", || total()["value"] == all);
    let answer = total();
    assert_eq!(
        (&answer["nodes_expected"], &answer["nodes_reported"]),
        (&3.into(), &3.into())
    );
    assert_eq!(answer["flows_seen"], NODES * 10 * 4);
    let silent = daemon.json("/api/v1/streams/silent/total?metric=retrans_segs");
    assert_eq!(
        (&silent["value"], &silent["reason"]),
        (&Value::Null, &"insufficient".into())
    );
    assert_eq!(silent["nodes_reported"], 3);
    daemon.wait_for("its books are up to date", || {
        daemon.metric("flowvitals_aggregator_records_refused_total") == 1.0
            && daemon.metric("flowvitals_aggregator_duplicates_total") == (NODES * 2 * 4) as f64
    });
    assert_eq!(daemon.metric("flowvitals_aggregator_missing_events"), 0.0);
    daemon.wait_for("the other role has refused it too", || {
        daemon.metric("flowvitals_store_records_refused_total") == 1.0
    });
    let letters = log(&brokers, DEAD_LETTERS_TOPIC, 0);
    assert_eq!(letters.len(), 1, "one of the roles buries");
    // A window that was not there: its hole shows, and it moves the total.
    writer.event(&window("edge-0", "sport-1", end_ms - 1_000, SECONDS + 4));
    daemon.wait_for("the late window is added", || {
        total()["value"] == all + RETRANS_SEGS as f64 / 0.5
    });
    daemon.wait_for("the hole shows", || {
        daemon.metric("flowvitals_aggregator_missing_events") == 4.0
    });
    daemon.stop();
}

#[test]
fn a_second_daemon_takes_over_what_the_first_had() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let writer = Writer::new(&brokers);
    let end_ms = unix_ms() / 1_000 * 1_000;
    write_history(&writer, end_ms);
    let first = Daemon::start(&brokers);
    let path = |stream: &str| {
        format!("/api/v1/streams/{stream}/total?metric=retrans_segs&over_s=10&at_ms={end_ms}")
    };
    let all = (NODES * 10 * RETRANS_SEGS) as f64 / 0.5;
    let has = |daemon: &Daemon, stream: &str| {
        daemon.get("/healthz").is_some() && daemon.json(&path(stream))["value"] == all
    };
    first.wait_for("the first has both", || {
        has(&first, "sport-1") && has(&first, "news")
    });
    let second = Daemon::start(&brokers);
    // Each stream has one owner at a time, which holds it whole.
    first.wait_for("both have their share", || {
        let owners = |stream| [&first, &second].map(|daemon| has(daemon, stream));
        second.log().contains("reads flowvitals.window.v1")
            && ["sport-1", "news"]
                .iter()
                .all(|stream| owners(stream).iter().filter(|o| **o).count() == 1)
    });
    let pid = Pid::from_raw(i32::try_from(first.process.id()).expect("a pid"));
    kill(pid, Signal::SIGKILL).expect("a signal");
    second.wait_for("the second has both", || {
        has(&second, "sport-1") && has(&second, "news")
    });
    second.stop();
}
