//! What must work on a kernel, as its marks say: one life of the sampler, a stream for each check.

use std::fs;

use anyhow::{Context, Result, ensure};
use lab::counters::TcpCounters;
use lab::guest::Marks;
use lab::network::{Network, Options};

use crate::Report;
use crate::attached::Attached;
use crate::last::{self, Last};
use crate::open::{self, Open};
use crate::sampler::{self, Sampler};
use crate::{clocks, exact, off, refused, rtt, stall, unit};

/// What all checks work with.
pub struct Bench {
    /// An edge and its players.
    pub network: Network,
    /// The sampler, in the edge's namespace.
    pub sampler: Sampler,
    /// Connections that were open before it, until their check has ended them.
    pub open: Option<Open>,
    /// What the edge's kernel had counted before it.
    pub before: TcpCounters,
}

/// Makes all checks; those after a sampler that does not start are left out.
pub fn run(report: &mut Report, marks: Marks) -> Result<()> {
    report.check("refuse", refused::run)?;
    report.check("doctor", || doctor(marks.kernel_mode))?;
    report.check("unit", || unit::run(marks.kernel_mode == "no_fold"))?;
    let mut bench = None;
    report.check("attach", || {
        let started = bench.insert(start()?);
        let kept = privileges(&started.sampler, marks.kernel_mode)?;
        Ok(format!("{}; {kept}", attached(&started.sampler)?.counts()))
    })?;
    let Some(mut bench) = bench else {
        return Ok(());
    };
    report.check("open", || open::run(&mut bench, marks.kernel_mode))?;
    report.check("exact", || exact::run(&mut bench))?;
    report.check("rtt", || rtt::run(&mut bench, marks.rtt_source))?;
    report.check("stall", || stall::run(&mut bench))?;
    report.check("clocks", || clocks::run(&mut bench))?;
    report.check("stop", || stop(&mut bench))?;
    report.check("off", || off::run(&mut bench))?;
    Ok(())
}

/// Each with ten ports.
pub fn tables(network: &Network, streams: &[(&str, u16)]) -> String {
    let (v4, v6) = (network.server_v4(), network.server_v6());
    let table = |(name, port): &(&str, u16)| {
        let last = port + 9;
        format!(
            "[[stream]]\nname = \"{name}\"\nrate = 1.0\nlocal = [\"{v4}:{port}-{last}\", \"[{v6}]:{port}-{last}\"]\n"
        )
    };
    streams.iter().map(table).collect()
}

/// It finds nothing that keeps the sampler from running, and says what this kernel lacks.
fn doctor(kernel_mode: &str) -> Result<String> {
    let (code, said, wrong) = sampler::ends(&["doctor"])?;
    ensure!(code == 0, "exit status {code}: {said}{wrong}");
    refused::no_dump(&said)?;
    let lacks_fold = kernel_mode == "no_fold";
    ensure!(
        said.contains("kernel_mode no_fold") == lacks_fold,
        "not the words of {kernel_mode}: {said}"
    );
    let found = said.lines().find(|line| line.contains("kernel side"));
    let found = found.with_context(|| format!("no word of the kernel side: {said}"))?;
    let words: Vec<_> = found.split_whitespace().collect();
    Ok(words.join(" "))
}

fn start() -> Result<Bench> {
    let network = Network::new(Options::default())?;
    let open = Open::start(&network)?;
    let before = TcpCounters::read(network.server())?;
    let streams = [
        open::STREAM,
        exact::STREAM,
        rtt::STREAM,
        stall::STREAM,
        clocks::STREAM,
        last::STREAM,
    ];
    let sampler = Sampler::start(network.server(), &tables(&network, &streams))?;
    Ok(Bench {
        network,
        sampler,
        open: Some(open),
        before,
    })
}

/// It has given all capabilities up but one that it needs to read.
fn privileges(sampler: &Sampler, kernel_mode: &str) -> Result<&'static str> {
    let (bits, words) = match kernel_mode {
        "no_fold" => (1 << 39, "CAP_BPF kept"),
        _ => (0, "no capability kept"),
    };
    let status = fs::read_to_string(format!("/proc/{}/status", sampler.pid()))?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        let line = status.lines().find_map(|line| line.strip_prefix(set));
        let found = line.map_or("", |line| line.trim_start_matches(':').trim());
        let found = u64::from_str_radix(found, 16)?;
        let allowed = match set {
            "CapPrm" | "CapEff" => bits,
            _ => 0,
        };
        ensure!(found == allowed, "{set} is {found:x}, not {allowed:x}");
    }
    Ok(words)
}

/// What a sampler holds of the kernel's objects.
pub fn attached(sampler: &Sampler) -> Result<Attached> {
    let mut text = String::new();
    for descriptor in fs::read_dir(format!("/proc/{}/fdinfo", sampler.pid()))? {
        // One that was closed meanwhile stands for nothing.
        text += &fs::read_to_string(descriptor?.path()).unwrap_or_default();
    }
    Attached::by(&text, &Attached::now())
}

/// Over all of its life the counters agree and the ledger adds up, flows that are open at the end included; after a stop nothing of it
/// is in the kernel.
fn stop(bench: &mut Bench) -> Result<String> {
    let open = Last::start(bench)?;
    let attached = attached(&bench.sampler)?;
    let retrans = |bench: &Bench| {
        let kernel = TcpCounters::read(bench.network.server())?.since(&bench.before);
        anyhow::Ok(kernel.data_retrans_segs())
    };
    let before = retrans(bench)?;
    bench.sampler.stop()?;
    let after = retrans(bench)?;
    attached.gone(|| Ok(Attached::now()))?;
    let busy_ms = open.end(bench)?;
    let sampler = &bench.sampler;
    let lost_reads = sampler.windows("").iter().map(|w| w.lost_reads).max();
    ensure!(lost_reads == Some(0), "{lost_reads:?} reads failed");
    let ours = sampler.sum("", |w| w.retrans_segs);
    // Open flows may retransmit while it stops.
    ensure!(
        (before..=after).contains(&ours),
        "retransmitted segments of all streams: {ours}, by the kernel {before} before the stop and {after} after it"
    );
    let last = sampler.heartbeat().context("no heartbeat")?;
    let selected = last.flows_sampled + last.flows_refused;
    let sampled = last.flows_closed + last.flows_open;
    ensure!(
        last.flows_selected == selected && last.flows_sampled + last.flows_picked_up == sampled,
        "the ledger does not add up: {last:?}"
    );
    ensure!(
        last.flows_open == last::FLOWS,
        "{} flows are open, not {}",
        last.flows_open,
        last::FLOWS
    );
    let windows = sampler.sum("", |w| w.flows_sampled);
    ensure!(
        windows == last.flows_sampled,
        "{windows} flows in windows, {} in the ledger",
        last.flows_sampled
    );
    Ok(format!(
        "nothing left of {}; all its life {ours} segments ({before} to {after}), {windows} flows; {busy_ms} ms busy of each open one folded last",
        attached.counts()
    ))
}
