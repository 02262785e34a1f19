//! The sample at 0.1: its share, and that it is just what the hash says.

use std::net::SocketAddr;

use ebpf_abi::hash::{flow_hash, group, key_from_bytes, selected, threshold};
use lab::{
    network::Options,
    traffic::{self, plan::Plan, server::Listen},
};
use sampler::rules::tuple;

use crate::harness::{KEY, Sampler, network, turn};

const RATE: f64 = 0.1;

#[test]
fn one_in_ten_of_twenty_thousand() {
    let Some(_turn) = turn() else { return };
    let network = network(Options {
        client_addresses: 8,
        ..Options::default()
    });
    let address = SocketAddr::new(network.server_v4(), 8097);
    let sampler = Sampler::start(
        network.server(),
        &format!("[[stream]]\nname = \"all\"\nrate = {RATE}\nlocal = [\"{address}\"]\n"),
    );
    let mut plan = Plan::new("short", 20_000, vec![address]).asking(1, 500, Default::default());
    plan.concurrency = 200;
    plan.clients = network.clients_v4();
    let report = traffic::run(&network, &[Listen::new(address)], &[plan]).expect("traffic");
    sampler.wait_windows(2);
    let events = sampler.stop();

    let seen = events.sum("all", "flows_seen");
    assert_eq!(seen, report.accepted() as u64);
    let sampled = events.sum("all", "flows_sampled");
    // Binomial, 99.9 %: 3.29 standard deviations.
    let (mean, deviation) = (
        seen as f64 * RATE,
        (seen as f64 * RATE * (1.0 - RATE)).sqrt(),
    );
    assert!(
        (sampled as f64 - mean).abs() <= 3.29 * deviation,
        "{sampled} of {seen}"
    );

    // The hash of every client's own addresses says exactly which flows those are.
    let hashes: Vec<u64> = report
        .clients
        .iter()
        .map(|flow| flow_hash(key_from_bytes(KEY), &tuple(flow.server, flow.client)))
        .collect();
    let picked = |rate: f64| {
        hashes
            .iter()
            .filter(move |h| selected(**h, threshold(rate)))
    };
    assert_eq!(picked(RATE).count() as u64, sampled);
    assert!(picked(RATE / 2.0).all(|h| selected(*h, threshold(RATE))));
    for (name, hashes) in [
        ("all", hashes.iter().collect::<Vec<_>>()),
        ("selected", picked(RATE).collect::<Vec<_>>()),
    ] {
        let mut groups = [0f64; 16];
        for hash in &hashes {
            groups[usize::from(group(**hash))] += 1.0;
        }
        let expected = hashes.len() as f64 / 16.0;
        let chi2: f64 = groups
            .iter()
            .map(|n| (n - expected).powi(2) / expected)
            .sum();
        // Chi-square with 15 degrees of freedom, 99.9 %.
        assert!(chi2 < 37.7, "{name}: {chi2}");
        println!(
            "{name}: {} flows, chi-square of groups {chi2:.1}",
            hashes.len()
        );
    }
    events.assert_laws();
}
