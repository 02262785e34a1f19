//! Flows in the ways they end, and flows that outlive the sampler.

use std::{net::SocketAddr, time::Duration};

use lab::{
    counters::TcpCounters,
    filter::{Selector, Towards},
    network::Options,
    traffic::{
        self,
        client::Client,
        plan::{End, Plan},
        server::{Listen, Server},
    },
};

use crate::harness::{Sampler, at_rest, network, number, turn};

#[test]
fn every_end_is_counted_to_the_segment() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    let server = SocketAddr::new(network.server_v4(), 8091);
    let dual = SocketAddr::new("::".parse().expect("an address"), 8092);
    let mut mapped = Listen::new(dual);
    mapped.dual_stack = true;
    let listens = [Listen::new(server), mapped];
    let over_mapped = SocketAddr::new(network.server_v4(), 8092);
    let plan = |name: &str, to: SocketAddr, end: End| {
        Plan::new(name, 25, vec![to])
            .asking(3, 40_000, Duration::from_millis(50))
            .ending(end)
    };
    let fin = [
        plan("client-fin", server, End::ClientFin),
        plan("server-fin", server, End::ServerFin),
        plan("half-close", server, End::HalfClose),
        plan("mapped", over_mapped, End::ClientFin),
    ];
    let reset = [
        plan("client-reset", server, End::ClientReset),
        plan("server-reset", server, End::ServerReset),
        plan(
            "abort",
            server,
            End::Abort {
                after_bytes: 30_000,
            },
        ),
    ];
    network
        .set_loss(Towards::Client, &Selector::default(), 0.03)
        .expect("loss");
    for (name, plans, exact) in [("fin", &fin[..], true), ("reset", &reset[..], false)] {
        let sampler = Sampler::start(
            network.server(),
            &format!(
                "[[stream]]\nname = \"all\"\nrate = 1.0\nlocal = [\"{}:8091-8092\"]\n",
                network.server_v4()
            ),
        );
        let before = TcpCounters::read(network.server()).expect("counters");
        let report = traffic::run(&network, &listens, plans).expect("traffic");
        sampler.wait_windows(2);
        let after = TcpCounters::read(network.server())
            .expect("counters")
            .since(&before);
        let events = sampler.stop();
        assert_eq!(
            events.sum("all", "flows_seen"),
            report.accepted() as u64,
            "{name}"
        );
        assert_eq!(
            events.sum("all", "flows_closed"),
            report.accepted() as u64,
            "{name}"
        );
        assert_eq!(
            events.sum("all", "retrans_segs"),
            after.data_retrans_segs(),
            "{name}"
        );
        let acked = events.sum("all", "bytes_acked");
        if exact {
            assert_eq!(acked, report.bytes_written(), "{name}");
        } else {
            assert!(acked <= report.bytes_written(), "{name}: {acked}");
        }
        events.assert_laws();
        println!(
            "{name}: {} flows, {} retransmitted",
            report.accepted(),
            after.data_retrans_segs()
        );
    }
}

#[test]
fn the_last_fold_finds_open_flows() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    let address = SocketAddr::new(network.server_v4(), 8093);
    let sampler = Sampler::start(
        network.server(),
        &format!("[[stream]]\nname = \"all\"\nrate = 1.0\nlocal = [\"{address}\"]\n"),
    );
    network
        .set_loss(Towards::Client, &Selector::default(), 0.05)
        .expect("loss");
    let before = TcpCounters::read(network.server()).expect("counters");
    let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
    let mut plan =
        Plan::new("open", 40, vec![address]).asking(2, 50_000, Duration::from_millis(20));
    plan.hold = Duration::from_secs(60);
    let client = Client::start(network.client(), &[plan]).expect("clients");
    let last = at_rest(&network, &server, 40);
    let kernel = last.since(&before).data_retrans_segs();
    let events = sampler.stop();
    let heartbeat = events.last_heartbeat();
    assert_eq!(
        (
            number(heartbeat, "flows_open"),
            number(heartbeat, "flows_closed")
        ),
        (40, 0)
    );
    assert_eq!(heartbeat["life_cycle"], "stopping");
    assert_eq!(events.sum("all", "retrans_segs"), kernel);
    assert_eq!(events.sum("all", "bytes_acked"), 40 * 100_000);
    events.assert_laws();
    drop((client, server));
}
