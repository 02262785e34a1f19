//! The shipped systemd unit, held against what was promised of it.

use std::path::{Path, PathBuf};
use std::process::Command;

const CAPABILITIES: &str = "CAP_BPF CAP_PERFMON CAP_NET_ADMIN";

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/systemd")
        .join(file)
}

fn unit() -> String {
    std::fs::read_to_string(shipped("flowvitals-sampler.service")).expect("the unit")
}

fn settings(unit: &str, name: &str) -> Vec<String> {
    let prefix = format!("{name}=");
    unit.lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .map(str::to_owned)
        .collect()
}

/// Runs systemd-analyze, which needs no systemd as first process; none where it is not installed.
fn analyze(arguments: &[&str]) -> Option<std::process::Output> {
    match Command::new("systemd-analyze").args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: systemd-analyze: {error}");
            None
        }
    }
}

#[test]
fn says_what_was_promised() {
    let unit = unit();
    for (name, expected) in [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("WatchdogSec", "60"),
        ("User", "flowvitals"),
        ("AmbientCapabilities", CAPABILITIES),
        ("CapabilityBoundingSet", CAPABILITIES),
        ("RestartPreventExitStatus", "2 69 77 78"),
        ("StateDirectory", "flowvitals"),
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
    ] {
        assert_eq!(settings(&unit, name), [expected], "{name}");
    }
    // Each of these keeps BPF from working.
    assert!(settings(&unit, "PrivateUsers").is_empty());
    let calls = settings(&unit, "SystemCallFilter");
    let last = calls.last().expect("a filter");
    for call in ["bpf", "perf_event_open", "capset"] {
        assert!(
            last.split(' ').any(|allowed| allowed == call),
            "{call} is not allowed at the end: {calls:?}"
        );
    }
}

#[test]
fn exposure_is_two_or_less() {
    let unit = shipped("flowvitals-sampler.service");
    let unit = unit.to_str().expect("path");
    let Some(output) = analyze(&["security", "--offline=yes", "--threshold=20", unit]) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let overall = text
        .lines()
        .find(|line| line.contains("Overall exposure level"));
    assert!(
        output.status.success(),
        "{overall:?} {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn verifies_clean() {
    // The daemon is not installed where this runs: this build's binary stands in for the path.
    let unit = unit().replace(
        "/usr/bin/flowvitals-sampler",
        env!("CARGO_BIN_EXE_flowvitals-sampler"),
    );
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("flowvitals-sampler.service");
    std::fs::write(&path, unit).expect("written");
    let Some(output) = analyze(&[
        "verify",
        "--recursive-errors=no",
        path.to_str().expect("path"),
    ]) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn an_unknown_setting_would_be_seen() {
    let unit = unit().replace(
        "/usr/bin/flowvitals-sampler",
        env!("CARGO_BIN_EXE_flowvitals-sampler"),
    );
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("flowvitals-sampler.service");
    std::fs::write(&path, unit.replace("WatchdogSec", "WatchdogSeconds")).expect("written");
    let Some(output) = analyze(&[
        "verify",
        "--recursive-errors=no",
        path.to_str().expect("path"),
    ]) else {
        return;
    };
    assert!(String::from_utf8_lossy(&output.stderr).contains("WatchdogSeconds"));
}
