//! Sizes of events of real traffic, before compression.
//!
//! Where `FLOWVITALS_RECORD` names a folder, events of the run are written there as protobuf bytes.

use std::{net::SocketAddr, path::Path, time::Duration};

use lab::{
    filter::{Selector, Towards},
    network::{Link, Options},
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};
use sampler_event::{Event, Message};

use crate::harness::{Sampler, network, turn};

const FLOWS: usize = 100;
/// Events that are kept of each kind.
const KEPT: usize = 4;

fn record<M: Message>(kind: &str, number: usize, event: &M) {
    let Some(folder) = std::env::var_os("FLOWVITALS_RECORD") else {
        return;
    };
    let file = Path::new(&folder).join(format!("{kind}-{number}.bin"));
    std::fs::write(file, event.encode_to_vec()).expect("a file");
}

#[test]
fn a_hundred_lossy_flows_fit() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options {
        link: Link::Delay(Duration::from_millis(15)),
        client_addresses: 8,
    });
    let address = SocketAddr::new(network.server_v4(), 8111);
    let sampler = Sampler::start(
        network.server(),
        &format!(
            "[[stream]]\nname = \"sport-1\"\nrate = 1.0\npulse_ms = 100\nlocal = [\"{address}\"]\n"
        ),
    );
    network
        .set_loss(Towards::Client, &Selector::default(), 0.02)
        .expect("loss");
    let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
    let mut plan =
        Plan::new("players", FLOWS, vec![address]).asking(40, 12_000, Duration::from_millis(60));
    plan.clients = network.clients_v4();
    let client = Client::start(network.client(), &[plan]).expect("clients");
    // A delay that wanders, as that of a region's viewers: round trips over two octaves.
    let delay = network.delay().expect("a relay");
    for step in (0u64..).take_while(|_| !client.is_finished()) {
        delay.set_delay(Duration::from_millis(10 + step * 7 % 31));
        std::thread::sleep(Duration::from_millis(40));
    }
    client.wait().expect("clients");
    drop(server);
    let events = sampler.stop();

    let windows: Vec<_> = events
        .stream_windows("sport-1")
        .into_iter()
        .filter(|w| w.rtt_count <= 1_000 && w.flows_active <= FLOWS as u64)
        .collect();
    let mut full: Vec<_> = windows.iter().filter(|w| w.rtt_count >= 700).collect();
    full.sort_by_key(|w| std::cmp::Reverse(w.rtt_count));
    assert!(full.len() >= 2, "{} full windows", full.len());
    let pulses: Vec<_> = events
        .decoded()
        .filter_map(|event| match event {
            Event::Pulse(pulse) => Some(pulse),
            _ => None,
        })
        .collect();
    assert!(pulses.len() >= 10, "{} pulses", pulses.len());
    for (number, window) in full.iter().take(KEPT).enumerate() {
        record("window", number, *window);
        println!(
            "window of {} samples, {} flows, {} retransmits: {} bytes",
            window.rtt_count,
            window.flows_active,
            window.retrans_segs,
            window.encoded_len()
        );
    }
    for window in &windows {
        assert!(window.encoded_len() <= 640, "{}", window.encoded_len());
    }
    let mut largest: Vec<_> = pulses.iter().collect();
    largest.sort_by_key(|pulse| std::cmp::Reverse(pulse.encoded_len()));
    for (number, pulse) in largest.iter().take(KEPT).enumerate() {
        record("pulse", number, *pulse);
    }
    println!("largest pulse: {} bytes", largest[0].encoded_len());
    assert!(largest[0].encoded_len() <= 128);
}
