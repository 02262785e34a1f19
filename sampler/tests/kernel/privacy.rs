//! No client address leaves the node.

use std::net::{IpAddr, SocketAddr};

use lab::{
    filter::{Selector, Towards},
    network::Options,
    traffic::{self, plan::Plan, server::Listen},
};
use sampler_event::{Event, Message};

use crate::harness::{Sampler, all, http_get, network, turn};

const PORT: u16 = 8171;

/// As text, and as the bytes that a packet has.
fn forms(address: IpAddr) -> (String, Vec<u8>) {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    (address.to_string(), bytes)
}

#[test]
fn no_event_metric_or_log_line_names_a_client() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options {
        client_addresses: 4,
        ..Options::default()
    });
    network
        .set_loss(Towards::Client, &Selector::default(), 0.05)
        .expect("loss");
    let namespace = network.server();
    let addresses = [network.server_v4(), network.server_v6()];
    let addresses = addresses.map(|address| SocketAddr::new(address, PORT));
    let stream = all(&addresses).replace("rate = 1.0", "rate = 1.0\npulse_ms = 100");
    let sampler = Sampler::start(namespace, &stream);
    let clients: Vec<IpAddr> = [network.clients_v4(), network.clients_v6()].concat();
    let plan = |server: SocketAddr, clients: Vec<IpAddr>| {
        let often = std::time::Duration::from_millis(100);
        let mut plan = Plan::new("from everywhere", 16, vec![server]).asking(10, 50_000, often);
        plan.clients = clients;
        plan
    };
    let plans = [
        plan(addresses[0], network.clients_v4()),
        plan(addresses[1], network.clients_v6()),
    ];
    let report = traffic::run(&network, &addresses.map(Listen::new), &plans).expect("traffic");
    assert_eq!(report.accepted(), 32);
    sampler.wait_windows(2);
    let mut said = http_get(namespace, "/metrics") + &http_get(namespace, "/healthz");
    let events = sampler.events();
    assert!(events.of_type("pulse").next().is_some() && events.sum("all", "flows_closed") == 32);
    for event in &events.0 {
        said += &event.to_string();
    }
    said += &sampler.stop_with_log();
    let mut bytes = Vec::new();
    for event in events.decoded() {
        match event {
            Event::Window(window) => window.encode(&mut bytes).expect("room"),
            Event::Pulse(pulse) => pulse.encode(&mut bytes).expect("room"),
            Event::Node(node) => node.encode(&mut bytes).expect("room"),
        }
    }
    assert!(
        said.contains("flowvitals_flows_closed_total 32"),
        "it was looked at"
    );
    for client in clients {
        let (text, octets) = forms(client);
        assert!(!said.contains(&text), "{text}");
        assert!(
            !bytes.windows(octets.len()).any(|some| some == octets),
            "{text}"
        );
    }
}
