//! Prints how often the detector and a rule cry wolf, how soon they see a change, and what a pulse costs:
//! `cargo run --release -p aggregator --example false_alarms -- --help`.
//!
//! Everything is drawn from the seed: the same options print the same numbers (but for the cost). Progress goes to stderr.

mod chance;
mod cost;
mod day;
mod delays;
mod flows;
mod node;
mod report;
mod streams;
mod world;

use clap::Parser;

pub use world::Setting;

/// Simulated false alarms and delays of the change detector.
#[derive(Debug, Parser)]
struct Options {
    /// Stream-days of the commonest kind; the others have their parts of it. 0: none.
    #[arg(long, default_value_t = 4)]
    days: u64,
    /// Changes of each kind. 0: none.
    #[arg(long, default_value_t = 100)]
    trials: usize,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Days have the seeds from here on, changes those from a million further on. The defaults were tuned on 0 to 99.
    #[arg(long, default_value_t = 1_000)]
    seed: u64,
}

fn main() {
    let options = Options::parse();
    cost::print();
    report::days(options.days, options.seed, options.jobs.max(1));
    report::delays(
        options.trials,
        options.seed + 1_000_000,
        options.jobs.max(1),
    );
}
