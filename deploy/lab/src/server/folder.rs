//! What a server's folder tells: which processes run in it, and how they are ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Kind;
use crate::clock;

/// How long a node may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(30);
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A new folder whose name says whose it is.
pub(super) fn of_this_process(kind: Kind) -> PathBuf {
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    kind.work_folder()
        .join(format!("lab-{}-{n}", std::process::id()))
}

/// Ends and removes servers of lab processes that live no more.
pub(crate) fn remove_orphans(kind: Kind) {
    let Ok(entries) = fs::read_dir(kind.work_folder()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if owner(&name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            kill_all(kind, &entry.path());
            // Another process may be removing it at the same time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The process id inside a folder's name.
fn owner(name: &str) -> Option<u32> {
    let (pid, _) = name.strip_prefix("lab-")?.split_once('-')?;
    pid.parse().ok()
}

/// Whether a node of `folder` is running.
pub(crate) fn is_running(kind: Kind, folder: &Path) -> bool {
    !living(kind, folder).is_empty()
}

/// Ends the server that runs in `folder`: SIGTERM to all its nodes, SIGKILL to those that live
/// after 30 s. How many there were.
pub fn stop_in(kind: Kind, folder: &Path) -> usize {
    let ours = living(kind, folder);
    for pid in &ours {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGTERM);
    }
    clock::wait_until(PATIENCE, || {
        ours.iter().all(|pid| !lives(kind, *pid, folder))
    });
    kill_all(kind, folder);
    ours.len()
}

fn kill_all(kind: Kind, folder: &Path) {
    for pid in living(kind, folder) {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// The processes of the nodes below `folder` that run.
fn living(kind: Kind, folder: &Path) -> Vec<i32> {
    let mut pids = written(folder);
    pids.retain(|pid| lives(kind, *pid, folder));
    pids
}

/// The process ids that the nodes below `folder` wrote down.
fn written(folder: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("pid")).ok())
        .filter_map(|text| text.trim().parse().ok())
        .collect()
}

/// Whether this process is a node of `folder`: process ids are used again.
fn lives(kind: Kind, pid: i32, folder: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    line.contains(kind.class) && line.contains(&*folder.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_is_no_node_of_ours() {
        let kind = Kind {
            name: "kafka",
            class: "kafka.Kafka",
        };
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!lives(kind, own, Path::new("/")));
    }

    #[test]
    fn the_owner_is_read_from_our_names_only() {
        assert_eq!(owner("lab-41-3"), Some(41));
        assert_eq!(owner("lab-x-3"), None);
        assert_eq!(owner("dev"), None);
    }
}
