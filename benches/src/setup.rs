//! An attached kernel side with one stream, and short traffic to it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ebpf_abi::{control::Slot, hash::threshold, rules::StreamEntry};
use lab::{
    network::Network,
    traffic::{self, plan::Plan, server::Listen},
};
use sampler::{
    config::Config,
    kernel::{cgroup, memory::Size, probe::Probe},
    rules::RuleSet,
    stage::{Kernel, streams::Order},
};

/// Loads and attaches; flows to `local` are sampled at `rate`.
pub fn attach(local: &[SocketAddr], rate: f64) -> Result<Probe> {
    let mut probe = Probe::load(Size::new(1, 2))?;
    let patterns: Vec<_> = local
        .iter()
        .map(|a| a.to_string().parse())
        .collect::<Result<_, _>>()?;
    let config = Config::ad_hoc(&patterns, 1.0)?;
    let rules = RuleSet::new(&config.streams).compile(|_| 0, |_| None)?;
    let slot = Slot {
        rtt_slow_us: 200_000,
        live: 1,
    };
    probe.set_max_sampled_flows(65_536);
    probe.begin_window(1);
    probe.obey(&Order::Slot(0, slot));
    probe.obey(&Order::Stream(0, StreamEntry::new(0, threshold(rate))));
    probe.set_rules(&rules);
    probe.attach(&cgroup::mount().context("no cgroup v2 file system")?)?;
    Ok(probe)
}

/// Opens and closes `connections` connections of 1 kB each; how long they took.
pub fn short(network: &Network, server: SocketAddr, connections: usize) -> Result<Duration> {
    let mut plan = Plan::new("short", connections, vec![server]).asking(1, 1000, Duration::ZERO);
    plan.concurrency = 50;
    let begin = Instant::now();
    traffic::run(network, &[Listen::new(server)], &[plan])?;
    Ok(begin.elapsed())
}

/// `kernel.bpf_stats_enabled` while it lives; put back when dropped.
pub struct Stats(String);

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Stats {
    /// Turns it on.
    pub fn on() -> Result<Self> {
        let before = std::fs::read_to_string(STATS)?;
        std::fs::write(STATS, "1")?;
        Ok(Self(before))
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        // Nothing can be done about an error here; the value is a debugging aid.
        let _ = std::fs::write(STATS, &self.0);
    }
}

/// Run time and runs of the sock_ops program.
pub fn cost(probe: &Probe) -> (u64, u64) {
    let costs = probe.costs();
    costs
        .iter()
        .find(|c| c.0 == "flowvitals")
        .map_or((0, 0), |c| (c.1, c.2))
}
