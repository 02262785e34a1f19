//! The role that stores, as the built daemon: killed at any moment, held up by its directory, taken over. What is in the store is
//! what was produced, to the last window.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::{env, fs, thread};

use aggregator::store::{Embedded, Folded, Store};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sampler_event::{Event, Flag, StreamWindow};

use crate::broker_with_topics;
use crate::daemon::Daemon;
use crate::writer::{Writer, now_ms};

const STREAMS: usize = 6;
const NODES: u64 = 4;

/// What was produced, by stream and start of the window: windows and their segments.
pub type Truth = BTreeMap<(String, u64), (u64, u64)>;

/// Nodes that send windows in order, late, twice, and again as a backlog.
pub struct Site {
    random: StdRng,
    sequences: BTreeMap<(u64, usize), u64>,
    pub truth: Truth,
    /// Sent, and to be sent once more.
    repeats: Vec<StreamWindow>,
    /// Not sent yet.
    late: Vec<StreamWindow>,
}

impl Site {
    pub fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            sequences: BTreeMap::new(),
            truth: Truth::new(),
            repeats: Vec::new(),
            late: Vec::new(),
        }
    }

    /// All windows of a second.
    pub fn second(&mut self, writer: &Writer, start_ms: u64) {
        for node in 0..NODES {
            for stream in 0..STREAMS {
                let window = self.window(node, stream, start_ms);
                match self.random.random_range(0..10_u32) {
                    0 => self.late.push(window),
                    1 => {
                        self.repeats.push(window.clone());
                        self.send(writer, window);
                    }
                    _ => self.send(writer, window),
                }
            }
        }
        // Some of what waits, of any age; a late one comes as what it is or as a backlog.
        for _ in 0..self.late.len() / 4 {
            let at = self.random.random_range(0..self.late.len());
            let mut window = self.late.swap_remove(at);
            if self.random.random_bool(0.5) {
                window.flags |= Flag::Replayed as u32;
            }
            self.send(writer, window);
        }
        for _ in 0..self.repeats.len() / 4 {
            let at = self.random.random_range(0..self.repeats.len());
            let mut window = self.repeats.swap_remove(at);
            window.flags |= Flag::Replayed as u32;
            writer.event(&Event::Window(Box::new(window)));
        }
    }

    fn window(&mut self, node: u64, stream: usize, start_ms: u64) -> StreamWindow {
        let sequence = self.sequences.entry((node, stream)).or_default();
        *sequence += 1;
        let sequence = *sequence;
        let sent = self.random.random_range(1..1_000_u32);
        StreamWindow {
            node: format!("edge-{node}"),
            site: "ams1".to_owned(),
            stream: format!("sport-{stream}"),
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
            data_segs_out: sent.into(),
            g_data_segs_out: (0..16)
                .map(|g| sent / 16 + u32::from(g < sent % 16))
                .collect(),
            ..StreamWindow::default()
        }
    }

    fn send(&mut self, writer: &Writer, window: StreamWindow) {
        let key = (window.stream.clone(), window.window_start_ms);
        let truth = self.truth.entry(key).or_default();
        truth.0 += 1;
        truth.1 += window.data_segs_out;
        writer.event(&Event::Window(Box::new(window)));
    }

    /// Everything that was held back.
    pub fn end(&mut self, writer: &Writer) {
        for window in std::mem::take(&mut self.late) {
            self.send(writer, window);
        }
        writer.flush();
    }

    pub fn windows(&self) -> u64 {
        self.truth.values().map(|(windows, _)| windows).sum()
    }
}

fn config(directory: &Path) -> String {
    format!("[store]\nkind = \"embedded\"\ndirectory = {directory:?}\n")
}

fn store_role(brokers: &str, directory: &Path) -> Daemon {
    Daemon::start_as(brokers, "roles = [\"store\"]\n", &config(directory))
}

fn is_writing(daemon: &Daemon) -> bool {
    daemon.get("/healthz").as_deref() == Some("ok\n")
        && daemon.metric("flowvitals_store_active") == 1.0
        && daemon
            .log()
            .contains("assigned role=\"streams\" partitions=12")
}

/// Waits until all is read and written, also what is still open.
pub fn settle(daemon: &Daemon, windows: u64) {
    daemon.wait_for("everything is taken in", || {
        if !is_writing(daemon) {
            return false;
        }
        let metrics = daemon.get("/metrics").unwrap_or_default();
        let known = metrics.matches("flowvitals_store_consumer_lag{").count();
        let lag = daemon.metric("flowvitals_store_consumer_lag");
        let missing = daemon.metric("flowvitals_store_missing_events");
        known >= STREAMS.min(12) / 2 && (lag, missing) == (0.0, 0.0)
    });
    println!(
        "{windows} windows; {} rows in the last life",
        daemon.metric("flowvitals_store_rows_written_total")
    );
    // What is open is written without being closed.
    thread::sleep(Duration::from_secs(5));
}

/// Holds the store against what was produced: seconds and minutes, by stream and window.
fn compare(directory: &Path, truth: &Truth) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = Embedded::open(directory).expect("the store");
    runtime.block_on(is_whole(&store, truth));
}

pub async fn is_whole(store: &dyn Store, truth: &Truth) {
    let mut minutes = Truth::new();
    for ((stream, start_ms), (windows, sent)) in truth {
        let minute = minutes
            .entry((stream.clone(), start_ms / 60_000 * 60_000))
            .or_default();
        minute.0 += windows;
        minute.1 += sent;
        let rows = store
            .seconds(stream, *start_ms, start_ms + 1_000)
            .await
            .expect("rows");
        let sums = Folded::of(&rows).sums;
        let stored = (sums.windows, sums.counters.data_segs_out);
        assert_eq!(
            stored,
            (*windows, *sent),
            "second {stream} {start_ms}: {rows:#?}"
        );
        let groups: u64 = sums
            .pools
            .values()
            .flat_map(|pool| pool.groups.data_segs_out)
            .sum();
        assert_eq!(groups, *sent, "groups of {stream} {start_ms}");
    }
    for ((stream, start_ms), expected) in &minutes {
        let span = (*start_ms, start_ms + 60_000);
        let rows = store.minutes(stream, span.0, span.1).await.expect("rows");
        let sums = Folded::of(&rows).sums;
        let stored = (sums.windows, sums.counters.data_segs_out);
        assert_eq!(stored, *expected, "minute {stream} {start_ms}");
        let rows = store
            .node_minutes(stream, span.0, span.1)
            .await
            .expect("rows");
        let stored = rows.iter().fold((0, 0), |sum, row| {
            (sum.0 + row.windows, sum.1 + row.counters.data_segs_out)
        });
        assert_eq!(stored, *expected, "nodes' minute {stream} {start_ms}");
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
}

/// `FLOWVITALS_STORE_KILLS` and `FLOWVITALS_STORE_SEED` change how often and when.
#[test]
fn killed_at_any_moment_it_neither_loses_nor_doubles_a_window() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let kills = number("FLOWVITALS_STORE_KILLS", 6);
    let seed = number("FLOWVITALS_STORE_SEED", now_ms());
    println!("seed {seed}, {kills} kills");
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("store");
    let writer = Writer::new(&brokers);
    let mut site = Site::new(seed);
    // Event time goes faster than the clock, from the past: minutes close too.
    let mut start_ms = now_ms() / 60_000 * 60_000 - 3 * 3_600_000;
    for _ in 0..kills {
        let daemon = store_role(&brokers, &directory);
        if site.random.random_bool(0.7) {
            // Often it reads; sometimes it is killed while it starts.
            daemon.wait_for("it writes", || is_writing(&daemon));
        }
        let life_ms = site.random.random_range(200..7_000_u64);
        for _ in 0..life_ms / 100 {
            site.second(&writer, start_ms);
            start_ms += 1_000;
            thread::sleep(Duration::from_millis(100));
        }
        drop(daemon);
        site.second(&writer, start_ms);
        start_ms += 1_000;
    }
    site.end(&writer);
    let daemon = store_role(&brokers, &directory);
    settle(&daemon, site.windows());
    daemon.stop();
    compare(&directory, &site.truth);
}

#[test]
fn a_second_one_stands_by_and_takes_over() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("store");
    let writer = Writer::new(&brokers);
    let mut site = Site::new(1);
    let start_ms = now_ms() / 60_000 * 60_000 - 3_600_000;
    let mut seconds = (0..).map(|second| start_ms + second * 1_000);
    let mut play = |site: &mut Site| {
        for start_ms in seconds.by_ref().take(40) {
            site.second(&writer, start_ms);
        }
    };
    let first = store_role(&brokers, &directory);
    first.wait_for("it writes", || is_writing(&first));
    play(&mut site);
    // One in the same directory, one in the same group.
    let same = store_role(&brokers, &directory);
    let elsewhere = store_role(&brokers, &folder.path().join("elsewhere"));
    for standby in [&same, &elsewhere] {
        standby.wait_for("it stands by and says so", || {
            let health = standby.get("/healthz").unwrap_or_default();
            health.starts_with("ok, standby: ") && standby.metric("flowvitals_store_active") == 0.0
        });
    }
    println!("{}", same.get("/healthz").unwrap_or_default());
    println!("{}", elsewhere.get("/healthz").unwrap_or_default());
    drop(elsewhere);
    play(&mut site);
    drop(first);
    play(&mut site);
    same.wait_for("it took over", || is_writing(&same));
    play(&mut site);
    site.end(&writer);
    settle(&same, site.windows());
    same.stop();
    compare(&directory, &site.truth);
}

#[test]
fn a_directory_that_cannot_be_written_pauses_this_role_alone() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    // A file in its place: nobody can make a directory of it, root neither.
    let directory = folder.path().join("deep");
    fs::write(&directory, "").expect("a file");
    let writer = Writer::new(&brokers);
    let mut site = Site::new(2);
    let daemon = Daemon::start_with(&brokers, &config(&directory.join("store")));
    daemon.wait_for("it says what is the matter", || {
        let health = daemon.get("/healthz").unwrap_or_default();
        health.contains("store: cannot make")
    });
    let start_ms = now_ms() / 1_000 * 1_000 - 30_000;
    for second in 0..30 {
        site.second(&writer, start_ms + second * 1_000);
    }
    writer.flush();
    daemon.wait_for("the other role goes on", || {
        daemon.metric("flowvitals_aggregator_windows_total") > 100.0
    });
    assert!(daemon.metric("flowvitals_store_paused_seconds_total") > 0.0);
    fs::remove_file(&directory).expect("away");
    daemon.wait_for("it catches up", || is_writing(&daemon));
    site.end(&writer);
    settle(&daemon, site.windows());
    daemon.stop();
    compare(&directory.join("store"), &site.truth);
}
