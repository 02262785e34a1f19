//! Time of the sock_ops program per run and per new connection. Budgets: 60 ns per connection that
//! is not sampled, under a plain rule; 250 ns per new connection with every rule kind in use.
//!
//! "net" is what is above an empty program that runs beside ours for the same events.

use std::path::Path;

use anyhow::{Context, Result};
use sampler::{
    config::{Config, Source, load},
    kernel::probe::Probe,
};

use crate::{
    cgroup::Cgroup,
    floor::Floor,
    loopback::Loopback,
    setup::{self, Stats},
    statistics::Samples,
};

const PORT: u16 = 8200;
/// Rounds; the median of them is printed.
const ROUNDS: usize = 20;
/// Connections per row and round.
const SHORT: Traffic = Traffic {
    connections: 2_000,
    bytes: 1_000,
};
/// Mostly round-trip callbacks, many more than a real network makes.
const BULK: Traffic = Traffic {
    connections: 10,
    bytes: 20_000_000,
};

/// What is done in a turn.
#[derive(Clone, Copy)]
struct Traffic {
    connections: usize,
    bytes: usize,
}

struct Row {
    name: &'static str,
    config: Config,
    traffic: Traffic,
    net_per_run: Samples,
    raw_per_run: Samples,
    raw_per_connection: Samples,
    net_per_connection: Samples,
    runs_per_connection: Samples,
}

impl Row {
    fn new(name: &'static str, mut config: Config, rate: f64, traffic: Traffic) -> Self {
        for stream in &mut config.streams {
            stream.rate = rate;
        }
        Self {
            name,
            config,
            traffic,
            net_per_run: Samples::default(),
            raw_per_run: Samples::default(),
            raw_per_connection: Samples::default(),
            net_per_connection: Samples::default(),
            runs_per_connection: Samples::default(),
        }
    }

    fn add(&mut self, ours: (u64, u64), floor: (u64, u64)) {
        let per_run = |(ns, runs): (u64, u64)| ns as f64 / runs.max(1) as f64;
        let per_connection = |n: f64| n / self.traffic.connections as f64;
        let raw = ours.0 as f64;
        // As many runs of the floor, should one of both have missed an event at the edges.
        let net = raw - per_run(floor) * ours.1 as f64;
        self.raw_per_run.push(per_run(ours));
        self.net_per_run.push(per_run(ours) - per_run(floor));
        self.raw_per_connection.push(per_connection(raw));
        self.net_per_connection.push(per_connection(net));
        self.runs_per_connection.push(per_connection(ours.1 as f64));
    }

    fn print(&self) {
        println!(
            "{:<40} {:>6.1} {:>8.1} {:>8.1} {:>10.0} {:>10.0} {:>10.0} {:>10.0}",
            self.name,
            self.runs_per_connection.median(),
            self.raw_per_run.median(),
            self.net_per_run.median(),
            self.raw_per_connection.median(),
            self.net_per_connection.median(),
            self.net_per_connection.quantile(0.25),
            self.net_per_connection.quantile(0.75)
        );
    }
}

/// Eight conditions on one address, of all kinds; only the last takes the flows of a loopback.
fn every_kind(local: std::net::SocketAddr) -> Result<Config> {
    let conditions = [
        "remote = [\"192.0.2.0/24\"]",
        "cgroup = \"/a\"",
        "mark = 7",
        "remote = [\"203.0.113.0/24\"]\nmark = 9",
        "cgroup = \"/b\"",
        "mark = 8",
        "remote = [\"2001:db8::/32\"]",
        "",
    ];
    let streams = conditions.iter().enumerate().map(|(n, condition)| {
        format!("[[stream]]\nname = \"s{n}\"\nlocal = [\"{local}\"]\n{condition}\n")
    });
    let source = Source::new("bench", streams.collect::<String>());
    load::read(source, |_| Ok(Vec::new())).context("the rules of the bench")
}

fn rows(loopback: &Loopback) -> Result<Vec<Row>> {
    let plain = setup::plain(loopback.address())?;
    let every = every_kind(loopback.address())?;
    Ok(vec![
        Row::new("plain rule, none sampled", plain.clone(), 0.0, SHORT),
        Row::new(
            "8 rules of every kind, none sampled",
            every.clone(),
            0.0,
            SHORT,
        ),
        Row::new("plain rule, 10 % sampled", plain.clone(), 0.1, SHORT),
        Row::new("8 rules of every kind, 10 % sampled", every, 0.1, SHORT),
        Row::new("plain rule, all sampled", plain.clone(), 1.0, SHORT),
        Row::new("plain rule, all sampled, 20 MB each", plain, 1.0, BULK),
    ])
}

fn measure(what: &str, probe: &mut Probe, cgroup: &Path, loopback: &Loopback) -> Result<()> {
    let mut rows = rows(loopback)?;
    probe.attach(cgroup)?;
    let floor = Floor::attach(cgroup)?;
    let mut floor_per_run = Samples::default();
    for round in 0..ROUNDS {
        for turn in 0..rows.len() {
            let row = (turn + round) % rows.len();
            setup::set_rules(probe, &rows[row].config)?;
            let before = (setup::cost(probe), floor.cost());
            let Traffic { connections, bytes } = rows[row].traffic;
            loopback.run(connections, bytes)?;
            let after = (setup::cost(probe), floor.cost());
            let since = |now: (u64, u64), then: (u64, u64)| (now.0 - then.0, now.1 - then.1);
            let empty = since(after.1, before.1);
            rows[row].add(since(after.0, before.0), empty);
            floor_per_run.push(empty.0 as f64 / empty.1.max(1) as f64);
        }
    }
    probe.detach();
    println!(
        "{:<40} {:>6} {:>8} {:>8} {:>10} {:>10} {:>21}",
        what, "runs", "ns/run", "net", "ns/conn.", "net", "quartiles"
    );
    for row in &rows {
        row.print();
    }
    println!(
        "{:<40} {:>6} {:>8.1}",
        "empty program",
        "",
        floor_per_run.median()
    );
    Ok(())
}

/// Prints both tables.
pub fn run() -> Result<()> {
    let _stats = Stats::on()?;
    let cgroup = Cgroup::new("server")?;
    let loopback = cgroup.within(|| Loopback::new(PORT))?;
    let mut probe = setup::load(&every_kind(loopback.address())?)?;
    println!(
        "medians of {ROUNDS} interleaved rounds of {} connections with {} bytes; \"net\": above an empty program",
        SHORT.connections, SHORT.bytes
    );
    measure(
        "server ends only, as on an edge",
        &mut probe,
        cgroup.path(),
        &loopback,
    )?;
    // Other connections of the machine run it too.
    measure("both ends", &mut probe, cgroup.mount(), &loopback)
}
