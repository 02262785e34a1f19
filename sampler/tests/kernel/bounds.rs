//! Ten times more flows than may be followed.

use std::{net::SocketAddr, time::Duration};

use lab::{
    network::Options,
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};

use crate::harness::{Sampler, network, number, turn};

#[test]
fn a_full_table_refuses_halves_and_says_so() {
    let Some(_turn) = turn() else { return };
    const MOST: u64 = 50;
    let network = network(Options::default());
    let address = SocketAddr::new(network.server_v4(), 8096);
    let sampler = Sampler::start(
        network.server(),
        &format!(
            "[sampling]\nmax_sampled_flows = {MOST}\n[[stream]]\nname = \"all\"\nrate = 1.0\nlocal = [\"{address}\"]\n"
        ),
    );
    let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
    let mut plan =
        Plan::new("many", 500, vec![address]).asking(2, 1_000, Duration::from_millis(500));
    plan.start_spread = Duration::from_secs(4);
    plan.hold = Duration::from_secs(2);
    let client = Client::start(network.client(), &[plan]).expect("clients");
    client.wait().expect("clients");
    sampler.wait_windows(2);
    drop(server);
    let events = sampler.stop();
    assert_eq!(events.sum("all", "flows_seen"), 500);
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    for heartbeat in events.of_type("node") {
        assert!(
            number(heartbeat, "flows_open") <= MOST + cpus,
            "{heartbeat}"
        );
    }
    let last = events.last_heartbeat();
    assert!(number(last, "flows_refused") > 0, "{last}");
    let biased = |w: &&serde_json::Value| {
        w["flags"]
            .as_array()
            .is_some_and(|f| f.contains(&"biased".into()))
    };
    assert!(
        events.windows("all").any(|w| biased(&w)),
        "no window is marked"
    );
    let halved = |w: &&serde_json::Value| w["sampling_rate"].as_f64() == Some(0.5);
    assert!(
        events.windows("all").any(|w| halved(&w)),
        "the rate was not halved"
    );
    events.assert_laws();
}
