//! Connections that were open before the sampler: taken in and counted from then on, or, where the kernel cannot, said how many.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::clock;
use lab::counters::{self, TcpCounters};
use lab::network::Network;
use lab::traffic::client::Client;
use lab::traffic::plan::Plan;
use lab::traffic::server::{Listen, Server};

use crate::checks::Bench;
use crate::netem::{self, Path};
use crate::sampler::PATIENCE;

/// Name and first port.
pub const STREAM: (&str, u16) = ("open", 8400);
/// Of each address family.
const FLOWS: usize = 5;
const LOSS: Path = Path {
    delay: Duration::from_millis(2),
    loss_to_client_percent: 5,
    loss_to_server_percent: 0,
};

/// The connections, at work.
pub struct Open {
    server: Server,
    client: Client,
}

impl Open {
    /// Opens them; they go on for longer than a sampler takes to start.
    pub fn start(network: &Network) -> Result<Self> {
        let addresses = [network.server_v4(), network.server_v6()];
        let addresses = addresses.map(|address| SocketAddr::new(address, STREAM.1));
        let server = Server::start(network.server(), &addresses.map(Listen::new))?;
        let plan = Plan::new("open", 2 * FLOWS, addresses.to_vec()).asking(
            150,
            10_000,
            Duration::from_millis(100),
        );
        let client = Client::start(network.client(), &[plan])?;
        let open = clock::wait_until(PATIENCE, || server.open() == 2 * FLOWS);
        ensure!(open, "connections do not open");
        Ok(Self { server, client })
    }
}

/// Nothing is lost before the sampler has attached, so that all retransmissions are its to see.
pub fn run(bench: &mut Bench, kernel_mode: &str) -> Result<String> {
    let Bench {
        network,
        sampler,
        open,
        before,
    } = bench;
    let Open { server, client } = open.take().context("no connections were opened")?;
    sampler.wait_windows(1)?;
    ensure!(
        server.open() == 2 * FLOWS,
        "they ended before they could be taken in"
    );
    let followed = kernel_mode == "full";
    if followed {
        netem::set(network, LOSS)?;
    }
    let failed = client
        .wait()?
        .iter()
        .filter(|flow| flow.bytes_read == 0)
        .count();
    ensure!(failed == 0, "{failed} connections read nothing");
    ensure!(
        counters::wait_closed(network.server(), &[STREAM.1], PATIENCE)?,
        "they stay open"
    );
    server.stop()?;
    sampler.wait_windows(2)?;

    let now = TcpCounters::read(network.server())?;
    let by_kernel = now.since(before).data_retrans_segs();
    let last = sampler.heartbeat().context("no heartbeat")?;
    ensure!(
        last.kernel_mode == kernel_mode,
        "kernel_mode is {}, not {kernel_mode}",
        last.kernel_mode
    );
    let sum = |of: fn(&sampler_event::StreamWindow) -> u64| sampler.sum(STREAM.0, of);
    let flows = 2 * FLOWS as u64;
    let (taken, beyond, lost) = if followed {
        ensure!(by_kernel > 0, "nothing was lost");
        (flows, 0, by_kernel)
    } else {
        // What they may have retransmitted, on a CPU that was busy, is nobody's.
        *before = now;
        (0, flows, 0)
    };
    for (what, ours, theirs) in [
        ("flows_picked_up", sum(|w| w.flows_picked_up), taken),
        ("flows_closed", sum(|w| w.flows_closed), taken),
        ("flows_unreached", last.flows_unreached, beyond),
        ("retrans_segs", sum(|w| w.retrans_segs), lost),
    ] {
        ensure!(ours == theirs, "{what} is {ours}, not {theirs}");
    }
    Ok(format!(
        "{kernel_mode}: {taken} of {flows} flows taken in, {beyond} said to be out of reach; {lost} of {by_kernel} segments \
         retransmitted are theirs"
    ))
}
