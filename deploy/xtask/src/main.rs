//! The project's own commands: `cargo xtask …`.
//!
//! Every command says what it is about to change, cleans up after itself, and exits with 0 only
//! when it did all of it. This program needs nothing but a compiler to build; what speaks with
//! servers is the second program, `xtask-stack`, which this one builds once the set-up is done.

mod api;
mod cli;
mod ebpf;
mod package;
mod paths;
mod process;
mod setup;
mod tally;
mod test;
mod tools;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use nix::unistd::Uid;

use cli::{Arguments, Command, Ebpf};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        // The report is on the screen already.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was right.
fn run() -> Result<bool> {
    match Arguments::parse().command {
        Command::Setup => setup::run()?,
        Command::Ebpf(Ebpf::Build) => ebpf::build()?,
        Command::Ebpf(Ebpf::Verify) => ebpf::verify()?,
        Command::Test => return test::run(),
        Command::Api => {
            setup::run()?;
            api::run()?;
        }
        Command::Package(options) => {
            setup::run()?;
            package::run(&options)?;
        }
        Command::SystemdTest(options) => {
            setup::run()?;
            let profile = package::Profile::of(!options.release);
            package::run_for_trial(profile)?;
            as_root(&profile.folder().join("xtask-stack"))?;
        }
        Command::VmTest(_) => {
            setup::run()?;
            package::build_for_guests()?;
            let program = package::Profile::Dev.folder().join("xtask-stack");
            process::go_on_as(std::process::Command::new(program).args(arguments()))?;
        }
        Command::Bench(bench) => bench_of(&bench.name, bench.minutes.as_deref())?,
        Command::Demo(_) => {
            println!(
                "The demo takes about two minutes once everything is built (some minutes the first time). It makes two\n\
                 network namespaces with a packet filter inside them, starts nginx, Kafka and Alertmanager in them, loads\n\
                 an eBPF program at the root cgroup, and takes all of it away at the end."
            );
            setup::run()?;
            println!("building the sampler and the aggregator");
            let both = ["--package", "sampler", "--package", "aggregator"];
            process::run(process::cargo().args(["build", "--release"]).args(both))?;
            stack(true)?;
        }
        Command::Kafka(_) | Command::Cassandra(_) => {
            setup::run()?;
            stack(false)?;
        }
    }
    Ok(true)
}

/// Coverage of intervals is an example of the crate that computes them; the rest are benches.
fn bench_of(name: &str, minutes: Option<&str>) -> Result<()> {
    if name != "coverage" {
        let release = ["build", "--release", "--package"];
        // One of them measures the daemon as an operator has it.
        process::run(process::cargo().args(release).args([
            "sampler",
            "--package",
            "aggregator",
            "--package",
            "benches",
        ]))?;
        let program = paths::target().join("release/benches");
        let mut bench = std::process::Command::new(program);
        bench.arg(name);
        bench.args(minutes.iter().flat_map(|minutes| ["--minutes", minutes]));
        process::run(&mut bench)?;
    }
    if matches!(name, "coverage" | "all") {
        println!("\ncoverage of intervals");
        let example = [
            "run",
            "--release",
            "--package",
            "sampler-event",
            "--example",
            "coverage",
        ];
        process::run(process::cargo().args(example))?;
    }
    Ok(())
}

/// Builds the program that speaks with servers and hands it our arguments, as root if it must be.
fn stack(needs_root: bool) -> Result<()> {
    println!("building the servers' side");
    process::run(process::cargo().args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "xtask",
        "--features",
        "stack",
        "--bin",
        "xtask-stack",
    ]))?;
    let program = paths::target().join("release/xtask-stack");
    match needs_root {
        true => as_root(&program),
        false => process::go_on_as(std::process::Command::new(program).args(arguments())),
    }
}

/// Goes on as a program of root's, with our arguments.
fn as_root(program: &Path) -> Result<()> {
    if Uid::effective().is_root() {
        return process::go_on_as(std::process::Command::new(program).args(arguments()));
    }
    let mut sudo = std::process::Command::new("sudo");
    sudo.arg("env");
    // What the program needs to find its tools and the target directory.
    for name in ["CARGO_TARGET_DIR", "JAVA_HOME"] {
        if let Ok(value) = std::env::var(name) {
            sudo.arg(format!("{name}={value}"));
        }
    }
    // Root's tools lie where a user's PATH may not look.
    let path = std::env::var("PATH").unwrap_or_default();
    sudo.arg(format!("PATH={path}:/usr/sbin:/sbin"));
    process::go_on_as(sudo.arg(program).args(arguments()))
}

fn arguments() -> impl Iterator<Item = OsString> {
    std::env::args_os().skip(1)
}
