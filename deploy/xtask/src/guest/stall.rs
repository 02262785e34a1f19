//! A blackout of a few seconds is one stall a flow, and the network's.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::clock;
use lab::traffic::client::Client;
use lab::traffic::plan::Plan;
use lab::traffic::server::{Listen, Server};

use crate::checks::Bench;
use crate::netem::{self, Path};
use crate::sampler::PATIENCE;

/// Name and first port.
pub const STREAM: (&str, u16) = ("stall", 8300);
const ONE_WAY: Duration = Duration::from_millis(20);
const FLOWS: usize = 8;
const DARK: Duration = Duration::from_secs(3);

/// Answers that never end, paced: at any time there is more to send.
pub fn run(bench: &mut Bench) -> Result<String> {
    let Bench {
        network, sampler, ..
    } = bench;
    let path = Path::delayed(ONE_WAY);
    netem::set(network, path)?;
    let server = SocketAddr::new(network.server_v4(), STREAM.1);
    let mut listen = Listen::new(server);
    listen.pacing_bytes_per_s = Some(100_000);
    let serving = Server::start(network.server(), &[listen])?;
    let plan = Plan::new("endless", FLOWS, vec![server]).asking(1, 20_000_000, Duration::ZERO);
    let client = Client::start(network.client(), &[plan])?;
    let sum = |of: fn(&sampler_event::StreamWindow) -> u64| sampler.sum(STREAM.0, of);
    sampler.wait_for("flows run", || sum(|w| w.flows_sampled) == FLOWS as u64)?;
    sampler.wait_windows(1)?;

    let start = clock::now();
    netem::set(network, path.dark())?;
    thread::sleep(DARK);
    netem::set(network, path)?;
    let dark = start.elapsed();
    let open = sampler
        .windows(STREAM.0)
        .iter()
        .map(|w| w.stalls_open)
        .max();
    ensure!(
        open == Some(FLOWS as u64),
        "{open:?} of {FLOWS} stalls were seen while they were open"
    );
    let going = || {
        let last = sampler.windows(STREAM.0);
        last.last()
            .is_some_and(|w| w.stalls_open == 0 && w.bytes_acked > 0)
    };
    // A retransmission that the dark swallowed doubles the wait for the next.
    ensure!(clock::wait_until(PATIENCE, going), "the stalls do not end");
    sampler.wait_windows(2)?;
    client.stop()?;
    serving.stop()?;
    sampler.wait_windows(1)?;

    let stalls = sum(|w| w.stalls);
    ensure!(stalls == FLOWS as u64, "{stalls} stalls of {FLOWS} flows");
    let network_us = sum(|w| w.stall_network_us);
    let others = [
        sum(|w| w.stall_receiver_us),
        sum(|w| w.stall_sender_us),
        sum(|w| w.stall_other_us),
    ];
    ensure!(
        others == [0; 3],
        "stalled for other causes (receiver, sender, other): {others:?} us"
    );
    let mean = Duration::from_micros(network_us / stalls);
    // What was on its way when it went dark still came; what was lost last is sent again after at most as long as it was dark, one
    // timer's rounding, and a round trip.
    let (least, most) = (
        dark.saturating_sub(3 * ONE_WAY),
        2 * dark + Duration::from_secs(1),
    );
    ensure!(
        (least..=most).contains(&mean),
        "{mean:?} a flow after {dark:?} of darkness"
    );
    Ok(format!(
        "{stalls} of {FLOWS} flows, {:.2} s each by the network after {:.2} s of darkness, seen while open",
        mean.as_secs_f64(),
        dark.as_secs_f64()
    ))
}
