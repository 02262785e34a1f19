//! The shipped systemd unit, held against what was promised of it.

use lab::unit::Unit;

const CAPABILITIES: &str = "CAP_BPF CAP_PERFMON CAP_NET_ADMIN";
const PROGRAM: &str = env!("CARGO_BIN_EXE_flowvitals-sampler");

fn unit() -> Unit {
    Unit::shipped("flowvitals-sampler.service").expect("the unit")
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
        ("SuccessExitStatus", "75"),
        ("RestartForceExitStatus", "75"),
        ("StateDirectory", "flowvitals"),
        ("RuntimeDirectory", "flowvitals"),
        ("FileDescriptorStoreMax", "32"),
        ("CPUQuota", "50%"),
        ("CPUWeight", "50"),
        ("MemoryHigh", "384M"),
        ("MemoryMax", "512M"),
        ("OOMScoreAdjust", "1000"),
        ("TasksMax", "64"),
        ("ExecReload", "/bin/sh -c \"kill -HUP $MAINPID\""),
    ] {
        assert_eq!(unit.settings(name), [expected], "{name}");
    }
    // The default lets go of the kernel side at a stop.
    assert!(unit.settings("FileDescriptorStorePreserve").is_empty());
    // Each of these keeps BPF from working.
    assert!(unit.settings("PrivateUsers").is_empty());
    let calls = unit.settings("SystemCallFilter");
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
    let Some(output) = unit().security(20) else {
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
    let directory = tempfile::tempdir().expect("directory");
    let verified = unit().verify(PROGRAM, directory.path()).expect("written");
    let Some(output) = verified else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn an_unknown_setting_would_be_seen() {
    let directory = tempfile::tempdir().expect("directory");
    let wrong = unit().with("WatchdogSec", "WatchdogSeconds");
    let verified = wrong.verify(PROGRAM, directory.path()).expect("written");
    let Some(output) = verified else {
        return;
    };
    assert!(String::from_utf8_lossy(&output.stderr).contains("WatchdogSeconds"));
}
