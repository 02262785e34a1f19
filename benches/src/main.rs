//! What the sampler costs, measured on this machine. Each bench prints a table; none asserts.
//!
//! `cargo xtask bench` runs all, `cargo xtask bench NAME` one. Needs root and BPF.

mod connections;
mod program;
mod setup;
mod walk;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Benches, by name.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bench {
    /// Nanoseconds per run of the kernel program, by what it runs for.
    Program,
    /// Time per short connection: off, and attached at 0, 10 % and 100 %, interleaved.
    Connections,
    /// The walk and the fold, per socket.
    Walk,
    /// All of them.
    All,
}

/// What to run.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which bench.
    #[arg(value_enum, default_value = "all")]
    bench: Bench,
}

fn main() -> Result<()> {
    let release = sampler::kernel::load::kernel_release();
    let cpus = std::thread::available_parallelism()?;
    println!("machine: kernel {release}, {cpus} CPUs");
    match Arguments::parse().bench {
        Bench::Program => program::run(),
        Bench::Connections => connections::run(),
        Bench::Walk => walk::run(),
        Bench::All => {
            program::run()?;
            connections::run()?;
            walk::run()
        }
    }
}
