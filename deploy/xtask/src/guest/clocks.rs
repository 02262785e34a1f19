//! A sampler that is suspended, and a wall clock that is set: one long window that says so, steps that are said, nothing twice, nothing
//! lost. A guest's clock is its own; on a host nobody may do this.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::counters::{self, TcpCounters};
use lab::traffic::client::Client;
use lab::traffic::plan::Plan;
use lab::traffic::server::{Listen, Server};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{ClockId, clock_gettime, clock_settime};
use nix::unistd::Pid;
use sampler_event::{Flag, StreamWindow};

use crate::checks::Bench;
use crate::netem::{self, Path};
use crate::sampler::{PATIENCE, Sampler};

/// Name and first port.
pub const STREAM: (&str, u16) = ("clocks", 8600);
const FLOWS: usize = 6;
const SUSPENDED: Duration = Duration::from_secs(30);
const HOUR_S: i64 = 3_600;
/// An hour forward, back and another hour back, and right again.
const STEPS_S: [i64; 3] = [HOUR_S, -2 * HOUR_S, HOUR_S];
/// A step is measured with what the kernel corrects meanwhile.
const STEP_TOLERANCE_MS: u64 = 500;

/// Flows play all the time.
pub fn run(bench: &mut Bench) -> Result<String> {
    let Bench {
        network, sampler, ..
    } = bench;
    netem::set(network, Path::LOSSY)?;
    let address = SocketAddr::new(network.server_v4(), STREAM.1);
    let before = TcpCounters::read(network.server())?;
    let server = Server::start(network.server(), &[Listen::new(address)])?;
    let plan = Plan::new("steady", FLOWS, vec![address]).asking(
        u32::MAX,
        10_000,
        Duration::from_millis(500),
    );
    let players = Client::start(network.client(), &[plan])?;
    let flows = || sampler.sum(STREAM.0, |w| w.flows_sampled) == FLOWS as u64;
    sampler.wait_for("flows run", flows)?;
    sampler.wait_windows(1)?;

    suspend(sampler)?;
    sampler.wait_windows(2)?;
    for step_s in STEPS_S {
        step(step_s)?;
        sampler.wait_windows(2)?;
    }

    players.stop()?;
    let closed = counters::wait_closed(network.server(), &[STREAM.1], PATIENCE)?;
    ensure!(closed, "flows stay open");
    sampler.wait_windows(2)?;
    let kernel = TcpCounters::read(network.server())?.since(&before);
    server.stop()?;
    let lost = kernel.data_retrans_segs();
    let ours = sampler.sum(STREAM.0, |w| w.retrans_segs);
    ensure!(
        lost > 0 && ours == lost,
        "retrans_segs is {ours}, not {lost}"
    );
    let windows = sampler.windows(STREAM.0);
    let long_ms = judge(&windows)?;
    Ok(format!(
        "{lost} = {lost} segments over {} windows, one of {long_ms} ms; {} steps of the clock said",
        windows.len(),
        STEPS_S.len()
    ))
}

fn suspend(sampler: &Sampler) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(sampler.pid())?);
    kill(pid, Signal::SIGSTOP)?;
    thread::sleep(SUSPENDED);
    kill(pid, Signal::SIGCONT)?;
    Ok(())
}

fn step(seconds: i64) -> Result<()> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
    clock_settime(ClockId::CLOCK_REALTIME, now + TimeSpec::seconds(seconds))
        .context("the wall clock")
}

/// Length of the long window, ms.
fn judge(windows: &[StreamWindow]) -> Result<u32> {
    for pair in windows.windows(2) {
        let [one, next] = pair else { continue };
        ensure!(
            next.sequence == one.sequence + 1,
            "sequence {} after {}",
            next.sequence,
            one.sequence
        );
    }
    let long = windows
        .iter()
        .filter(|w| u128::from(w.observed_ms) >= SUSPENDED.as_millis());
    let long: Vec<_> = long.collect();
    let [long] = long[..] else {
        anyhow::bail!("{} windows of {SUSPENDED:?}", long.len());
    };
    ensure!(
        long.flags & Flag::LateRead as u32 != 0 && long.missed_edges > 0,
        "the long window does not say so: {long:?}"
    );
    let steps: Vec<_> = windows
        .iter()
        .map(|w| w.clock_step_ms)
        .filter(|step| *step != 0)
        .collect();
    let wanted = STEPS_S.map(|seconds| seconds * 1_000);
    let near = |(step, wanted): (&i64, &i64)| step.abs_diff(*wanted) <= STEP_TOLERANCE_MS;
    ensure!(
        steps.len() == wanted.len() && std::iter::zip(&steps, &wanted).all(near),
        "steps of {steps:?} ms are said, not {wanted:?}"
    );
    Ok(long.observed_ms)
}
