//! What the sampler costs, measured on this machine. Each bench prints a table; none asserts.
//!
//! `cargo xtask bench` runs all, `cargo xtask bench NAME` one. Needs root and BPF, but for `stage`,
//! `spool`, `event`, `merge`, `scaling` and `rebalance`; those with Kafka need Java and Maven. One file per budget; what they share comes first.

mod cgroup;
mod daemons;
mod floor;
mod interleaved;
mod loopback;
mod machine;
mod playing;
mod process;
mod setup;
mod site;
mod statistics;

#[path = "../../sampler/event/tests/it/fixture.rs"]
mod fixture;

mod bulk;
mod churn;
mod connections;
mod daemon;
mod event;
mod live;
mod merge;
mod onset;
mod program;
mod rebalance;
mod scaling;
mod spool;
mod stage;
mod walk;

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Benches, by name.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Bench {
    /// Time of the kernel program per run and per new connection.
    Program,
    /// Time of the kernel program per sampled flow that plays video at 40 ms.
    Live,
    /// CPU time per short connection: off, and attached at 0, 10 % and 100 %.
    Connections,
    /// CPU time per GB: off, and attached at 0, 10 % and 100 %.
    Bulk,
    /// The walk and the fold, per socket.
    Walk,
    /// CPU time and memory of the daemon with 200 streams and 10,000 sampled flows.
    Daemon,
    /// The window stage.
    Stage,
    /// The spool: events a second, start with a full one, share of the daemon's time.
    Spool,
    /// Events: encoding, decoding, bytes.
    Event,
    /// The merge on one core, decoding included, and its memory.
    Merge,
    /// Windows through Kafka with 1, 2 and 4 members; live data beside a backlog.
    Scaling,
    /// What a join, a leave and a death of a member cost, by protocol of the group.
    Rebalance,
    /// From the onset of loss to suspicion and page: players, samplers, Kafka, aggregator, Alertmanager.
    Onset,
    /// Half an hour of loss that does not change: every page is a false one. Not among `all`.
    Steady,
    /// An hour of connections that come and go: whether descriptors, map entries and memory stay flat. Not among `all`.
    Churn,
    /// All of them.
    All,
}

impl Bench {
    fn run(self, length: Option<Duration>) -> Result<()> {
        println!("\n{}: {} ({})", self.name(), self.budget(), machine::load());
        match self {
            Self::Program => program::run(),
            Self::Live => live::run(),
            Self::Connections => connections::run(),
            Self::Bulk => bulk::run(),
            Self::Walk => walk::run(),
            Self::Daemon => daemon::run(),
            Self::Stage => stage::run(),
            Self::Spool => spool::run(),
            Self::Event => event::run(),
            Self::Merge => merge::run(),
            Self::Scaling => scaling::run(),
            Self::Rebalance => rebalance::run(),
            Self::Onset => onset::onset(),
            Self::Steady => onset::steady(length),
            Self::Churn => churn::run(length.unwrap_or(churn::LENGTH)),
            Self::All => Ok(()),
        }
    }

    /// What the design allows.
    fn budget(self) -> &'static str {
        match self {
            Self::Program => {
                "at most 60 ns per connection that is not sampled under a plain rule, 250 per new one with every kind of rule"
            }
            Self::Live => "at most 0.5 % of a core for 1,000 sampled flows at 40 ms",
            Self::Connections => "on/off at most 1.005 at 10 %",
            Self::Bulk => "on/off at most 1.005 at 10 %",
            Self::Walk => "at most 2 % of a core",
            Self::Daemon => {
                "RSS at most 40 MiB beside the maps; kernel memory at most 64 MiB for 200 streams on 128 CPUs"
            }
            Self::Stage => "none of its own; part of the daemon's CPU time",
            Self::Spool => {
                "at least 50,000 events a second; start with a full one of 256 MiB at most 2 s; at most 2 % of the daemon's processor time"
            }
            Self::Event => "at most 640 bytes a window with 100 flows, 128 a pulse",
            Self::Merge => {
                "at least 200,000 windows a second and core, decoding included; memory stated and bounded"
            }
            Self::Scaling => {
                "200,000 windows a second and core, decoded; live data at most 2 s late beside a backlog of 10 minutes"
            }
            Self::Rebalance => "a dead member's streams are read again within 8 s",
            Self::Onset => {
                "suspect 0.5 s (p50), 1.5 s (p99); page 3 s where two nodes agree, else 2 s after the true total crosses"
            }
            Self::Steady => "no page",
            Self::Churn => "descriptors, map entries, RSS and kernel memory flat over an hour",
            Self::All => "",
        }
    }

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// What to run.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which bench.
    #[arg(value_enum, default_value = "all")]
    bench: Bench,
    /// How long `steady` and `churn` look; without it half an hour and an hour.
    #[arg(long, value_parser = minutes, value_name = "N")]
    minutes: Option<Duration>,
}

/// From so many, which may be a fraction.
fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    let length = Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| error.to_string())?;
    if length.is_zero() {
        return Err("must be above zero".to_owned());
    }
    Ok(length)
}

fn main() -> Result<()> {
    if let Some(member) = rebalance::member_to_kill() {
        return member;
    }
    let Arguments {
        bench: wanted,
        minutes: length,
    } = Arguments::parse();
    println!("{}", machine::describe()?);
    let all = Bench::value_variants().iter();
    let long = [Bench::All, Bench::Steady, Bench::Churn];
    for bench in all.filter(|b| wanted == **b || (wanted == Bench::All && !long.contains(b))) {
        bench.run(length)?;
    }
    Ok(())
}
