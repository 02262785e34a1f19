//! The role that stores, as the built daemon: killed at any moment, held up by its directory, taken over. What is in the store is
//! what was produced, to the last window.

use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use lab::clock::unix_ms;
use lab::environment::setting;
use rand::Rng;

use crate::broker_with_topics;
use crate::daemon::Daemon;
use crate::produced::{STREAMS, Site, compare};
use crate::writer::Writer;

pub fn config(directory: &Path) -> String {
    format!("[store]\nkind = \"embedded\"\ndirectory = {directory:?}\n")
}

fn store_role(brokers: &str, directory: &Path) -> Daemon {
    Daemon::start_as(brokers, "roles = [\"store\"]\n", &config(directory))
}

pub fn is(daemon: &Daemon, condition: &str) -> bool {
    let metrics = daemon.get("/metrics").unwrap_or_default();
    let now = format!("flowvitals_store_condition{{condition=\"{condition}\"}} 1\n");
    metrics.contains(&now)
}

pub fn is_writing(daemon: &Daemon) -> bool {
    daemon.get("/healthz").as_deref() == Some("ok\n")
        && is(daemon, "writing")
        && daemon
            .log()
            .contains("-store\" role=\"streams\" partitions=12")
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

/// The same, and ends the daemon: its files can be opened.
pub fn settle_and_stop(daemon: Daemon, windows: u64) {
    settle(&daemon, windows);
    daemon.stop();
}

/// `FLOWVITALS_STORE_KILLS` and `FLOWVITALS_STORE_SEED` change how often and when.
#[test]
fn killed_at_any_moment_it_neither_loses_nor_doubles_a_window() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let kills = setting("FLOWVITALS_STORE_KILLS", 6);
    let seed = setting("FLOWVITALS_STORE_SEED", unix_ms());
    println!("seed {seed}, {kills} kills");
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("store");
    let writer = Writer::new(&brokers);
    let mut site = Site::new(seed);
    // Event time goes faster than the clock, from the past: minutes close too.
    let mut start_ms = unix_ms() / 60_000 * 60_000 - 3 * 3_600_000;
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
    settle_and_stop(store_role(&brokers, &directory), site.windows());
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
    let start_ms = unix_ms() / 60_000 * 60_000 - 3_600_000;
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
            health.starts_with("ok, standby: ")
                && is(standby, "standby")
                && standby.log().contains("stands by")
        });
    }
    println!("{}", same.get("/healthz").unwrap_or_default());
    println!("{}", elsewhere.get("/healthz").unwrap_or_default());
    drop(elsewhere);
    play(&mut site);
    assert!(
        !first.log().contains("flowvitals-alert"),
        "one role was asked for:\n{}",
        first.log()
    );
    drop(first);
    play(&mut site);
    same.wait_for("it took over", || is_writing(&same));
    play(&mut site);
    site.end(&writer);
    settle_and_stop(same, site.windows());
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
    let start_ms = unix_ms() / 1_000 * 1_000 - 30_000;
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
    settle_and_stop(daemon, site.windows());
    compare(&directory.join("store"), &site.truth);
}
