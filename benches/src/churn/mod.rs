//! A long life: connections that come and go for an hour, all of them sampled, and what the daemon and its kernel side take meanwhile.
//!
//! In: `--minutes`. Out: a line of readings now and then, whether each of them stayed flat, and beside the program `churn.csv` and
//! `churn.svg` with all of them. Fails when one grew, when a connection was not counted, or when something was left in the kernel's map.
//! What makes the churn: [`RATE_PER_S`] connections a second with 1 % loss that end in six ways, long ones among them, and a reload
//! every half minute that adds and removes a stream with open flows.

mod flatness;
mod memory;
mod plot;
mod reading;
mod traffic;

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use lab::clock;
use lab::filter::{Selector, Towards};
use lab::kafka::Cluster;
use lab::network::{Network, Options};

use self::memory::MemoryGroup;
use self::reading::{Reading, Scraper};
use self::traffic::{RATE_PER_S, Site, Traffic};
use crate::daemons::Daemon;
use crate::site::broker_in;

/// How long it looks, unless it is told otherwise.
pub const LENGTH: Duration = Duration::from_secs(3_600);
const LOSS: f64 = 0.01;
const CLIENT_ADDRESSES: u8 = 8;
/// Between two readings.
const READ_EVERY: Duration = Duration::from_secs(2);
/// Between two reloads.
const RELOAD_EVERY: Duration = Duration::from_secs(30);
/// Printed lines of the whole run.
const LINES: u32 = 20;
/// After the last connection, until the walk has seen that none is left and the last window is counted.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that runs; taken away in the order of the fields.
struct Edge {
    daemon: Daemon,
    group: Option<MemoryGroup>,
    _cluster: Cluster,
    site: Site,
    network: Network,
    folder: tempfile::TempDir,
    brokers: Vec<String>,
}

impl Edge {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut network = Network::new(Options {
            client_addresses: CLIENT_ADDRESSES,
            ..Options::default()
        })?;
        network.set_loss(Towards::Client, &Selector::default(), LOSS)?;
        let cluster = broker_in(network.server())?;
        let site = Site::new(network.server_v4());
        let brokers = cluster.broker_list();
        write_config(&site, folder.path(), &brokers, true)?;
        let file = config_file(folder.path());
        let start = || Daemon::start(network.server(), "flowvitals-sampler", &file, "attached at");
        let (group, daemon) = match MemoryGroup::new("churn") {
            Ok(group) => {
                let daemon = group.within(start)?;
                (Some(group), daemon)
            }
            Err(error) => {
                println!("kernel memory is not read: {error:#}");
                (None, start()?)
            }
        };
        Ok(Self {
            daemon,
            group,
            _cluster: cluster,
            site,
            network,
            folder,
            brokers,
        })
    }

    /// The stream that comes and goes is there or not from now on.
    fn reload(&self, has_guest: bool) -> Result<()> {
        write_config(&self.site, self.folder.path(), &self.brokers, has_guest)?;
        self.daemon.reload()
    }
}

fn config_file(folder: &Path) -> PathBuf {
    folder.join("sampler.toml")
}

fn write_config(site: &Site, folder: &Path, brokers: &[String], has_guest: bool) -> Result<()> {
    let head = format!(
        "node = \"edge-07\"\n[sampling]\nrate = 1.0\nalone = false\n[state]\ndirectory = {:?}\n[kafka]\nbrokers = {brokers:?}\n\
         [limits]\naction = \"log\"\n",
        folder.join("state")
    );
    fs::write(config_file(folder), head + &site.streams(has_guest))?;
    Ok(())
}

/// Reads for so long, and judges.
pub fn run(length: Duration) -> Result<()> {
    let edge = Edge::start()?;
    println!(
        "{} min of {RATE_PER_S} connections a second, {:.0} % loss, all sampled; a stream comes or goes every {} s",
        length.as_secs_f64() / 60.0,
        LOSS * 100.0,
        RELOAD_EVERY.as_secs()
    );
    let readings = churn(&edge, length)?;
    let total = readings.last().context("no reading")?.connections;
    println!(
        "{total} connections, {:.0} a second; reads {}",
        total as f64 / length.as_secs_f64(),
        readings.len()
    );
    write_files(&readings)?;
    let grown = flatness::print(&readings);
    ensure!(grown.is_empty(), "grew: {}", grown.join(", "));
    Ok(())
}

/// The connections, the reloads and the readings; fails unless everything was counted once and nothing is left.
fn churn(edge: &Edge, length: Duration) -> Result<Vec<Reading>> {
    let (process, scraper) = (edge.daemon.process(), Scraper::new(&edge.network)?);
    let mut traffic = Traffic::start(&edge.network, &edge.site);
    let begin = clock::now();
    let mut readings = Vec::new();
    let (mut printed, mut reloads) = (0, 0);
    Reading::print_head();
    while begin.elapsed() < length {
        let at = begin.elapsed();
        traffic.go_on()?;
        if at >= RELOAD_EVERY * (reloads + 1) {
            reloads += 1;
            edge.reload(reloads % 2 == 0)?;
        }
        let connections = traffic.connections();
        let reading = Reading::of(at, connections, &process, &scraper, edge.group.as_ref())?;
        if at >= length * printed / LINES {
            printed += 1;
            reading.print();
        }
        readings.push(reading);
        clock::wait_until(READ_EVERY.saturating_sub(begin.elapsed() - at), || false);
    }
    let counts = traffic.stop()?;
    let mut last = (0.0, 0.0);
    let rest = clock::wait_until(PATIENCE, || {
        last = scraper
            .scrape()
            .map_or(last, |said| (said.map_entries(), said.flows_seen()));
        last == (0.0, counts as f64)
    });
    if !rest {
        bail!(
            "{} flows left in the map, {} of {counts} connections counted",
            last.0,
            last.1
        );
    }
    let difference = scraper.scrape()?.ledger_difference();
    ensure!(difference == 0.0, "the ledger is {difference} off");
    println!(
        "at the end: 0 entries in the map, {counts} of {counts} connections counted, ledger 0"
    );
    Ok(readings)
}

/// All readings, as a table and as a picture.
fn write_files(readings: &[Reading]) -> Result<()> {
    let program = env::current_exe()?;
    let table = program.with_file_name("churn.csv");
    fs::write(&table, reading::csv(readings))?;
    let picture = program.with_file_name("churn.svg");
    plot::draw(&picture, readings)?;
    println!("{} and {}", table.display(), picture.display());
    Ok(())
}
