//! A kernel on which everything must work: one life of the sampler, a stream for each check.

use std::fs;

use anyhow::{Context, Result, ensure};
use lab::counters::TcpCounters;
use lab::network::{Network, Options};

use crate::Report;
use crate::attached::Attached;
use crate::sampler::{self, Sampler};
use crate::{exact, rtt, stall};

/// What all checks work with.
pub struct Bench {
    /// An edge and its players.
    pub network: Network,
    /// The sampler, in the edge's namespace.
    pub sampler: Sampler,
    /// What the edge's kernel had counted before it.
    before: TcpCounters,
}

/// Makes all checks; those after a sampler that does not start are left out.
pub fn run(report: &mut Report, rtt_source: &str) -> Result<()> {
    report.check("doctor", doctor)?;
    let mut bench = None;
    report.check("attach", || {
        let started = bench.insert(start()?);
        Ok(attached(&started.sampler)?.counts())
    })?;
    let Some(mut bench) = bench else {
        return Ok(());
    };
    report.check("exact", || exact::run(&mut bench))?;
    report.check("rtt", || rtt::run(&mut bench, rtt_source))?;
    report.check("stall", || stall::run(&mut bench))?;
    report.check("stop", || stop(&mut bench))?;
    Ok(())
}

/// It finds nothing that keeps the sampler from running.
fn doctor() -> Result<String> {
    let (code, said, wrong) = sampler::ends(&["doctor"])?;
    ensure!(code == 0, "exit status {code}: {said}{wrong}");
    let found = said.lines().find(|line| line.contains("kernel side"));
    let found = found.with_context(|| format!("no word of the kernel side: {said}"))?;
    let words: Vec<_> = found.split_whitespace().collect();
    Ok(words.join(" "))
}

fn start() -> Result<Bench> {
    let network = Network::new(Options::default())?;
    let before = TcpCounters::read(network.server())?;
    let (v4, v6) = (network.server_v4(), network.server_v6());
    let streams = [exact::STREAM, rtt::STREAM, stall::STREAM].map(|(name, port)| {
        let last = port + 9;
        format!(
            "[[stream]]\nname = \"{name}\"\nrate = 1.0\nlocal = [\"{v4}:{port}-{last}\", \"[{v6}]:{port}-{last}\"]\n"
        )
    });
    let sampler = Sampler::start(network.server(), &streams.concat())?;
    Ok(Bench {
        network,
        sampler,
        before,
    })
}

fn attached(sampler: &Sampler) -> Result<Attached> {
    let mut text = String::new();
    for descriptor in fs::read_dir(format!("/proc/{}/fdinfo", sampler.pid()))? {
        // One that was closed meanwhile stands for nothing.
        text += &fs::read_to_string(descriptor?.path()).unwrap_or_default();
    }
    Attached::by(&text)
}

/// Over all of its life the counters agree and the ledger adds up; after a stop nothing of it is in the kernel.
fn stop(bench: &mut Bench) -> Result<String> {
    let attached = attached(&bench.sampler)?;
    bench.sampler.stop()?;
    attached.gone()?;
    let sampler = &bench.sampler;
    let kernel = TcpCounters::read(bench.network.server())?.since(&bench.before);
    let (ours, theirs) = (
        sampler.sum("", |w| w.retrans_segs),
        kernel.data_retrans_segs(),
    );
    ensure!(
        ours == theirs,
        "retransmitted segments of all streams: {ours}, by the kernel {theirs}"
    );
    let last = sampler.heartbeat().context("no heartbeat")?;
    let selected = last.flows_sampled + last.flows_refused;
    let sampled = last.flows_closed + last.flows_open;
    ensure!(
        last.flows_selected == selected && last.flows_sampled + last.flows_picked_up == sampled,
        "the ledger does not add up: {last:?}"
    );
    let windows = sampler.sum("", |w| w.flows_sampled);
    ensure!(
        windows == last.flows_sampled,
        "{windows} flows in windows, {} in the ledger",
        last.flows_sampled
    );
    Ok(format!(
        "nothing left of {}; all its life {ours} = {theirs} segments, {windows} flows",
        attached.counts()
    ))
}
