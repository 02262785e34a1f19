//! `cargo xtask test`: everything, step by step, and one line of counts at the end.
//!
//! The kernel tests mostly wait, so whatever needs none of our tests runs beside them.
//! A step's output lies below target/xtask-test/ and is shown when it fails. With CI=true the
//! tests that need the kernel may not skip.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
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

/// The test that waits most: the other steps run beside it.
const KERNEL: &str = "kernel";

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
    let mut beside = beside()?;
    let mut tally = all(static_checks(), &logs)?;
    // The sampler cannot start in its machine where no program can be loaded.
    if no_ebpf.is_none() || strict {
        beside.push(Step::new("systemd", of_ours(&["systemd-test"])?));
        beside.push(Step::new("churn", churn()));
    } else {
        println!("systemd, churn: skipped");
        tally.skipped += 2;
    }
    let (kernel, others) = tests(strict)?;
    let both = thread::scope(|scope| {
        let beside = scope.spawn(|| all(beside, &logs));
        let kernel = all(vec![kernel], &logs);
        [
            kernel,
            beside.join().unwrap_or_else(|_| bail!("a step broke")),
        ]
    });
    for lane in both {
        tally = tally.plus(lane?);
    }
    tally = tally.plus(all(others, &logs)?);
    println!("{tally}");
    Ok(tally.failed == 0)
}

/// One after the other.
fn all(steps: Vec<Step>, logs: &Path) -> Result<Tally> {
    steps.into_iter().try_fold(Tally::default(), |tally, step| {
        Ok(tally.plus(perform(step, logs)?))
    })
}

/// A command of cargo for everything that is ours.
fn of_everything(command: &str) -> Command {
    let mut cargo = process::cargo();
    cargo.args([
        command,
        "--workspace",
        "--features",
        "xtask/manual,xtask/stack",
    ]);
    cargo
}

/// What is seen in the source, and the build of the tests.
fn static_checks() -> Vec<Step> {
    let mut format = process::cargo();
    format.args(["fmt", "--all", "--check"]);
    let mut lint = of_everything("clippy");
    lint.args(["--all-targets", "--", "--deny", "warnings"]);
    let mut docs = of_everything("doc");
    docs.arg("--no-deps");
    docs.env("RUSTDOCFLAGS", "--deny warnings");
    let mut build = of_everything("test");
    build.arg("--no-run");
    let mut bench = of_everything("build");
    bench.args(["--bin", "benches"]);
    let named = [
        ("format", format),
        ("lints", lint),
        ("docs", docs),
        ("build", build),
        ("bench", bench),
    ];
    named.map(|(name, command)| Step::new(name, command)).into()
}

/// The kernel tests, and all others.
fn tests(strict: bool) -> Result<(Step, Vec<Step>)> {
    let step = |name: &str, targets: &[String]| {
        let mut tests = of_everything("test");
        tests.arg("--no-fail-fast").args(targets);
        tests.args(["--", "--show-output"]);
        if strict {
            tests.env("FLOWVITALS_REQUIRE_KERNEL", "1");
        }
        Step {
            is_tests: true,
            ..Step::new(name, tests)
        }
    };
    let test = |name: &str| ["--test".to_owned(), name.to_owned()];
    let mut others: Vec<_> = ["--lib", "--bins"].map(str::to_owned).into();
    let named = test_targets()?;
    others.extend(
        named
            .iter()
            .filter(|name| *name != KERNEL)
            .flat_map(|name| test(name)),
    );
    let kernel = step("tests-kernel", &test(KERNEL));
    let rest = vec![
        step("tests", &others),
        step("tests-doc", &["--doc".to_owned()]),
    ];
    Ok((kernel, rest))
}

/// Names of the integration tests of all packages.
fn test_targets() -> Result<BTreeSet<String>> {
    let mut cargo = process::cargo();
    cargo.args(["metadata", "--no-deps", "--format-version", "1"]);
    let output = cargo.stderr(Stdio::inherit()).output()?;
    let all: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let each = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let targets = each(&all["packages"])
        .into_iter()
        .flat_map(|package| each(&package["targets"]));
    let tests = targets.filter(|target| target["kind"][0] == "test");
    let names: BTreeSet<_> = tests
        .filter_map(|target| Some(target["name"].as_str()?.to_owned()))
        .collect();
    ensure!(names.contains(KERNEL), "no test {KERNEL} among {names:?}");
    Ok(names)
}

/// What runs beside the kernel tests.
fn beside() -> Result<Vec<Step>> {
    let mut steps = vec![
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

/// The first minute of the long life.
fn churn() -> Command {
    let mut command = Command::new("nice");
    command.arg(paths::target().join("debug/benches"));
    command.args(["churn", "--minutes", "1"]);
    command
}

/// Another command of this program. It gives way to the tests beside it.
fn of_ours(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new("nice");
    command.arg(std::env::current_exe()?).args(arguments);
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
