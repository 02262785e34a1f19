//! The same work with the sampler off and on, in turn, so that what the machine does besides meets
//! every row alike: only the ratios mean anything.

use anyhow::Result;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

use sampler::kernel::probe::Probe;

use crate::{cgroup::Cgroup, floor::Floor, loopback::Loopback, setup, statistics::Samples};

/// What is attached in a row: nothing, an empty program, or the sampler at a rate of new flows.
#[derive(Clone, Copy)]
enum Row {
    Off,
    Empty,
    Server(f64),
    Both(f64),
}

/// An edge sees the server's ends only; attached to both, one machine does the work of two. What the
/// second "off" shows is chance.
const ROWS: [Row; 7] = [
    Row::Off,
    Row::Off,
    Row::Empty,
    Row::Server(0.0),
    Row::Server(0.1),
    Row::Server(1.0),
    Row::Both(0.1),
];

impl Row {
    fn name(self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Empty => "server ends, empty".to_owned(),
            Self::Server(rate) => format!("server ends, {} %", rate * 100.0),
            Self::Both(rate) => format!("both ends, {} %", rate * 100.0),
        }
    }

    /// Does `work` with it attached.
    fn during<T>(
        self,
        probe: &mut Probe,
        server: &Cgroup,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let (place, rate) = match self {
            Self::Off => return work(),
            Self::Empty => {
                let _floor = Floor::attach(server.path())?;
                return work();
            }
            Self::Server(rate) => (server.path(), rate),
            Self::Both(rate) => (server.mount(), rate),
        };
        setup::set_rate(probe, 0, rate);
        probe.attach(place)?;
        let outcome = work();
        probe.detach();
        outcome
    }
}

/// What is done and measured in each turn.
pub struct Work {
    /// Port of the server.
    pub port: u16,
    /// Turns of each row.
    pub rounds: usize,
    /// Connections in a turn.
    pub connections: usize,
    /// Bytes on each.
    pub bytes: usize,
    /// What a turn's cost is given per.
    pub unit: &'static str,
    /// The cost of a turn, from its CPU time in seconds.
    pub cost: fn(&Work, f64) -> f64,
}

impl Work {
    /// Runs it all, and prints the table.
    pub fn run(&self) -> Result<()> {
        let cgroup = Cgroup::new("server")?;
        let loopback = cgroup.within(|| Loopback::new(self.port))?;
        let mut probe = setup::load(&setup::plain(loopback.address())?)?;
        let mut costs = vec![Samples::default(); ROWS.len()];
        let mut random = StdRng::seed_from_u64(1);
        let mut order: Vec<usize> = (0..ROWS.len()).collect();
        for _ in 0..self.rounds {
            // By chance, so that no row always comes after the same other one.
            order.shuffle(&mut random);
            for &row in &order {
                let took = ROWS[row].during(&mut probe, &cgroup, || {
                    // The attach itself and the first runs after it are not what is measured.
                    loopback.run(self.connections / 5, self.bytes)?;
                    loopback.run(self.connections, self.bytes)
                })?;
                costs[row].push((self.cost)(self, took.as_secs_f64()));
            }
        }
        self.print(&costs);
        Ok(())
    }

    fn print(&self, costs: &[Samples]) {
        println!(
            "{} interleaved rounds of {} connections with {} bytes; ratios to \"off\" of the same round",
            self.rounds, self.connections, self.bytes
        );
        println!(
            "{:<20} {:>18} {:>19} {:>8} {:>17}",
            "attached to", self.unit, "quartiles", "on/off", "95 % interval"
        );
        for (row, cost) in ROWS.iter().zip(costs) {
            let pairs = cost.values().iter().zip(costs[0].values());
            let ratios: Samples = pairs.map(|(on, off)| on / off).collect();
            let (low, high) = ratios.median_interval();
            println!(
                "{:<20} {:>18.3} {:>9.3} {:>9.3} {:>8.4} {:>8.4} {:>8.4}",
                row.name(),
                cost.median(),
                cost.quantile(0.25),
                cost.quantile(0.75),
                ratios.median(),
                low,
                high
            );
        }
    }
}
