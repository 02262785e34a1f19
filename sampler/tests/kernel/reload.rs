//! A reload loses nothing: epochs, streams that come and go, files that are wrong.

use std::{net::SocketAddr, time::Duration};

use lab::{
    counters::{self, TcpCounters},
    filter::{Selector, Towards},
    network::Options,
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};

use crate::harness::{Sampler, network, number, turn};

#[test]
fn rates_and_streams_change_while_flows_live() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    let address = SocketAddr::new(network.server_v4(), 8094);
    let stream = |rate: f64| {
        format!("[[stream]]\nname = \"all\"\nrate = {rate:?}\nlocal = [\"{address}\"]\n")
    };
    let sampler = Sampler::start(network.server(), &stream(1.0));
    network
        .set_loss(Towards::Client, &Selector::default(), 0.03)
        .expect("loss");
    let before = TcpCounters::read(network.server()).expect("counters");
    let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
    let plan = Plan::new("long", 30, vec![address]).asking(20, 20_000, Duration::from_millis(200));
    let client = Client::start(network.client(), &[plan]).expect("clients");
    sampler.wait_for("flows are sampled", |s| {
        s.events().sum("all", "flows_sampled") == 30
    });
    sampler.reload("[[stream]]\nname = \"all\"\nrate = 1.5\nlocal = [\"nonsense\"]\n");
    sampler.wait_for("a wrong file is refused", |s| {
        s.log().contains("reload refused")
    });
    sampler.reload(&stream(0.5));
    sampler.wait_for("the new rate", |s| {
        s.log().contains("configuration reloaded")
    });
    // Flows of the first epoch keep their rate; then the stream goes and they are closed out.
    sampler.wait_windows(2);
    sampler.reload("");
    sampler.wait_for("the stream is gone", |s| {
        number(s.events().last_heartbeat(), "flows_open") == 0
    });
    let closed = number(sampler.events().last_heartbeat(), "flows_closed");
    assert_eq!(closed, 30);
    sampler.reload(&stream(1.0));
    sampler.wait_windows(1);
    client.wait().expect("clients");
    counters::wait_closed(network.server(), &[8094], Duration::from_secs(60)).expect("closed");
    let kernel = TcpCounters::read(network.server())
        .expect("counters")
        .since(&before);
    drop(server);
    let events = sampler.stop();
    // What flows did after they were closed out is nobody's.
    assert!(events.sum("all", "retrans_segs") <= kernel.data_retrans_segs());
    let rates: Vec<_> = events
        .windows("all")
        .filter_map(|w| w["sampling_rate"].as_f64())
        .collect();
    assert!(
        rates.iter().all(|r| *r == 1.0),
        "open flows keep their rate: {rates:?}"
    );
    events.assert_laws();
}

#[test]
fn a_reload_in_full_traffic_loses_no_segment() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    let address = SocketAddr::new(network.server_v4(), 8095);
    let stream = |slow: u32| {
        format!(
            "[[stream]]\nname = \"all\"\nrate = 1.0\nrtt_slow_us = {slow}\nlocal = [\"{address}\"]\n"
        )
    };
    let sampler = Sampler::start(network.server(), &stream(200_000));
    network
        .set_loss(Towards::Client, &Selector::default(), 0.05)
        .expect("loss");
    let before = TcpCounters::read(network.server()).expect("counters");
    let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
    let mut plan =
        Plan::new("steady", 120, vec![address]).asking(4, 20_000, Duration::from_millis(50));
    plan.start_spread = Duration::from_secs(5);
    let client = Client::start(network.client(), &[plan]).expect("clients");
    for round in 0..4 {
        std::thread::sleep(Duration::from_millis(1100));
        sampler.reload(&stream(100_000 + round));
    }
    client.wait().expect("clients");
    counters::wait_closed(network.server(), &[8095], Duration::from_secs(60)).expect("closed");
    sampler.wait_windows(2);
    let kernel = TcpCounters::read(network.server())
        .expect("counters")
        .since(&before);
    drop(server);
    let events = sampler.stop();
    let epochs: std::collections::BTreeSet<_> = events
        .windows("all")
        .map(|w| number(w, "rate_epoch"))
        .collect();
    assert!(epochs.len() >= 3, "{epochs:?}");
    assert_eq!(events.sum("all", "flows_seen"), 120);
    assert_eq!(events.sum("all", "flows_closed"), 120);
    assert_eq!(
        events.sum("all", "retrans_segs"),
        kernel.data_retrans_segs()
    );
    assert_eq!(events.sum("all", "bytes_acked"), 120 * 80_000);
    events.assert_laws();
}
