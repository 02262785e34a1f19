//! Other sock_ops programs beside ours: both get what they asked for, and one that takes our
//! callbacks away is seen.

use std::{net::SocketAddr, time::Duration};

use lab::{
    counters::{self, TcpCounters},
    filter::{Selector, Towards},
    network::{Network, Options},
    traffic::{
        self,
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};

use crate::{
    foreign::{Foreign, Manners},
    harness::{
        Observed, PATIENCE, Sampler, all, at_rest, http_get, network, number, observe, turn,
    },
};

const FLOWS: u64 = 40;
const REQUESTS: u32 = 4;
/// Of each flow, in all.
const BYTES: u64 = 160_000;

/// Segments that are lost: what the client then acknowledges has options, which only the slow path of the kernel's receiver parses.
pub fn lossy(port: u16) -> (Network, SocketAddr) {
    let mut network = network(Options::default());
    network
        .set_loss(Towards::Client, &Selector::default(), 0.05)
        .expect("loss");
    let address = SocketAddr::new(network.server_v4(), port);
    (network, address)
}

fn plan(address: SocketAddr) -> Plan {
    Plan::new("beside", FLOWS as usize, vec![address]).asking(
        REQUESTS,
        BYTES / u64::from(REQUESTS),
        Duration::from_millis(100),
    )
}

/// Both have what they asked for: it a callback for each segment that came in, we everything.
fn assert_both(seen: &Observed, theirs: &Foreign) {
    assert!(seen.kernel.data_retrans_segs() > 0, "nothing was lost");
    seen.assert_exact();
    assert_eq!(theirs.established(), FLOWS);
    // The server got a request and an acknowledgement of each response at least.
    assert!(
        theirs.callbacks() >= FLOWS * u64::from(REQUESTS),
        "{}",
        theirs.callbacks()
    );
    for heartbeat in seen.events.of_type("node") {
        assert_eq!(number(heartbeat, "flows_unhooked"), 0, "{heartbeat}");
    }
    println!(
        "{} callbacks for the other, {} segments retransmitted",
        theirs.callbacks(),
        seen.kernel.data_retrans_segs()
    );
}

#[test]
fn flags_that_were_there_stay() {
    let Some(_turn) = turn() else { return };
    let (network, address) = lossy(8128);
    // It keeps nobody's flags, but there are none yet when its turn comes.
    let theirs = Foreign::attach(address.port(), Manners::Rude);
    let sampler = Sampler::start(network.server(), &all(&[address]));
    let listens = [Listen::new(address)];
    let seen = observe(&network, sampler, &listens, &[plan(address)]);
    assert_both(&seen, &theirs);
}

#[test]
fn flags_that_come_later_are_no_harm() {
    let Some(_turn) = turn() else { return };
    let (network, address) = lossy(8129);
    let sampler = Sampler::start(network.server(), &all(&[address]));
    let theirs = Foreign::attach(address.port(), Manners::Polite);
    let listens = [Listen::new(address)];
    let seen = observe(&network, sampler, &listens, &[plan(address)]);
    assert_both(&seen, &theirs);
}

/// Flows that lose our callbacks as they begin are seen so while they are open, and folded all
/// the same; then they stay open to the last fold, or close before it.
fn unhooked(port: u16, close: bool) {
    let Some(_turn) = turn() else { return };
    let (network, address) = lossy(port);
    let sampler = Sampler::start(network.server(), &all(&[address]));
    let theirs = Foreign::attach(port, Manners::Rude);
    let before = TcpCounters::read(network.server()).expect("counters");
    let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
    let mut plan = plan(address);
    plan.hold = Duration::from_secs(120);
    let client = Client::start(network.client(), &[plan]).expect("clients");
    let kernel = at_rest(&network, &server, FLOWS as usize).since(&before);
    sampler.wait_for("all are seen to be unhooked", |s| {
        let events = s.events();
        let beat = events.of_type("node").last();
        beat.is_some_and(|beat| number(beat, "flows_unhooked") == FLOWS)
    });
    let metrics = http_get(network.server(), "/metrics");
    let gauge = format!("\nflowvitals_flows_unhooked {FLOWS}\n");
    assert!(metrics.contains(&gauge), "{metrics}");
    sampler.wait_for("they are folded", |s| {
        s.events().sum("all", "bytes_acked") == FLOWS * BYTES
    });
    let said = "another sock_ops program took our callbacks away";
    assert_eq!(sampler.log().matches(said).count(), 1, "{}", sampler.log());
    if close {
        client.stop().expect("clients");
        let closed = counters::wait_closed(network.server(), &[port], PATIENCE);
        assert!(closed.expect("sockets"), "flows stay open");
        sampler.wait_windows(2);
    }
    let events = sampler.stop();
    assert_eq!(theirs.established(), FLOWS);
    assert!(kernel.data_retrans_segs() > 0, "nothing was lost");
    assert_eq!(events.sum("all", "flows_seen"), FLOWS);
    assert_eq!(events.sum("all", "flows_sampled"), FLOWS);
    assert_eq!(events.sum("all", "bytes_acked"), FLOWS * BYTES);
    assert_eq!(
        events.sum("all", "retrans_segs"),
        kernel.data_retrans_segs()
    );
    let unhooked = number(events.last_heartbeat(), "flows_unhooked");
    assert_eq!(unhooked, if close { 0 } else { FLOWS });
    // Not the causes of retransmissions: only callbacks tell them.
    events.assert_ledger();
}

#[test]
fn flows_without_our_callbacks_are_seen_and_folded() {
    unhooked(8130, false);
}

#[test]
fn flows_that_close_without_our_callbacks_are_not_counted_twice() {
    unhooked(8131, true);
}

/// Flows that end without our callbacks fill the table only until the walk has missed them for
/// long enough; then rates return, and the ledger holds.
#[test]
fn a_table_of_flows_that_ended_unseen_empties_again() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let address = SocketAddr::new(network.server_v4(), 8132);
    let config = format!("[sampling]\nmax_sampled_flows = 50\n{}", all(&[address]));
    let sampler = Sampler::start(network.server(), &config);
    let rate = |s: &Sampler| {
        let events = s.events();
        let beat = events.of_type("node").last()?;
        beat["streams"][0]["sampling_rate"].as_f64()
    };
    let run = |flows: usize| {
        let plan = Plan::new("short", flows, vec![address]).asking(1, 10_000, Duration::ZERO);
        traffic::run(&network, &[Listen::new(address)], &[plan]).expect("traffic");
    };
    let theirs = Foreign::attach(address.port(), Manners::Rude);
    run(60);
    sampler.wait_for("the table is full", |s| rate(s).is_some_and(|r| r < 1.0));
    drop(theirs);
    sampler.wait_for("it is empty again", |s| rate(s) == Some(1.0));
    run(30);
    sampler.wait_windows(2);
    let events = sampler.stop();
    assert_eq!(events.sum("all", "flows_seen"), 90);
    let sampled = events.sum("all", "flows_sampled");
    assert!((80..=90).contains(&sampled), "{sampled}");
    assert_eq!(events.sum("all", "flows_closed"), sampled);
    events.assert_ledger();
}
