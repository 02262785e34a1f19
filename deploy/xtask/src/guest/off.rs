//! The disable file takes the kernel side off while flows are open: each is folded once more and closed out, and nothing is left.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::attached::Attached;
use crate::checks::{self, Bench};
use crate::last::{self, Last};
use crate::sampler::{DISABLE_FILE, Sampler};

/// Another life of the sampler, after a stop.
pub fn run(bench: &mut Bench) -> Result<String> {
    let tables = checks::tables(&bench.network, &[last::STREAM]);
    bench.sampler = Sampler::start(bench.network.server(), &tables)?;
    let open = Last::start(bench)?;
    let sampler = &bench.sampler;
    let attached = checks::attached(sampler)?;
    fs::write(DISABLE_FILE, "")?;
    let mode = || sampler.heartbeat().map(|beat| beat.kernel_mode);
    sampler.wait_for("it is off", || mode().as_deref() == Some("disabled"))?;
    attached.gone(|| Ok(Attached::now()))?;
    let beat = sampler.heartbeat().context("no heartbeat")?;
    ensure!(
        (beat.flows_sampled, beat.flows_closed) == (last::FLOWS, last::FLOWS),
        "not each of {} flows is closed out: {beat:?}",
        last::FLOWS
    );
    let busy_ms = open.end(bench)?;
    bench.sampler.stop()?;
    Ok(format!(
        "{} flows closed out, each with {busy_ms} ms folded last; nothing left of {}",
        last::FLOWS,
        attached.counts()
    ))
}
