//! The disable file takes the kernel side off under traffic: open flows are closed out, and nothing is left.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::checks::{self, Bench};
use crate::last;
use crate::netem::{self, Path};
use crate::sampler::{DISABLE_FILE, Sampler};

/// Another life of the sampler, after a stop.
pub fn run(bench: &mut Bench) -> Result<String> {
    netem::set(&bench.network, Path::delayed(Duration::from_millis(2)))?;
    let tables = checks::tables(&bench.network, &[last::STREAM]);
    bench.sampler = Sampler::start(bench.network.server(), &tables)?;
    let (server, client) = last::endless(bench)?;
    let sampler = &mut bench.sampler;
    sampler.wait_windows(1)?;
    let attached = checks::attached(sampler)?;
    fs::write(DISABLE_FILE, "")?;
    let mode = |sampler: &Sampler| sampler.heartbeat().map(|beat| beat.kernel_mode);
    sampler.wait_for("it is off", || mode(sampler).as_deref() == Some("disabled"))?;
    attached.gone()?;
    let beat = sampler.heartbeat().context("no heartbeat")?;
    ensure!(
        (beat.flows_sampled, beat.flows_closed) == (last::FLOWS, last::FLOWS),
        "not each of {} flows is closed out: {beat:?}",
        last::FLOWS
    );
    let read = sampler.sum(last::STREAM.0, |w| w.bytes_acked);
    ensure!(read > 0, "nothing was counted before");
    sampler.stop()?;
    client.stop()?;
    server.stop()?;
    Ok(format!(
        "{} flows closed out, nothing left of {}",
        last::FLOWS,
        attached.counts()
    ))
}
