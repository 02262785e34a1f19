//! Thousands of short connections on one CPU: the server closes while acknowledgements come in,
//! so that callbacks of one flow interrupt those of another.

use std::{fs, net::SocketAddr, time::Duration};

use lab::{
    filter::{Selector, Towards},
    network::Options,
    traffic::{
        plan::{End, Plan},
        server::Listen,
    },
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::harness::{Observed, Sampler, all, network, observe, turn};

const CPU: usize = 0;
const FLOWS: usize = 12_000;
/// A response of one segment, so that bytes say how many segments of data were sent again.
const BYTES: u64 = 1_000;
/// At a time, of each kind. All packets of the link wait in one backlog of 1,000
/// (`net.core.netdev_max_backlog`): they must not overflow it, for the kernel counts a
/// transmission that fails on the spot once more when it is repeated.
const CONCURRENCY: usize = 60;

/// This thread, and those it starts, on one CPU until dropped.
struct Pinned(CpuSet);

impl Pinned {
    fn to(cpu: usize) -> Self {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this).expect("the affinity");
        let mut one = CpuSet::new();
        one.set(cpu).expect("a CPU number");
        sched_setaffinity(this, &one).expect("an affinity");
        Self(before)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // It was in force before; nothing follows from a refusal but a slower test.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}

/// Packets that found the CPU's backlog full: second column of its line, hexadecimal.
fn backlog_drops(cpu: usize) -> u64 {
    let text = fs::read_to_string("/proc/net/softnet_stat").expect("softnet_stat");
    let line = text.lines().nth(cpu).expect("a line for the CPU");
    let column = line.split_whitespace().nth(1).expect("a second column");
    u64::from_str_radix(column, 16).expect("a hexadecimal number")
}

/// The run with this share of the server's packets lost, all of it on one CPU.
fn hammer(port: u16, loss: f64) -> Option<Observed> {
    let _turn = turn()?;
    let mut network = network(Options {
        client_addresses: 4,
        ..Options::default()
    });
    let address = SocketAddr::new(network.server_v4(), port);
    let sampler = Sampler::start(network.server(), &all(&[address]));
    network
        .set_loss(Towards::Client, &Selector::default(), loss)
        .expect("loss");
    // The server closes right after its last write, while that is being acknowledged; or when
    // the client, which has read everything, asks for it.
    let plans = [("at once", End::HalfClose), ("asked", End::ServerFin)].map(|(name, end)| {
        let mut plan = Plan::new(name, FLOWS / 2, vec![address])
            .asking(1, BYTES, Duration::ZERO)
            .ending(end);
        plan.clients = network.clients_v4();
        plan.concurrency = CONCURRENCY;
        plan
    });
    let dropped = backlog_drops(CPU);
    let pinned = Pinned::to(CPU);
    let seen = observe(&network, sampler, &[Listen::new(address)], &plans);
    drop(pinned);
    let dropped = backlog_drops(CPU) - dropped;
    assert_eq!(seen.report.accepted(), FLOWS);
    seen.assert_exact();
    // TCPOrigDataSent counts every FIN that goes by itself, which `data_segs_out` does not; and
    // `data_segs_out` counts retransmits of data, of which each is a whole response.
    let fins = FLOWS as u64;
    let data_retrans = seen.events.sum("all", "bytes_retrans") / BYTES;
    assert_eq!(
        seen.events.sum("all", "data_segs_out"),
        seen.kernel.orig_data_sent - fins + data_retrans,
        "{dropped} packets found the backlog full; {:?}",
        seen.kernel
    );
    println!(
        "{FLOWS} flows, {} segments of data, {} segments retransmitted, {} of them data; \
         {dropped} packets found the backlog full",
        seen.events.sum("all", "data_segs_out"),
        seen.kernel.data_retrans_segs(),
        data_retrans
    );
    Some(seen)
}

#[test]
fn closes_against_acknowledgements_lose_no_add() {
    hammer(8126, 0.0);
}

#[test]
fn nor_do_closes_that_are_retransmitted() {
    if let Some(seen) = hammer(8127, 0.02) {
        assert!(seen.kernel.data_retrans_segs() > 0, "nothing was lost");
    }
}
