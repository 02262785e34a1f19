//! The commands that start servers and speak with them. Started by `cargo xtask`, which builds it
//! once the C libraries that Kafka's client needs are there.

mod attached;
mod cassandra;
#[path = "../cli.rs"]
mod cli;
mod consumer;
mod demo;
mod interrupt;
mod kafka;
#[path = "../paths.rs"]
mod paths;
mod progress;
mod systemd;
mod vm;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use cli::{Arguments, Command};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Arguments::parse().command {
        Command::Demo(options) => demo::run(options),
        Command::SystemdTest(options) => systemd::run(options),
        Command::VmTest(options) => vm::run(&options),
        Command::Kafka(command) => kafka::run(command),
        Command::Cassandra(command) => cassandra::run(command),
        other => bail!("{other:?} is not for this program: use cargo xtask"),
    }
}
