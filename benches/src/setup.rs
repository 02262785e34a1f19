//! A loaded kernel side, and the switch that measures it.

use std::{net::SocketAddr, os::fd::OwnedFd};

use anyhow::{Context, Result, anyhow};
use ebpf_abi::{control::Slot, hash::threshold, rules::StreamEntry};
use lab::{
    network::Network,
    traffic::{client::Client, plan::Plan},
};
use nix::sched::{CloneFlags, unshare};
use sampler::{
    config::{Config, RTT_SLOW_US},
    kernel::{memory::Size, probe::Probe, sys::bpf},
    rules::RuleSet,
    stage::{Kernel, streams::Order},
};

/// Flows followed at most, as a configuration's default has it.
const MAX_SAMPLED_FLOWS: u32 = 65_536;

/// One stream that takes every flow to `local`: the plain rule of a virtual address.
pub fn plain(local: SocketAddr) -> Result<Config> {
    Ok(Config::ad_hoc(&[local.to_string().parse()?], 1.0)?)
}

/// Loads, and takes flows as `config` says at its rates. Nothing is attached.
pub fn load(config: &Config) -> Result<Probe> {
    let cpus = std::thread::available_parallelism()?.get() as u32;
    let probe = Probe::load(Size::new(config.streams.len() as u32, cpus))?;
    probe.set_max_sampled_flows(MAX_SAMPLED_FLOWS);
    probe.begin_window(1);
    set_rules(&probe, config)?;
    Ok(probe)
}

/// New flows are taken as `config` says. A cgroup that a rule names is taken for one that is
/// there and that no flow is in.
pub fn set_rules(probe: &Probe, config: &Config) -> Result<()> {
    for (stream, settings) in config.streams.iter().enumerate() {
        let slot = Slot {
            rtt_slow_us: RTT_SLOW_US,
            live: 1,
        };
        probe.obey(&Order::Slot(stream as u32, slot));
        set_rate(probe, stream as u32, settings.rate);
    }
    let rules =
        RuleSet::new(&config.streams).compile(|stream| stream as u32, |_| Some(u64::MAX))?;
    probe.set_rules(&rules);
    Ok(())
}

/// New flows of a stream are sampled at `rate`.
pub fn set_rate(probe: &Probe, stream: u32, rate: f64) {
    // Stream and slot have the same number.
    let entry = StreamEntry::new(stream as u16, threshold(rate));
    probe.obey(&Order::Stream(stream, entry));
}

/// Starts players with a table of open files of their own: limits hold for each table, and both ends
/// of 10,000 connections may be too many for one.
pub fn players(network: &Network, plan: Plan) -> Result<Client> {
    let start = || {
        unshare(CloneFlags::CLONE_FILES)?;
        Ok(Client::start(network.client(), &[plan])?)
    };
    std::thread::scope(|scope| scope.spawn(start).join()).map_err(|_| anyhow!("no players"))?
}

/// `BPF_ENABLE_STATS` of bpf(2).
const ENABLE_STATS: libc::c_long = 32;
/// `BPF_STATS_RUN_TIME`
const RUN_TIME: u32 = 0;

/// The kernel measures programs while it lives, whatever `kernel.bpf_stats_enabled` says.
pub struct Stats {
    _hold: OwnedFd,
}

impl Stats {
    /// Turns it on.
    pub fn on() -> Result<Self> {
        let hold = bpf(ENABLE_STATS, &RUN_TIME).context("run time statistics")?;
        Ok(Self { _hold: hold })
    }
}

/// Run time in ns and runs of the sock_ops program.
pub fn cost(probe: &Probe) -> (u64, u64) {
    let costs = probe.costs();
    costs
        .iter()
        .find(|c| c.0 == "flowvitals")
        .map_or((0, 0), |c| (c.1, c.2))
}
