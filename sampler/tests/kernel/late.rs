//! A suspended daemon: one long window, nothing twice, nothing lost.

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
use nix::sys::signal::Signal;

use crate::harness::{Sampler, network, number, turn};

#[test]
fn a_suspended_daemon_makes_one_long_window() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    let address = SocketAddr::new(network.server_v4(), 8105);
    let sampler = Sampler::start(
        network.server(),
        &format!("[[stream]]\nname = \"all\"\nrate = 1.0\nlocal = [\"{address}\"]\n"),
    );
    network
        .set_loss(Towards::Client, &Selector::default(), 0.05)
        .expect("loss");
    let before = TcpCounters::read(network.server()).expect("counters");
    let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
    let plan =
        Plan::new("steady", 30, vec![address]).asking(40, 10_000, Duration::from_millis(150));
    let client = Client::start(network.client(), &[plan]).expect("clients");
    sampler.wait_windows(1);
    sampler.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(4));
    sampler.signal(Signal::SIGCONT);
    client.wait().expect("clients");
    counters::wait_closed(network.server(), &[8105], Duration::from_secs(60)).expect("closed");
    sampler.wait_windows(2);
    let kernel = TcpCounters::read(network.server())
        .expect("counters")
        .since(&before);
    drop(server);
    let events = sampler.stop();
    let late: Vec<_> = events
        .windows("all")
        .filter(|w| number(w, "missed_edges") > 0)
        .collect();
    assert_eq!(late.len(), 1, "{late:?}");
    assert!(number(late[0], "observed_ms") >= 4000, "{}", late[0]);
    assert!(
        late[0]["flags"]
            .as_array()
            .is_some_and(|f| f.contains(&"late_read".into()))
    );
    assert_eq!(
        events.sum("all", "retrans_segs"),
        kernel.data_retrans_segs()
    );
    assert_eq!(events.sum("all", "bytes_acked"), 30 * 400_000);
    events.assert_laws();
}
