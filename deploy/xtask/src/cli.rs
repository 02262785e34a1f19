//! The words of `cargo xtask`, shared by its two programs.

use clap::{Args, Parser, Subcommand};

/// flowvitals: the project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it at work: an edge with 1,400 players on a lossy network, the sampler, a real Kafka.
    Demo(Demo),
    /// Check and test everything, with the set-up that it needs.
    Test,
    /// Try the aggregator's HTTP interface with what its OpenAPI document allows and forbids (schemathesis).
    Api,
    /// Measure what the sampler costs on this machine, and print tables.
    Bench(Bench),
    /// Install the system packages that building, testing and the demo need.
    Setup,
    /// Build the kernel side, or prove that the committed object comes from its source.
    #[command(subcommand)]
    Ebpf(Ebpf),
    /// A real Kafka cluster on this machine's loopback, for development.
    #[command(subcommand)]
    Kafka(Kafka),
}

/// Options of the demo.
#[derive(Args, Clone, Copy, Debug)]
pub struct Demo {
    /// Leave everything running at the end, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
}

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct Bench {
    /// program, live, connections, bulk, walk, daemon, stage, event, coverage or all.
    #[arg(default_value = "all")]
    pub name: String,
}

/// What to do with the kernel side.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Ebpf {
    /// Compile ebpf/ and write ebpf/prebuilt/probe.bpf.o with its sha256.
    Build,
    /// Rebuild in a copy of the tree and compare with the committed object, bit for bit.
    Verify,
}

/// What to do with Kafka.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Kafka {
    /// Start brokers on 127.0.0.1:19092, 19102, … and apply the declared topics.
    Up {
        /// How many.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
        brokers: u8,
    },
    /// End them and remove their data.
    Down,
}
