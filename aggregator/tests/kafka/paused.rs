//! Who does not go on slows nobody, and goes on where it was: a process that is stopped, a disk that is full.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use lab::environment::setting;
use nix::sys::signal::Signal;

use crate::broker_with_topics;
use crate::daemon::Daemon;
use crate::play::Play;
use crate::produced::compare;
use crate::store::{config, is_writing, settle_and_stop};

/// Half of them take no longer.
fn median(mut waits: Vec<Duration>) -> Duration {
    waits.sort_unstable();
    waits.get(waits.len() / 2).copied().unwrap_or_default()
}

/// `FLOWVITALS_PAUSE_S` changes for how long.
#[test]
fn a_stopped_consumer_slows_nobody_and_says_that_it_is_late() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let pause = Duration::from_secs(setting("FLOWVITALS_PAUSE_S", 12));
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("store");
    let play = Play::start_calm(&brokers, 3);
    let paused = Daemon::start_with(&brokers, &config(&directory));
    // Of other groups.
    let other = Daemon::start_in("other", &brokers, "", "");
    paused.wait_for("it stores", || is_writing(&paused));
    other.wait_for("the other merges and stores", || is_writing(&other));
    let merged = || other.metric("flowvitals_aggregator_windows_total");
    let stored = || {
        let of = |outcome| other.metric_of("flowvitals_store_windows_total", ("outcome", outcome));
        of("merged") + of("late")
    };
    thread::sleep(Duration::from_secs(5));
    let before = play.waits();

    paused.signal(Signal::SIGSTOP);
    thread::sleep(pause);
    let during = play.waits();
    let confirmed = play.confirmed() as f64;
    other.wait_for("the others have all", || {
        merged() >= confirmed && stored() >= confirmed
    });
    paused.signal(Signal::SIGCONT);
    println!(
        "a second's windows confirmed in {:.1} ms before, {:.1} ms while a consumer was stopped for {} s",
        median(before).as_secs_f64() * 1e3,
        median(during).as_secs_f64() * 1e3,
        pause.as_secs()
    );
    paused.wait_for("it says how late it is", || {
        paused.log().contains(" s behind, catches up")
    });
    paused.wait_for("it has caught up", || {
        paused.log().contains("store: has caught up")
            && paused.get("/healthz").as_deref() == Some("ok\n")
    });
    let log = paused.log();
    let word = log
        .lines()
        .find(|line| line.contains(" s behind"))
        .unwrap_or_default();
    println!("{word}");
    let site = play.stop();
    settle_and_stop(paused, site.windows());
    compare(&directory, &site.truth);
    other.stop();
}

/// A disk of its own, until it is dropped.
struct Disk(PathBuf);

impl Disk {
    /// None where this user may not mount.
    fn mount(at: &Path, megabytes: u64) -> Option<Self> {
        fs::create_dir(at).expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(at)
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(at.to_path_buf()))
    }

    /// Fills it to the last byte; the file that does.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).expect("a file");
        let zeros = vec![0; 1 << 16];
        while file.write_all(&zeros).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is left is gone with the machine.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_pauses_the_store_and_nothing_is_lost() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = Disk::mount(&folder.path().join("disk"), 200) else {
        println!("skipped: this user may not mount");
        return;
    };
    let directory = disk.0.join("store");
    let play = Play::start_calm(&brokers, 4);
    let daemon = Daemon::start_with(&brokers, &config(&directory));
    daemon.wait_for("it stores", || {
        is_writing(&daemon) && daemon.metric("flowvitals_store_rows_written_total") > 0.0
    });
    let filler = disk.fill();
    daemon.wait_for("it says what is the matter", || {
        let health = daemon.get("/healthz").unwrap_or_default();
        health.contains("store: ")
    });
    println!("{}", daemon.get("/healthz").unwrap_or_default());
    let merged = "flowvitals_aggregator_windows_total";
    let (before, confirmed) = (daemon.metric(merged), play.confirmed());
    daemon.wait_for("the other role goes on", || {
        daemon.metric(merged) > before + 100.0 && play.confirmed() > confirmed
    });
    fs::remove_file(filler).expect("away");
    daemon.wait_for("it writes again", || is_writing(&daemon));
    let site = play.stop();
    settle_and_stop(daemon, site.windows());
    compare(&directory, &site.truth);
}
