//! What the windows add up to is what the kernel counted, to the segment.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lab::{
    filter::{Selector, Towards},
    network::Options,
    traffic::{
        plan::{End, Plan},
        server::{Congestion, Listen},
    },
};

use crate::harness::{Observed, Sampler, all, network, observe, turn};

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
    let local = [network.server_v4(), network.server_v6()];
    let local = local.map(|address| match address {
        IpAddr::V4(address) => format!("{address}:8081-8083"),
        IpAddr::V6(address) => format!("[{address}]:8081-8083"),
    });
    let sampler = Sampler::start(network.server(), &all(&local));
    network
        .set_loss(Towards::Client, &Selector::default(), loss)
        .expect("loss");
    let seen = observe(&network, sampler, &listens, &plans);
    seen.assert_exact();
    let Observed {
        report,
        kernel,
        events,
    } = seen;

    assert!(report.accepted() >= 200, "{} flows", report.accepted());
    assert!(kernel.data_retrans_segs() > 0, "nothing was lost");
    assert_eq!(report.bytes_read(), report.bytes_written());
    assert_eq!(
        events.sum("all", "bytes_sent") - events.sum("all", "bytes_retrans"),
        report.bytes_written()
    );
    assert_eq!(
        events.sum("all", "dsack_dups"),
        kernel.dsack_recv + kernel.dsack_ofo_recv
    );
    println!(
        "loss {loss}: {} flows, {} windows, {} segments retransmitted by us and by the kernel, {} bytes acked",
        report.accepted(),
        events.windows("all").count(),
        kernel.data_retrans_segs(),
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
