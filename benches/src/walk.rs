//! The walk over sampled flows and the fold of open ones. Budget: 2 % of a core for the walk.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{
    clock,
    network::{Network, Options},
    traffic::{
        plan::Plan,
        server::{Listen, Server},
    },
};
use sampler::kernel::cgroup;

use crate::{setup, statistics::Samples};

const ROUNDS: usize = 30;
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints the table.
pub fn run() -> Result<()> {
    println!(
        "{:>8} {:>8} {:>14} {:>15} {:>20} {:>14}",
        "sockets", "met", "walk ns each", "quartiles", "% of a core at 1/s", "fold ms"
    );
    for sockets in [1_000, 10_000] {
        measure(sockets)?;
    }
    Ok(())
}

fn measure(sockets: usize) -> Result<()> {
    let network = Network::new(Options::default())?;
    let server = SocketAddr::new(network.server_v4(), 8205);
    let mut probe = setup::load(&setup::plain(server)?)?;
    let mount = cgroup::mount().ok_or_else(|| anyhow::anyhow!("no cgroup v2 file system"))?;
    probe.attach(&mount)?;
    let edge = Server::start(network.server(), &[Listen::new(server)])?;
    let mut plan = Plan::new("open", sockets, vec![server]).asking(1, 1_000, Duration::ZERO);
    plan.hold = Duration::from_secs(600);
    let players = setup::players(&network, plan)?;
    let came = clock::wait_until(PATIENCE, || probe.report().flows_open >= sockets as u64);
    ensure!(
        came,
        "{sockets} flows begun, {} with the players, {} with the server: {:?}",
        players.open(),
        edge.open(),
        probe.report()
    );
    // The last responses are on their way.
    std::thread::sleep(Duration::from_secs(1));
    let mut records = Vec::with_capacity(sockets);
    let mut walk = Samples::default();
    let mut fold = Samples::default();
    let each = |begin: Instant| begin.elapsed().as_nanos() as f64 / sockets as f64;
    for _ in 0..ROUNDS {
        records.clear();
        let begin = Instant::now();
        probe.walk(&mut records)?;
        walk.push(each(begin));
        // The fold goes over the sockets of one namespace: the server's.
        fold.push(network.server().run_in(|| {
            let begin = Instant::now();
            probe.fold().map(|()| each(begin))
        })??);
    }
    println!(
        "{sockets:>8} {:>8} {:>14.1} {:>7.1} {:>7.1} {:>20.2} {:>14.2}",
        records.len(),
        walk.median(),
        walk.quantile(0.25),
        walk.quantile(0.75),
        walk.median() * sockets as f64 / 1e9 * 100.0,
        fold.median() * sockets as f64 / 1e6
    );
    players.stop()?;
    edge.stop()?;
    Ok(())
}
