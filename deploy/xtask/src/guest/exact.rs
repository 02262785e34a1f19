//! What the windows add up to is what the kernel and the server counted, to the segment and the byte.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::counters::TcpCounters;
use lab::traffic;
use lab::traffic::plan::{End, Plan};
use lab::traffic::server::{Congestion, Listen};

use crate::checks::Bench;
use crate::netem::{self, Path};

/// Name and first port.
pub const STREAM: (&str, u16) = ("exact", 8100);
/// Of each kind.
const FLOWS: usize = 6;

/// Loss in both directions; IPv4 and IPv6, two congestion controls that every kernel has built in, closed from both ends.
pub fn run(bench: &mut Bench) -> Result<String> {
    let Bench {
        network, sampler, ..
    } = bench;
    netem::set(network, Path::LOSSY)?;
    let mut listens = Vec::new();
    let mut plans = Vec::new();
    for (port, congestion) in [
        (STREAM.1, Congestion::Cubic),
        (STREAM.1 + 1, Congestion::Reno),
    ] {
        for address in [network.server_v4(), network.server_v6()] {
            let server = SocketAddr::new(address, port);
            listens.push(Listen::new(server).with(congestion));
            let long = Plan::new("long", FLOWS, vec![server]).asking(
                4,
                60_000,
                Duration::from_millis(300),
            );
            let short = Plan::new("short", FLOWS, vec![server])
                .asking(1, 20_000, Duration::ZERO)
                .ending(End::ServerFin);
            plans.extend([long, short]);
        }
    }
    let before = TcpCounters::read(network.server())?;
    let report = traffic::run(network, &listens, &plans)?;
    sampler.wait_windows(2)?;
    let kernel = TcpCounters::read(network.server())?.since(&before);

    ensure!(
        report.failed() == 0,
        "connections failed: {:?}",
        report.groups
    );
    let (flows, written) = (report.accepted() as u64, report.bytes_written());
    let sum = |of: fn(&sampler_event::StreamWindow) -> u64| sampler.sum(STREAM.0, of);
    let lost = kernel.data_retrans_segs();
    ensure!(lost > 0, "nothing was lost");
    for (what, ours, theirs) in [
        ("flows_seen", sum(|w| w.flows_seen), flows),
        ("flows_sampled", sum(|w| w.flows_sampled), flows),
        ("flows_closed", sum(|w| w.flows_closed), flows),
        ("retrans_segs", sum(|w| w.retrans_segs), lost),
        ("bytes_acked", sum(|w| w.bytes_acked), written),
        (
            "bytes_sent less bytes_retrans",
            sum(|w| w.bytes_sent) - sum(|w| w.bytes_retrans),
            written,
        ),
    ] {
        ensure!(ours == theirs, "{what} is {ours}, not {theirs}");
    }
    let (syn, kernels) = (sum(|w| w.syn_retrans), kernel.syn_retrans);
    ensure!(
        syn <= kernels,
        "syn_retrans is {syn}, the kernel's {kernels}"
    );
    Ok(format!(
        "{flows} flows: {lost} = {lost} segments retransmitted ({kernels} more of handshakes), {written} = {written} bytes acked"
    ))
}
