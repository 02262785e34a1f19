//! The sample: its share, and that it is just what the hash says, in every life of the daemon.

use std::net::SocketAddr;

use ebpf_abi::hash::{GROUPS, flow_hash, group, key_from_bytes, selected, threshold};
use lab::{
    network::{Network, Options},
    traffic::{self, plan::Plan, server::Listen},
};
use sampler::rules::tuple;

use crate::harness::{Events, KEY, Sampler, network, turn};

const RATE: f64 = 0.1;
/// A response of one segment: so the groups' segments are the groups' flows.
const BYTES: u64 = 500;

/// Short connections to these servers in turn, from every client address: the hash of each by
/// its own addresses, and what the sampler said.
fn life(
    network: &Network,
    servers: &[SocketAddr],
    rate: f64,
    connections: usize,
) -> (Vec<u64>, Events) {
    let local: Vec<_> = servers.iter().map(SocketAddr::to_string).collect();
    let sampler = Sampler::start(
        network.server(),
        &format!("[[stream]]\nname = \"all\"\nrate = {rate}\nlocal = {local:?}\n"),
    );
    let mut plan =
        Plan::new("short", connections, servers.to_vec()).asking(1, BYTES, Default::default());
    plan.concurrency = 200;
    plan.clients = if servers[0].is_ipv4() {
        network.clients_v4()
    } else {
        network.clients_v6()
    };
    let listens: Vec<_> = servers.iter().copied().map(Listen::new).collect();
    let report = traffic::run(network, &listens, &[plan]).expect("traffic");
    sampler.wait_windows(2);
    let events = sampler.stop();
    assert_eq!(report.accepted(), connections);
    assert_eq!(events.sum("all", "flows_seen"), connections as u64);
    events.assert_laws();
    let hashes = report
        .clients
        .iter()
        .map(|flow| flow_hash(key_from_bytes(KEY), &tuple(flow.server, flow.client)))
        .collect();
    (hashes, events)
}

fn picked(hashes: &[u64], rate: f64) -> Vec<u64> {
    hashes
        .iter()
        .copied()
        .filter(|hash| selected(*hash, threshold(rate)))
        .collect()
}

fn by_group(hashes: &[u64]) -> [u64; GROUPS] {
    let mut groups = [0; GROUPS];
    for hash in hashes {
        groups[usize::from(group(*hash))] += 1;
    }
    groups
}

/// Those that the kernel side sampled are those that the hash of their addresses picks.
fn assert_predicted(hashes: &[u64], events: &Events, rate: f64) {
    let expected = picked(hashes, rate);
    assert_eq!(events.sum("all", "flows_sampled"), expected.len() as u64);
    let mut segments = [0; GROUPS];
    for window in events.stream_windows("all") {
        for (sum, segs) in segments.iter_mut().zip(&window.g_data_segs_out) {
            *sum += u64::from(*segs);
        }
    }
    assert_eq!(segments, by_group(&expected), "group by group");
}

fn chi_square(hashes: &[u64]) -> f64 {
    let expected = hashes.len() as f64 / GROUPS as f64;
    let part = |n: u64| (n as f64 - expected).powi(2) / expected;
    by_group(hashes).into_iter().map(part).sum()
}

#[test]
fn one_in_ten_of_twenty_thousand() {
    let Some(_turn) = turn() else { return };
    let network = network(Options {
        client_addresses: 8,
        ..Options::default()
    });
    let servers = [8097, 8098].map(|port| SocketAddr::new(network.server_v4(), port));
    let (hashes, events) = life(&network, &servers, RATE, 20_000);
    let (seen, sampled) = (hashes.len() as f64, events.sum("all", "flows_sampled"));
    // Binomial, 99.9 %: 3.29 standard deviations.
    let (mean, deviation) = (seen * RATE, (seen * RATE * (1.0 - RATE)).sqrt());
    assert!(
        (sampled as f64 - mean).abs() <= 3.29 * deviation,
        "{sampled} of {seen}"
    );
    assert_predicted(&hashes, &events, RATE);

    let fewer = picked(&hashes, RATE / 2.0);
    assert!(!fewer.is_empty() && fewer.len() < sampled as usize);
    assert!(fewer.iter().all(|hash| selected(*hash, threshold(RATE))));
    // Groups are uniform, and are so among the selected: the choice says nothing about them.
    for (name, hashes) in [("all", &hashes), ("selected", &picked(&hashes, RATE))] {
        let chi2 = chi_square(hashes);
        // 15 degrees of freedom, 99.9 %.
        assert!(chi2 < 37.7, "{name}: {chi2}");
        println!(
            "{name}: {} flows, chi-square of groups {chi2:.1}",
            hashes.len()
        );
    }
}

#[test]
fn every_life_picks_by_the_same_hash() {
    let Some(_turn) = turn() else { return };
    let network = network(Options {
        client_addresses: 5,
        ..Options::default()
    });
    for (address, rate) in [
        (network.server_v4(), 0.3),
        (network.server_v6(), 0.3),
        (network.server_v4(), 0.01),
        (network.server_v4(), 1.0),
        (network.server_v6(), 0.0),
    ] {
        let servers = [8113, 8114, 8115].map(|port| SocketAddr::new(address, port));
        let (hashes, events) = life(&network, &servers, rate, 1_000);
        assert_predicted(&hashes, &events, rate);
        println!(
            "{address} at {rate}: {} flows, just those of the hash",
            events.sum("all", "flows_sampled")
        );
    }
}
