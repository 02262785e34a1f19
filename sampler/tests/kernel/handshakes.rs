//! Handshakes that are not the plain one: data in the SYN, cookies, SYN-ACKs that are lost, and
//! those that we began ourselves.

use std::{net::SocketAddr, time::Duration};

use lab::{
    clock,
    counters::{self, TcpCounters},
    filter::{Selector, Towards},
    network::{Network, Options},
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};

use crate::harness::{PATIENCE, Sampler, all, network, observe, turn};

/// The server's addresses with this port.
fn both(network: &Network, port: u16) -> [SocketAddr; 2] {
    [network.server_v4(), network.server_v6()].map(|address| SocketAddr::new(address, port))
}

fn lossy(network: &mut Network, loss: f64) {
    network
        .set_loss(Towards::Client, &Selector::default(), loss)
        .expect("loss");
}

fn counters(network: &Network) -> TcpCounters {
    TcpCounters::read(network.server()).expect("counters")
}

fn fast_open(address: SocketAddr) -> Listen {
    Listen {
        fast_open: true,
        ..Listen::new(address)
    }
}

#[test]
fn fast_open_flows_are_counted_once() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    network
        .sysctl("net.ipv4.tcp_fastopen", "3")
        .expect("fast open at both ends");
    let servers = both(&network, 8120);
    let sampler = Sampler::start(network.server(), &all(&servers));
    lossy(&mut network, 0.05);
    let mut plan =
        Plan::new("tfo", 200, servers.to_vec()).asking(2, 40_000, Duration::from_millis(20));
    plan.fast_open = true;
    // The first one of each address fetches the cookie.
    plan.concurrency = 10;
    let seen = observe(&network, sampler, &servers.map(fast_open), &[plan]);
    assert!(seen.kernel.fast_open_passive >= 100, "{:?}", seen.kernel);
    assert!(seen.kernel.data_retrans_segs() > 0, "nothing was lost");
    seen.assert_exact();
    println!(
        "{} flows, {} with data in the SYN, {} segments and {} SYN-ACKs retransmitted",
        seen.report.accepted(),
        seen.kernel.fast_open_passive,
        seen.kernel.data_retrans_segs(),
        seen.events.sum("all", "syn_retrans")
    );
}

#[test]
fn a_fast_open_that_never_completes_is_no_flow() {
    const GOOD: usize = 10;
    const BAD: usize = 20;
    const BYTES: u64 = 5_000;
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    network
        .sysctl("net.ipv4.tcp_fastopen", "3")
        .expect("fast open at both ends");
    // The server gives such a connection up after seconds, not minutes.
    network
        .server()
        .sysctl("net.ipv4.tcp_synack_retries", "1")
        .expect("fewer retries");
    let address = SocketAddr::new(network.server_v4(), 8121);
    let sampler = Sampler::start(network.server(), &all(&[address]));
    let before = counters(&network);
    let server = Server::start(network.server(), &[fast_open(address)]).expect("a server");
    let plan = |connections: usize| {
        let mut plan =
            Plan::new("tfo", connections, vec![address]).asking(1, BYTES, Duration::ZERO);
        plan.fast_open = true;
        plan
    };
    let good = |network: &Network| {
        let client = Client::start(network.client(), &[plan(GOOD)]).expect("clients");
        client.wait().expect("clients");
    };
    let all_closed = |network: &Network| {
        let closed = counters::wait_closed(network.server(), &[address.port()], PATIENCE);
        assert!(closed.expect("sockets"), "connections stay open");
    };
    good(&network);
    // The cookie is there now. No answer comes back any more.
    lossy(&mut network, 1.0);
    let client = Client::start(network.client(), &[plan(BAD)]).expect("clients");
    assert!(
        clock::wait_until(PATIENCE, || server.accepted() == GOOD + BAD),
        "data in a SYN makes a connection at once"
    );
    let opened = counters(&network).since(&before).fast_open_passive;
    assert!(opened >= BAD as u64, "{opened}");
    // Those that never were must not come to be after all when answers come again.
    client.stop().expect("clients");
    all_closed(&network);
    lossy(&mut network, 0.0);
    good(&network);
    all_closed(&network);
    sampler.wait_windows(2);
    let kernel = counters(&network).since(&before);
    let flows = server.stop().expect("the server");
    let events = sampler.stop();
    assert_eq!(flows.len(), 2 * GOOD + BAD);
    for field in ["flows_seen", "flows_selected", "flows_closed"] {
        assert_eq!(events.sum("all", field), 2 * GOOD as u64, "{field}");
    }
    assert_eq!(events.sum("all", "bytes_acked"), 2 * GOOD as u64 * BYTES);
    assert_eq!(
        events.sum("all", "retrans_segs"),
        kernel.data_retrans_segs()
    );
    assert!(kernel.syn_retrans >= BAD as u64, "{kernel:?}");
    assert_eq!(events.sum("all", "syn_retrans"), 0);
    events.assert_laws();
}

#[test]
fn flows_by_syn_cookie_are_exact() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    network
        .server()
        .sysctl("net.ipv4.tcp_syncookies", "2")
        .expect("cookies for all");
    let servers = both(&network, 8122);
    let sampler = Sampler::start(network.server(), &all(&servers));
    lossy(&mut network, 0.05);
    let plan =
        Plan::new("cookie", 200, servers.to_vec()).asking(2, 40_000, Duration::from_millis(20));
    let seen = observe(&network, sampler, &servers.map(Listen::new), &[plan]);
    // More where a cookie comes back twice at the same moment: then one of two sockets goes.
    assert!(seen.kernel.syncookies_recv >= 200, "{:?}", seen.kernel);
    assert_eq!(seen.report.accepted(), 200);
    assert!(seen.kernel.data_retrans_segs() > 0, "nothing was lost");
    seen.assert_exact();
    println!(
        "{} flows by {} cookies, {} segments retransmitted",
        seen.report.accepted(),
        seen.kernel.syncookies_recv,
        seen.kernel.data_retrans_segs()
    );
}

#[test]
fn syn_acks_that_are_lost_are_no_data() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    let servers = both(&network, 8123);
    let sampler = Sampler::start(network.server(), &all(&servers));
    lossy(&mut network, 0.25);
    let plan = Plan::new("short", 200, servers.to_vec()).asking(1, 5_000, Duration::ZERO);
    let seen = observe(&network, sampler, &servers.map(Listen::new), &[plan]);
    assert!(seen.kernel.syn_retrans > 0, "no SYN-ACK was lost");
    assert!(seen.events.sum("all", "syn_retrans") > 0);
    seen.assert_exact();
    println!(
        "{} of {} SYN-ACKs retransmitted are those of flows, {} segments",
        seen.events.sum("all", "syn_retrans"),
        seen.kernel.syn_retrans,
        seen.kernel.data_retrans_segs()
    );
}

#[test]
fn connections_that_we_began_are_not_ours() {
    const OURS: usize = 20;
    const THEIRS: usize = 30;
    const BYTES: u64 = 20_000;
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    // Whatever begins here leaves from a port that a stream names.
    network
        .server()
        .sysctl("net.ipv4.ip_local_port_range", "20500 20999")
        .expect("a range of ports");
    let inbound = SocketAddr::new(network.server_v4(), 8124);
    let origin = SocketAddr::new(network.clients_v4()[0], 8125);
    let outbound = format!("{}:20500-20999", network.server_v4());
    // Seen from the root cgroup, the other end is inbound: so the flows are there to be seen.
    let sampler = Sampler::start(
        network.server(),
        &format!(
            "{}[[stream]]\nname = \"began\"\nrate = 1.0\nlocal = [{outbound:?}]\n\
             [[stream]]\nname = \"origin\"\nrate = 1.0\nlocal = [\"{origin}\"]\n",
            all(&[inbound])
        ),
    );
    let edge = Server::start(network.server(), &[Listen::new(inbound)]).expect("an edge");
    let far = Server::start(network.client(), &[Listen::new(origin)]).expect("an origin");
    let plan = |connections, to| {
        Plan::new("plain", connections, vec![to]).asking(1, BYTES, Duration::ZERO)
    };
    let players = Client::start(network.client(), &[plan(OURS, inbound)]).expect("players");
    let fills = Client::start(network.server(), &[plan(THEIRS, origin)]).expect("cache fills");
    let fills = fills.wait().expect("cache fills");
    players.wait().expect("players");
    for (namespace, port) in [(network.server(), 8124), (network.client(), 8125)] {
        let closed = counters::wait_closed(namespace, &[port], PATIENCE);
        assert!(closed.expect("sockets"), "connections stay open");
    }
    sampler.wait_windows(2);
    drop((edge, far));
    let events = sampler.stop();
    for flow in &fills {
        assert!((20_500..21_000).contains(&flow.client.port()), "{flow:?}");
    }
    for (stream, flows) in [("all", OURS), ("began", 0), ("origin", THEIRS)] {
        assert_eq!(events.sum(stream, "flows_seen"), flows as u64, "{stream}");
        assert_eq!(
            events.sum(stream, "bytes_acked"),
            flows as u64 * BYTES,
            "{stream}"
        );
    }
    events.assert_laws();
}
