//! The shipped systemd unit, held against what was promised of it.

use lab::unit::Unit;

const PROGRAM: &str = env!("CARGO_BIN_EXE_flowvitals-aggregator");

fn unit() -> Unit {
    Unit::shipped("flowvitals-aggregator.service").expect("the unit")
}

#[test]
fn says_what_was_promised() {
    let unit = unit();
    for (name, expected) in [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("WatchdogSec", "60"),
        ("DynamicUser", "yes"),
        ("AmbientCapabilities", ""),
        ("CapabilityBoundingSet", ""),
        ("RestartPreventExitStatus", "2 69 77 78"),
        ("StateDirectory", "flowvitals-aggregator"),
    ] {
        assert_eq!(unit.settings(name), [expected], "{name}");
    }
    // The file that is handed over is the one that is read.
    let command = unit.settings("ExecStart");
    assert_eq!(
        command,
        ["/usr/bin/flowvitals-aggregator run --config %d/aggregator.toml"]
    );
    let handed = unit.settings("LoadCredential");
    assert_eq!(handed, ["aggregator.toml:/etc/flowvitals/aggregator.toml"]);
}

#[test]
fn exposure_is_one_and_a_half_or_less() {
    let Some(output) = unit().security(15) else {
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
