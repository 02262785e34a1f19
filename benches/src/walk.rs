//! The walk over sampled flows and the fold of open ones. Budget: 2 % of a core for the walk.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{
    network::{Network, Options},
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};

use crate::setup;

const ROUNDS: u32 = 20;

/// Prints the table.
pub fn run() -> Result<()> {
    println!("\nwalk: per sampled socket, mean of {ROUNDS}");
    for sockets in [1_000usize, 10_000] {
        let network = Network::new(Options::default())?;
        let server = SocketAddr::new(network.server_v4(), 8202);
        let probe = setup::attach(&[server], 1.0)?;
        let edge = Server::start(network.server(), &[Listen::new(server)])?;
        let mut plan = Plan::new("open", sockets, vec![server]).asking(1, 1000, Duration::ZERO);
        plan.hold = Duration::from_secs(600);
        let players = Client::start(network.client(), &[plan])?;
        let begin = Instant::now();
        while probe.report().flows_open < sockets as u64 {
            ensure!(
                begin.elapsed() < Duration::from_secs(60),
                "{sockets} flows did not come"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut records = Vec::with_capacity(sockets);
        let begin = Instant::now();
        for _ in 0..ROUNDS {
            records.clear();
            probe.walk(&mut records)?;
        }
        let walk = begin.elapsed() / ROUNDS;
        let begin = Instant::now();
        for _ in 0..ROUNDS {
            probe.fold()?;
        }
        let fold = begin.elapsed() / ROUNDS;
        let ns = |d: Duration| d.as_nanos() as f64 / sockets as f64;
        println!(
            "{sockets:>6} sockets ({} met): walk {:>7.1} ns each, {:.2} % of a core at 1/s; fold {:>7.1} ns each",
            records.len(),
            ns(walk),
            walk.as_secs_f64() * 100.0,
            ns(fold)
        );
        players.stop()?;
        edge.stop()?;
    }
    Ok(())
}
