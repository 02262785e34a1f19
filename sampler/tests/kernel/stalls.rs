//! Stalls by cause: what the path, the reader and the application do.

use std::{net::SocketAddr, time::Duration};

use lab::{
    filter::Selector,
    network::{Link, Options},
    traffic::{
        client::Client,
        plan::{Plan, Reading, Request},
        server::{Listen, Server},
    },
};

use crate::harness::{Events, Sampler, network, number, turn};

const FLOWS: usize = 20;

/// A sampler and a server; `pacing_bytes_per_s`: the server sends no faster.
fn start(
    network: &lab::network::Network,
    port: u16,
    pacing_bytes_per_s: Option<u32>,
) -> (Sampler, SocketAddr, Server) {
    let address = SocketAddr::new(network.server_v4(), port);
    let sampler = Sampler::start(
        network.server(),
        &format!(
            "[[stream]]\nname = \"all\"\nrate = 1.0\npulse_ms = 100\nlocal = [\"{address}\"]\n"
        ),
    );
    let mut listen = Listen::new(address);
    listen.pacing_bytes_per_s = pacing_bytes_per_s;
    let server = Server::start(network.server(), &[listen]).expect("a server");
    (sampler, address, server)
}

fn causes_ms(events: &Events) -> [u64; 4] {
    ["network", "receiver", "sender", "other"]
        .map(|cause| events.sum("all", &format!("stall_{cause}_us")) / 1000)
}

#[test]
fn a_blackout_is_one_network_stall_a_flow() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    let (sampler, address, server) = start(&network, 8101, Some(200_000));
    // One response that never ends, paced: at any time there is more to send.
    let mut plan = Plan::new("steady", FLOWS, vec![address]);
    plan.request = Request::Bytes(20_000_000);
    let client = Client::start(network.client(), &[plan]).expect("clients");
    sampler.wait_for("flows run", |s| {
        s.events().sum("all", "flows_sampled") == FLOWS as u64
    });
    sampler.wait_windows(1);
    network
        .blackout(&Selector::default(), true)
        .expect("a blackout");
    std::thread::sleep(Duration::from_secs(3));
    let during = sampler.events();
    network
        .blackout(&Selector::default(), false)
        .expect("its end");
    std::thread::sleep(Duration::from_secs(4));
    client.stop().expect("clients");
    drop(server);
    let events = sampler.stop();
    let open =
        |kind: &'static str, e: &Events| e.of_type(kind).map(|w| number(w, "stalls_open")).max();
    let stalled = open("window", &during).unwrap_or(0);
    assert_eq!(stalled, FLOWS as u64, "open during the blackout");
    assert!(open("pulse", &during).unwrap_or(0) > 0);
    let stalls = events.sum("all", "stalls");
    let [network_ms, receiver, sender, other] = causes_ms(&events);
    assert_eq!((receiver, sender), (0, 0));
    assert_eq!(stalls, FLOWS as u64);
    let mean_ms = network_ms / stalls;
    println!("blackout: {stalls} stalls of {mean_ms} ms, other {other} ms");
    assert!((3000..=4100).contains(&mean_ms), "{mean_ms} ms");
    assert_eq!(other, 0);
    assert_eq!(
        number(
            events.windows("all").last().expect("a window"),
            "stalls_open"
        ),
        0
    );
}

#[test]
fn a_reader_that_stops_is_a_receiver_stall() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let (sampler, address, server) = start(&network, 8102, None);
    let mut plan = Plan::new("reader", 5, vec![address]);
    plan.request = Request::Bytes(2_000_000);
    plan.receive_buffer_bytes = Some(16_384);
    plan.reading = Reading::Stop {
        after_bytes: 100_000,
        pause: Duration::from_secs(4),
    };
    let client = Client::start(network.client(), &[plan]).expect("clients");
    client.wait().expect("clients");
    drop(server);
    sampler.wait_windows(2);
    let events = sampler.stop();
    let [network_ms, receiver, sender, other] = causes_ms(&events);
    println!(
        "reader: {} stalls, receiver {receiver} ms",
        events.sum("all", "stalls")
    );
    assert_eq!((network_ms, sender, other), (0, 0, 0));
    assert_eq!(events.sum("all", "stalls"), 5);
    assert!((5 * 3000..=5 * 5100).contains(&receiver), "{receiver} ms");
}

#[test]
fn an_idle_connection_is_none() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let (sampler, address, server) = start(&network, 8103, None);
    let plan = Plan::new("idle", 5, vec![address]).asking(2, 10_000, Duration::from_secs(5));
    Client::start(network.client(), &[plan])
        .expect("clients")
        .wait()
        .expect("clients");
    drop(server);
    sampler.wait_windows(1);
    let events = sampler.stop();
    assert_eq!(events.sum("all", "stalls"), 0);
    assert_eq!(causes_ms(&events), [0; 4]);
    assert_eq!(events.sum("all", "flows_silent"), 0);
}

#[test]
fn a_delay_jump_is_not_the_network() {
    let Some(_turn) = turn() else { return };
    let link = Link::Delay(Duration::from_millis(20));
    let network = network(Options {
        link,
        ..Options::default()
    });
    let (sampler, address, server) = start(&network, 8104, None);
    let plan = Plan::new("steady", 5, vec![address]).asking(60, 20_000, Duration::from_millis(30));
    let client = Client::start(network.client(), &[plan]).expect("clients");
    std::thread::sleep(Duration::from_secs(3));
    let delay = network.delay().expect("a relay");
    delay.set_delay(Duration::from_millis(200));
    std::thread::sleep(Duration::from_secs(3));
    delay.set_delay(Duration::from_millis(20));
    client.wait().expect("clients");
    drop(server);
    sampler.wait_windows(2);
    let events = sampler.stop();
    let [network_ms, receiver, sender, other] = causes_ms(&events);
    println!(
        "delay jump: {} stalls, other {other} ms, network {network_ms} ms",
        events.sum("all", "stalls")
    );
    assert_eq!((network_ms, receiver, sender), (0, 0, 0));
    assert!(other > 0, "the jump was not seen");
}
