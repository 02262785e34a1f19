//! The daemon is killed at random instants, again and again; another life goes on from the last reference.
//!
//! A life is this test binary, run again with an environment that makes [`a_life`] live. What it counts is in a file that outlives
//! it, as the kernel's cells will: so it can be held against what arrived.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lab::environment::setting;
use rand::Rng;

use super::harness::*;

const STREAMS: usize = 20;

/// Files that outlive a life.
struct Place(PathBuf);

impl Place {
    fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }
    /// What was counted so far, one u64 a stream.
    fn counters(&self) -> PathBuf {
        self.0.join("counters")
    }
    /// What each life found of the one before: instance, committed edges, events at risk.
    fn found(&self) -> PathBuf {
        self.0.join("found")
    }
    /// There: the life closes its last window, sends everything and ends.
    fn last(&self) -> PathBuf {
        self.0.join("last")
    }
    fn running(&self) -> PathBuf {
        self.0.join("running")
    }

    fn count(&self) -> [u64; STREAMS] {
        let bytes = fs::read(self.counters()).unwrap_or_default();
        let mut counts = [0; STREAMS];
        for (count, bytes) in counts.iter_mut().zip(bytes.chunks_exact(8)) {
            *count = u64::from_le_bytes(bytes.try_into().expect("eight"));
        }
        counts
    }
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    let words = bytes.chunks_exact(8);
    words
        .map(|word| u64::from_le_bytes(word.try_into().expect("eight")))
        .collect()
}

/// Not a test of its own: the body of the processes that are killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_life() {
    let Some(place) = std::env::var_os("FLOWVITALS_TEST_LIFE") else {
        return;
    };
    let place = Place(place.into());
    let brokers = std::env::var("FLOWVITALS_TEST_BROKERS").expect("brokers");
    let brokers = brokers.split(',').map(str::to_owned).collect();
    let mut plan = Plan::new(brokers, STREAMS);
    plan.resume = true;
    plan.replay_events_per_s = 10_000;
    let mut node = plan.start(&place.spool());

    // Go on from the last reference: edges of that life, and what its windows had counted.
    let mut counted = vec![0u64; STREAMS];
    if let Some(reference) = &node.newest {
        let state = numbers(&reference.state);
        let (edges, counts) = state.split_first().expect("edges");
        counted.copy_from_slice(counts);
        let line = format!("{} {edges} {}\n", reference.instance, reference.at_risk);
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(place.found());
        let file = file.as_mut().expect("opened");
        file.write_all(line.as_bytes()).expect("written");
    }
    let counters = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(place.counters())
        .expect("counters");
    File::create(place.running()).expect("said");
    loop {
        let stop = place.last().exists();
        let mut counts = place.count();
        for (n, count) in counts.iter_mut().enumerate() {
            *count += rand::rng().random_range(0..1000);
            counters
                .write_all_at(&count.to_le_bytes(), n as u64 * 8)
                .expect("counted");
        }
        let mut state = vec![node.next + 1];
        state.extend(counts);
        let state = state.iter().flat_map(|n| n.to_le_bytes()).collect();
        let before = counted.clone();
        node.edge(|n| counts[n] - before[n], state);
        counted.copy_from_slice(&counts);
        if stop {
            break;
        }
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(1..15))).await;
    }
    let committed = format!("{} {} 0\n", node.instance, node.next);
    node.all_through().await;
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(place.found());
    let file = file.as_mut().expect("opened");
    file.write_all(committed.as_bytes()).expect("written");
    node.stop().await;
}

fn spawn(place: &Path, brokers: &str) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["kills::a_life", "--exact", "--nocapture"])
        .env("FLOWVITALS_TEST_LIFE", place)
        .env("FLOWVITALS_TEST_BROKERS", brokers)
        .stdout(Stdio::null())
        .stderr(File::create(place.join("log")).expect("a log"))
        .spawn()
        .expect("a life")
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_instants_nothing_is_lost_or_counted_twice() {
    let Some(cluster) = cluster(1).await else {
        return;
    };
    let mut seeded = Seeded::new();
    let kills = setting("FLOWVITALS_KILLS", 8);
    let folder = tempfile::tempdir().expect("a directory");
    let place = Place(folder.path().to_path_buf());
    for _ in 0..kills {
        let _ = fs::remove_file(place.running());
        let mut life = spawn(folder.path(), &cluster.brokers());
        until("a life", || place.running().exists()).await;
        let lived = seeded.random.random_range(0..600);
        tokio::time::sleep(Duration::from_millis(lived)).await;
        life.kill().expect("killed");
        life.wait().expect("dead");
    }
    File::create(place.last()).expect("said");
    let mut last = spawn(folder.path(), &cluster.brokers());
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = last.try_wait().expect("a life") {
            break status;
        }
        assert!(begin.elapsed() < PATIENCE, "the last life does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    assert!(status.success(), "{log}");

    let found = once(&arrivals(&cluster, TOPIC, 12));
    let counted: u64 = place.count().iter().sum();
    // What the lives said of themselves: edges that were committed, events that were in memory only.
    let lines = fs::read_to_string(place.found()).expect("lives");
    let mut committed = BTreeMap::new();
    let mut at_risk = 0u64;
    for line in lines.lines() {
        let numbers: Vec<u64> = line
            .split(' ')
            .map(|number| number.parse().expect("a number"))
            .collect();
        // A life that was killed before its first window leaves the reference of the one before.
        if committed.insert(numbers[0], numbers[1]).is_none() {
            at_risk += numbers[2];
        }
    }
    let produced: u64 = committed.values().sum::<u64>() * STREAMS as u64;
    let missing = produced - found.events;
    println!(
        "{kills} kills, {} lives with windows: {produced} windows, {} arrived, {} of them more than once, {missing} missing, \
         {at_risk} reported at risk; counted {counted}, arrived {}",
        committed.len(),
        found.events,
        found.doubles,
        found.bytes_sent
    );
    assert!(missing <= at_risk, "a gap that nobody reported");
    for ((instance, stream), sequences) in &found.sequences {
        let edges = committed.get(instance).expect("a life that somebody knows");
        let beyond = sequences
            .iter()
            .filter(|sequence| *sequence >= edges)
            .count();
        assert_eq!(beyond, 0, "{stream}: a window that is counted again");
        if at_risk == 0 {
            assert!(sequences.iter().copied().eq(0..*edges), "{stream}: a gap");
        }
    }
    if at_risk == 0 {
        assert_eq!(found.bytes_sent, counted);
    }
    assert!(found.bytes_sent <= counted);
}
