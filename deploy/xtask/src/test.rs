//! `cargo xtask test`: everything, step by step, and one line of counts at the end.
//!
//! A step's output lies below target/xtask-test/ and is shown when it fails. With CI=true the
//! tests that need the kernel may not skip.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::unistd::Uid;

use crate::tally::{self, Tally};
use crate::{paths, process, setup};

/// Lines of a failed step's output that are shown at most; the rest is in its file.
const SHOWN_LINES: usize = 200;
/// Highest exposure of a unit, in tenths.
const EXPOSURE_TENTHS: u32 = 15;
/// Units that may be exposed more: the sampler needs capabilities.
const MORE_EXPOSED_TENTHS: [(&str, u32); 1] = [("flowvitals-sampler", 20)];

struct Step {
    name: String,
    command: Command,
    is_tests: bool,
}

/// Runs all steps, also after a failure; whether all of them passed.
pub fn run() -> Result<bool> {
    setup::run()?;
    let strict = std::env::var("CI").is_ok_and(|value| value == "true");
    let no_ebpf = why_no_ebpf();
    if let Some(reason) = no_ebpf {
        println!("kernel tests cannot run here: {reason}; the rest runs");
    }
    let logs = paths::target().join("xtask-test");
    fs::create_dir_all(&logs)?;
    let mut tally = Tally::default();
    for step in steps(strict)? {
        tally = tally.plus(perform(step, &logs)?);
    }
    // The sampler cannot start in its machine where no program can be loaded.
    if no_ebpf.is_none() || strict {
        let step = Step::new("systemd", of_ours(&["systemd-test"])?);
        tally = tally.plus(perform(step, &logs)?);
    } else {
        println!("systemd: skipped");
        tally.skipped += 1;
    }
    println!("{tally}");
    Ok(tally.failed == 0)
}

fn steps(strict: bool) -> Result<Vec<Step>> {
    let everything = ["--workspace", "--features", "xtask/manual,xtask/stack"];
    let mut format = process::cargo();
    format.args(["fmt", "--all", "--check"]);
    let mut lint = process::cargo();
    lint.arg("clippy").args(everything).arg("--all-targets");
    lint.args(["--", "--deny", "warnings"]);
    let mut docs = process::cargo();
    docs.arg("doc").args(everything).arg("--no-deps");
    docs.env("RUSTDOCFLAGS", "--deny warnings");
    let mut tests = process::cargo();
    tests.arg("test").args(everything).arg("--no-fail-fast");
    tests.args(["--", "--show-output"]);
    if strict {
        tests.env("FLOWVITALS_REQUIRE_KERNEL", "1");
    }
    let mut steps = vec![
        Step::new("format", format),
        Step::new("lints", lint),
        Step::new("docs", docs),
        Step {
            is_tests: true,
            ..Step::new("tests", tests)
        },
        Step::new("api", of_ours(&["api"])?),
        Step::new("ebpf-verify", of_ours(&["ebpf", "verify"])?),
        // The oldest kernel that must do everything, and the newest.
        Step::new("vm", of_ours(&["vm-test", "--kernels", "6.1,newest"])?),
    ];
    for unit in units()? {
        let name = unit.file_stem().unwrap_or_default().to_string_lossy();
        let unit = checkable(&unit)?;
        let analyze = |arguments: &[&str]| {
            let mut command = Command::new("systemd-analyze");
            command.args(arguments).arg(&unit);
            command
        };
        let verify = ["verify", "--man=no", "--recursive-errors=no"];
        let threshold = format!("--threshold={}", exposure_tenths(&name));
        let security = ["security", "--offline=yes", &threshold];
        steps.push(Step::new(format!("verify-{name}"), analyze(&verify)));
        steps.push(Step::new(format!("security-{name}"), analyze(&security)));
    }
    Ok(steps)
}

/// Another command of this program.
fn of_ours(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}

impl Step {
    fn new(name: impl Into<String>, command: Command) -> Self {
        Self {
            name: name.into(),
            command,
            is_tests: false,
        }
    }
}

/// How much a unit may be exposed.
fn exposure_tenths(unit: &str) -> u32 {
    let more = MORE_EXPOSED_TENTHS.iter().find(|(name, _)| *name == unit);
    more.map_or(EXPOSURE_TENTHS, |(_, tenths)| *tenths)
}

/// The unit files that we ship.
fn units() -> Result<Vec<PathBuf>> {
    let folder = paths::root().join("deploy/systemd");
    let mut units = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "service") {
            units.push(path);
        }
    }
    units.sort();
    Ok(units)
}

/// A copy of the unit whose program exists: verify wants that, and ours is not installed here.
fn checkable(unit: &Path) -> Result<PathBuf> {
    let folder = paths::target().join("xtask-test/units");
    fs::create_dir_all(&folder)?;
    let copy = folder.join(unit.file_name().context("a unit without a name")?);
    let present = std::env::current_exe()?;
    let text = fs::read_to_string(unit)?;
    let lines = text.lines().map(|line| {
        let command = line.strip_prefix("ExecStart=/usr/bin/flowvitals-");
        match command.and_then(|command| command.split_once(' ')) {
            Some((_, arguments)) => format!("ExecStart={} {arguments}", present.display()),
            None => line.to_owned(),
        }
    });
    fs::write(&copy, lines.collect::<Vec<_>>().join("\n") + "\n")?;
    Ok(copy)
}

/// Runs one step with a line of progress; its counts.
fn perform(mut step: Step, logs: &Path) -> Result<Tally> {
    println!("{} …", step.name);
    let start = Instant::now();
    let log = logs.join(format!("{}.log", step.name));
    let file = File::create(&log)?;
    let status = step
        .command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status();
    let output = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let (passed, why) = match status {
        Ok(status) => (status.success(), status.to_string()),
        Err(error) => (false, format!("cannot start it: {error}")),
    };
    let tally = match step.is_tests {
        true => tests_tally(&output, passed),
        false => Tally::step(passed),
    };
    let seconds = start.elapsed().as_secs_f64();
    if passed {
        println!("{}: {tally} in {seconds:.1} s", step.name);
    } else {
        let shown = tally::failures(&output, SHOWN_LINES);
        println!("{shown}");
        println!(
            "{}: failed ({why}) after {seconds:.1} s; all of it: {}",
            step.name,
            log.display()
        );
    }
    Ok(tally)
}

/// A run that failed without a failed test (it did not compile) is a failure of its own.
fn tests_tally(output: &str, passed: bool) -> Tally {
    let tally = Tally::of_tests(output);
    if passed || tally.failed > 0 {
        tally
    } else {
        tally.plus(Tally::step(false))
    }
}

/// What keeps eBPF from being loaded here, as far as it shows without trying.
fn why_no_ebpf() -> Option<&'static str> {
    if !Uid::effective().is_root() {
        return Some("loading programs needs root");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this kernel has no BTF (/sys/kernel/btf/vmlinux)");
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let has_cgroup2 = mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("cgroup2"));
    (!has_cgroup2).then_some("no cgroup v2 is mounted")
}
