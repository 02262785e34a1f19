//! Time of the sock_ops program for flows that play live video at 40 ms. Budget: 0.5 % of a core for
//! 1,000 sampled flows.
//!
//! A flow fetches a segment of four seconds at 6 Mbit/s as fast as its line takes it, then pauses
//! until the next. "net" is what is above an empty program that runs beside ours for the same events.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use lab::{
    network::{Link, Network, Options},
    traffic::{
        plan::Plan,
        server::{Congestion, Listen, Server},
    },
};
use sampler::{kernel::probe::Probe, stage::counts::Counts};

use crate::{
    cgroup::Cgroup,
    floor::Floor,
    setup::{self, Stats},
    statistics::Samples,
};

const FIRST_PORT: u16 = 8210;
const ONE_WAY: Duration = Duration::from_millis(20);
const SEGMENT: Duration = Duration::from_secs(4);
const MBIT_PER_S: u32 = 6;
/// Each as long as a segment.
const ROUNDS: u32 = 5;

/// Who plays.
#[derive(Clone, Copy)]
struct Players {
    congestion: Congestion,
    flows: u32,
    /// Bitrate and line are divided by it, so that more flows fit on one machine: the program runs
    /// once in a round trip with data, however much data that is.
    divisor: u32,
    /// Rate of a player's line at full size, Mbit/s; none: that of the link.
    line: Option<u32>,
}

impl Players {
    const fn new(congestion: Congestion, divisor: u32, line: Option<u32>) -> Self {
        Self {
            congestion,
            flows: 40 * divisor,
            divisor,
            line,
        }
    }

    fn segment_bytes(&self) -> u64 {
        u64::from(MBIT_PER_S * 1_000_000 / 8 / self.divisor) * SEGMENT.as_secs()
    }

    /// Rest of a segment's time, once it is fetched.
    fn pause(&self) -> Duration {
        let fetch = self.line.map_or(SEGMENT / 8, |line| {
            SEGMENT * MBIT_PER_S / line + 2 * ONE_WAY
        });
        SEGMENT.saturating_sub(fetch)
    }

    fn listen(&self, address: SocketAddr) -> Listen {
        Listen {
            pacing_bytes_per_s: self.line.map(|line| line * 1_000_000 / 8 / self.divisor),
            ..Listen::new(address).with(self.congestion)
        }
    }

    fn name(&self) -> String {
        let line = self.line.map_or("-".to_owned(), |line| {
            (f64::from(line) / f64::from(self.divisor)).to_string()
        });
        format!("{:<6} {:>5} {line:>5}", self.congestion.name(), self.flows)
    }
}

const PLAYERS: [Players; 4] = [
    Players::new(Congestion::Cubic, 1, None),
    Players::new(Congestion::Cubic, 1, Some(25)),
    Players::new(Congestion::Bbr, 1, Some(25)),
    Players::new(Congestion::Cubic, 10, Some(25)),
];

/// Prints the table.
pub fn run() -> Result<()> {
    let _stats = Stats::on()?;
    let options = Options {
        link: Link::Delay(ONE_WAY),
        ..Options::default()
    };
    let network = Network::new(options)?;
    let cgroup = Cgroup::new("server")?;
    println!(
        "all sampled, server ends only; medians of {ROUNDS} times {} s",
        SEGMENT.as_secs()
    );
    println!(
        "{:<6} {:>5} {:>5} {:>7} {:>7} {:>14} {:>7} {:>7} {:>7} {:>14} {:>6} {:>15}",
        "",
        "flows",
        "line",
        "Mbit/s",
        "RTT ms",
        "runs/(flow s)",
        "ns/run",
        "net",
        "empty",
        "% of a core *",
        "net",
        "quartiles"
    );
    for (port, players) in (FIRST_PORT..).zip(PLAYERS) {
        let server = SocketAddr::new(network.server_v4(), port);
        measure(&network, &cgroup, server, players)?;
    }
    println!("* for 1,000 flows; line and rates of a flow in Mbit/s");
    Ok(())
}

/// What has been counted so far.
struct Reading {
    at: Instant,
    ours: (u64, u64),
    empty: (u64, u64),
    counts: Counts,
}

impl Reading {
    fn now(probe: &Probe, floor: &Floor) -> Self {
        Self {
            at: Instant::now(),
            ours: setup::cost(probe),
            empty: floor.cost(),
            counts: Counts::read_all(probe, 0),
        }
    }
}

/// Medians of one congestion control.
#[derive(Default)]
struct Table {
    mbit_per_s: Samples,
    rtt_ms: Samples,
    runs_per_flow_s: Samples,
    ns_per_run: Samples,
    empty_ns_per_run: Samples,
    percent: Samples,
    net_percent: Samples,
}

impl Table {
    fn add(&mut self, flows: u32, now: &Reading, then: &Reading) {
        let flow_s = (now.at - then.at).as_secs_f64() * f64::from(flows);
        let runs = (now.ours.1 - then.ours.1) as f64;
        let ns = (now.ours.0 - then.ours.0) as f64;
        let empty_runs = (now.empty.1 - then.empty.1) as f64;
        let empty = (now.empty.0 - then.empty.0) as f64 / empty_runs;
        let counts = now.counts.since(&then.counts);
        let samples: u64 = counts.rtt().iter().sum();
        self.mbit_per_s
            .push(counts.counters().bytes_acked as f64 * 8.0 / 1e6 / flow_s);
        self.rtt_ms
            .push(counts.counters().rtt_sum_us as f64 / 1e3 / samples as f64);
        self.runs_per_flow_s.push(runs / flow_s);
        self.ns_per_run.push(ns / runs);
        self.empty_ns_per_run.push(empty);
        // ns a second and flow, times 1,000 flows, of 10^9 ns: in percent.
        let percent = |ns: f64| ns / flow_s * 1_000.0 / 1e9 * 100.0;
        self.percent.push(percent(ns));
        self.net_percent.push(percent(ns - empty * runs));
    }

    fn print(&self, name: &str) {
        let (ns, empty) = (self.ns_per_run.median(), self.empty_ns_per_run.median());
        println!(
            "{name} {:>7.2} {:>7.1} {:>14.2} {ns:>7.0} {:>7.0} {empty:>7.0} {:>14.3} {:>6.3} {:>7.3} {:>7.3}",
            self.mbit_per_s.median(),
            self.rtt_ms.median(),
            self.runs_per_flow_s.median(),
            ns - empty,
            self.percent.median(),
            self.net_percent.median(),
            self.net_percent.quantile(0.25),
            self.net_percent.quantile(0.75)
        );
    }
}

fn measure(network: &Network, cgroup: &Cgroup, server: SocketAddr, players: Players) -> Result<()> {
    let mut probe = setup::load(&setup::plain(server)?)?;
    probe.attach(cgroup.path())?;
    let floor = Floor::attach(cgroup.path())?;
    let listen = players.listen(server);
    let edge = cgroup.within(|| Ok(Server::start(network.server(), &[listen])?))?;
    let mut plan = Plan::new("live", players.flows as usize, vec![server]).asking(
        ROUNDS + 2,
        players.segment_bytes(),
        players.pause(),
    );
    plan.start_spread = SEGMENT;
    let client = setup::players(network, plan)?;
    // Until all of them play.
    std::thread::sleep(SEGMENT);
    let mut table = Table::default();
    let mut before = Reading::now(&probe, &floor);
    for _ in 0..ROUNDS {
        std::thread::sleep(SEGMENT);
        let now = Reading::now(&probe, &floor);
        table.add(players.flows, &now, &before);
        before = now;
    }
    table.print(&players.name());
    client.stop()?;
    edge.stop()?;
    Ok(())
}
