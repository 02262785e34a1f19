//! Flows that are open when the sampler stops or is taken off are folded once more: what no callback has folded is counted too.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::traffic::client::Client;
use lab::traffic::plan::Plan;
use lab::traffic::server::{Listen, Server};

use crate::checks::Bench;
use crate::netem::{self, Path};

/// Name and first port.
pub const STREAM: (&str, u16) = ("last", 8500);
/// How many there are.
pub const FLOWS: u64 = 4;
/// Long enough that the retransmission timers have backed off: the next is further away than the stop takes.
const DARK: Duration = Duration::from_secs(3);

/// They are at work, and nothing is heard of their clients any more.
pub struct Last {
    server: Server,
    client: Client,
    /// Busy time that windows held before.
    busy_us: u64,
}

impl Last {
    /// In the dark no RTT sample comes, so nobody folds the busy time but the last fold.
    pub fn start(bench: &Bench) -> Result<Self> {
        let Bench {
            network, sampler, ..
        } = bench;
        let path = Path::delayed(Duration::from_millis(2));
        netem::set(network, path)?;
        let address = SocketAddr::new(network.server_v4(), STREAM.1);
        let mut listen = Listen::new(address);
        listen.pacing_bytes_per_s = Some(100_000);
        let server = Server::start(network.server(), &[listen])?;
        let plan = Plan::new("endless", FLOWS as usize, vec![address]).asking(
            1,
            20_000_000,
            Duration::ZERO,
        );
        let client = Client::start(network.client(), &[plan])?;
        sampler.wait_for("flows run", || {
            sampler.sum(STREAM.0, |w| w.flows_sampled) == FLOWS
        })?;
        sampler.wait_windows(1)?;
        netem::set(network, path.dark())?;
        thread::sleep(DARK);
        Ok(Self {
            server,
            client,
            busy_us: sampler.sum(STREAM.0, |w| w.busy_us),
        })
    }

    /// After the last fold: what it added, ms a flow.
    pub fn end(self, bench: &Bench) -> Result<u64> {
        let busy_us = bench.sampler.sum(STREAM.0, |w| w.busy_us) - self.busy_us;
        let each = Duration::from_micros(busy_us / FLOWS);
        // Some of the dark lies before the flows' last round trip.
        ensure!(
            each >= DARK.mul_f64(0.9),
            "busy for {each:?} a flow that no callback had folded, not for about {DARK:?}"
        );
        self.client.stop()?;
        self.server.stop()?;
        Ok(each.as_millis() as u64)
    }
}
