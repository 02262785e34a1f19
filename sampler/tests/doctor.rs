//! `doctor` on this machine, with and without privileges.

use std::os::unix::process::CommandExt;
use std::process::Command;

use sampler::doctor::{Check, Essential, Level, LocalRule, Machine, Report, Subject, examine};

/// Set for the child that has given its privileges up.
const CHILD: &str = "FLOWVITALS_DOCTOR_TEST_CHILD";
/// An unprivileged user.
const NOBODY: u32 = 65534;

fn found<'a>(report: &'a Report, name: &str) -> &'a Check {
    report
        .checks
        .iter()
        .find(|check| check.name == name)
        .expect(name)
}

#[test]
fn finds_what_this_machine_has() {
    let machine = Machine::this();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listener");
    let port = listener.local_addr().expect("address").port();
    let rule = LocalRule {
        stream: "here".to_owned(),
        prefix: Some("127.0.0.0/8".parse().expect("prefix")),
        ports: port..=port,
    };
    let subject = Subject {
        rules: vec![rule],
        kafka: None,
        spool: None,
    };
    let trial = Check::no("load trial", "refused", "ask", Some(Essential::Kernel));
    let report = examine(&machine, Some(&subject), vec![trial]);
    println!("{report}");
    assert!(
        found(&report, "listeners")
            .found
            .contains(&format!("127.0.0.1:{port} -> here"))
    );
    assert_eq!(found(&report, "load trial").level, Level::No);
    assert_eq!(report.exit_code(), 69, "the trial's failure counts");
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("JSON");
    assert_eq!(
        json["checks"].as_array().map(Vec::len),
        Some(report.checks.len())
    );
    let without = examine(&machine, None, Vec::new());
    assert!(
        without
            .checks
            .iter()
            .all(|check| check.name != "listeners" && check.name != "kafka")
    );
}

#[test]
fn without_privileges_each_capability_is_named() {
    if std::env::var_os(CHILD).is_some() {
        let report = examine(&Machine::this(), None, Vec::new());
        for name in ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"] {
            let check = found(&report, name);
            assert_eq!(
                (check.level, check.essential),
                (Level::No, Some(Essential::Privilege)),
                "{check:?}"
            );
            assert!(
                check.todo.as_ref().is_some_and(|todo| todo.contains(name)),
                "{check:?}"
            );
        }
        // Where the kernel itself cannot do it, that comes first.
        let kernel = report
            .checks
            .iter()
            .any(|check| check.level == Level::No && check.essential == Some(Essential::Kernel));
        assert_eq!(report.exit_code(), if kernel { 69 } else { 77 });
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can start a process as another user");
        return;
    }
    let name = "without_privileges_each_capability_is_named";
    // The build's directory may be closed to others: the child runs a copy that it can read.
    let directory = tempfile::tempdir().expect("directory");
    let copy = directory.path().join("child");
    std::fs::copy(std::env::current_exe().expect("own path"), &copy).expect("copied");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).expect("opened");
    let child = Command::new(&copy)
        .args([name, "--exact"])
        .env(CHILD, "1")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    let child = child.expect("child");
    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stdout)
    );
}
