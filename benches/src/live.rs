//! Time of the sock_ops program for flows that play live video at 40 ms. Budget: 0.5 % of a core for
//! 1,000 sampled flows.
//!
//! A flow fetches a segment of four seconds at 6 Mbit/s as fast as it comes, then pauses until the
//! next. "net" is what is above an empty program that runs beside ours for the same events.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use lab::{
    network::{Link, Network, Options},
    traffic::{
        client::Client,
        plan::Plan,
        server::{Congestion, Listen, Server},
    },
};
use sampler::stage::counts::Counts;

use crate::{
    cgroup::Cgroup,
    floor::Floor,
    setup::{self, Stats},
};

const ONE_WAY: Duration = Duration::from_millis(20);
const FLOWS: usize = 40;
const SEGMENTS: u32 = 5;
const SEGMENT_S: u32 = 4;
const SEGMENT_BYTES: u64 = 6_000_000 / 8 * SEGMENT_S as u64;
/// Less than the length of a segment by about what fetching one takes.
const PAUSE: Duration = Duration::from_millis(3_500);

/// Prints the table.
pub fn run() -> Result<()> {
    let _stats = Stats::on()?;
    let options = Options {
        link: Link::Delay(ONE_WAY),
        ..Options::default()
    };
    let network = Network::new(options)?;
    let cgroup = Cgroup::new("server")?;
    println!(
        "{FLOWS} flows, all sampled, {SEGMENTS} segments of {SEGMENT_S} s and {SEGMENT_BYTES} bytes each; server ends only"
    );
    println!(
        "{:<8} {:>9} {:>14} {:>8} {:>8} {:>8} {:>26}",
        "", "RTT ms", "runs/(flow s)", "ns/run", "net", "empty", "% of a core per 1,000, net"
    );
    for (port, congestion) in [(8203, Congestion::Cubic), (8204, Congestion::Bbr)] {
        let server = SocketAddr::new(network.server_v4(), port);
        let mut probe = setup::load(&setup::plain(server)?)?;
        probe.attach(cgroup.path())?;
        let floor = Floor::attach(cgroup.path())?;
        let listen = Listen::new(server).with(congestion);
        let edge = cgroup.within(|| Ok(Server::start(network.server(), &[listen])?))?;
        let mut plan =
            Plan::new("live", FLOWS, vec![server]).asking(SEGMENTS, SEGMENT_BYTES, PAUSE);
        plan.start_spread = Duration::from_secs(SEGMENT_S.into());
        Client::start(network.client(), &[plan])?.wait()?;
        edge.stop()?;
        let flow_s = (FLOWS as u32 * SEGMENTS * SEGMENT_S) as f64;
        let (ns, runs) = setup::cost(&probe);
        let (floor_ns, floor_runs) = floor.cost();
        let per_run = |ns: u64, runs: u64| ns as f64 / runs.max(1) as f64;
        let empty = per_run(floor_ns, floor_runs);
        let counts = Counts::read_all(&probe, 0);
        let samples: u64 = counts.rtt().iter().sum();
        let rtt_ms = per_run(counts.counters().rtt_sum_us, samples) / 1e3;
        // ns a second and flow, times 1,000 flows, of 10^9 ns: in percent.
        let percent = |ns: f64| ns / flow_s * 1_000.0 / 1e9 * 100.0;
        println!(
            "{:<8} {:>9.1} {:>14.1} {:>8.1} {:>8.1} {:>8.1} {:>17.3}, {:>7.3}",
            congestion.name(),
            rtt_ms,
            runs as f64 / flow_s,
            per_run(ns, runs),
            per_run(ns, runs) - empty,
            empty,
            percent(ns as f64),
            percent(ns as f64 - empty * runs as f64)
        );
    }
    Ok(())
}
