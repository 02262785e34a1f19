//! What the windows add up to is what the kernel counted, to the segment.

use std::{net::SocketAddr, time::Duration};

use lab::{
    counters::TcpCounters,
    filter::{Selector, Towards},
    network::Options,
    traffic::{
        self,
        plan::{End, Plan},
        server::{Congestion, Listen},
    },
};

use crate::harness::{Sampler, network, turn};

/// Loss towards the client; flows over IPv4 and IPv6 with every congestion control, some short
/// and some over many windows, closed from both ends.
fn lossy(loss: f64) {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options {
        client_addresses: 4,
        ..Options::default()
    });
    let ports = [
        (8081, Congestion::Bbr),
        (8082, Congestion::Cubic),
        (8083, Congestion::Reno),
    ];
    let mut listens = Vec::new();
    let mut plans = Vec::new();
    for (port, congestion) in ports {
        for address in [network.server_v4(), network.server_v6()] {
            let server = SocketAddr::new(address, port);
            listens.push(Listen::new(server).with(congestion));
            let name = format!("{port}-{}", if server.is_ipv4() { "v4" } else { "v6" });
            let long = Plan::new(&format!("{name}-long"), 18, vec![server]).asking(
                6,
                60_000,
                Duration::from_millis(400),
            );
            let short = Plan::new(&format!("{name}-short"), 18, vec![server])
                .asking(1, 20_000, Duration::ZERO)
                .ending(End::ServerFin);
            plans.extend([long, short]);
        }
    }
    let sampler = Sampler::start(
        network.server(),
        &format!(
            "[[stream]]\nname = \"all\"\nrate = 1.0\nlocal = [\"{}:8081-8083\", \"[{}]:8081-8083\"]\n",
            network.server_v4(),
            network.server_v6()
        ),
    );
    network
        .set_loss(Towards::Client, &Selector::default(), loss)
        .expect("loss");
    let before = TcpCounters::read(network.server()).expect("counters");
    let report = traffic::run(&network, &listens, &plans).expect("traffic");
    sampler.wait_windows(2);
    let after = TcpCounters::read(network.server())
        .expect("counters")
        .since(&before);
    let events = sampler.stop();

    assert!(report.accepted() >= 200, "{} flows", report.accepted());
    assert_eq!(events.sum("all", "flows_seen"), report.accepted() as u64);
    assert_eq!(events.sum("all", "flows_closed"), report.accepted() as u64);
    assert!(after.data_retrans_segs() > 0, "nothing was lost");
    assert_eq!(events.sum("all", "retrans_segs"), after.data_retrans_segs());
    assert_eq!(events.sum("all", "bytes_acked"), report.bytes_written());
    assert_eq!(report.bytes_read(), report.bytes_written());
    assert_eq!(
        events.sum("all", "bytes_sent") - events.sum("all", "bytes_retrans"),
        report.bytes_written()
    );
    assert_eq!(
        events.sum("all", "dsack_dups"),
        after.dsack_recv + after.dsack_ofo_recv
    );
    assert!(events.sum("all", "syn_retrans") <= after.syn_retrans);
    events.assert_laws();
    println!(
        "loss {loss}: {} flows, {} windows, {} segments retransmitted by us and by the kernel, {} bytes acked",
        report.accepted(),
        events.windows("all").count(),
        after.data_retrans_segs(),
        report.bytes_written()
    );
}

#[test]
fn at_1_percent_loss() {
    lossy(0.01);
}

#[test]
fn at_5_percent_loss() {
    lossy(0.05);
}

#[test]
fn at_15_percent_loss() {
    lossy(0.15);
}
