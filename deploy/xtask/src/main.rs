//! The project's own commands: `cargo xtask …`.
//!
//! Every command says what it is about to change, cleans up after itself, and exits with 0 only
//! when it did all of it.

mod ebpf;
mod paths;
mod process;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "flowvitals: the project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the kernel side, or prove that the committed object comes from its source.
    #[command(subcommand)]
    Ebpf(Ebpf),
}

#[derive(Subcommand)]
enum Ebpf {
    /// Compile ebpf/ and write ebpf/prebuilt/probe.bpf.o with its sha256.
    Build,
    /// Rebuild in a copy of the tree and compare with the committed object, bit for bit.
    Verify,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Ebpf(Ebpf::Build) => ebpf::build(),
        Command::Ebpf(Ebpf::Verify) => ebpf::verify(),
    }
}
