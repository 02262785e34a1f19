//! What is read: the daemon by `/proc`, its kernel memory by the memory controller, its map and its books by its own `/metrics`.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::network::Network;
use sampler::top::{DEFAULT_URL, Endpoint};
use service::metrics::Parsed;

use super::memory::MemoryGroup;
use super::traffic::GUEST;
use crate::process::{MIB, Process};

/// What one reading holds beside its time and the connections so far, in this order.
pub const QUANTITIES: [&str; 7] = [
    "descriptors",
    "threads",
    "map entries",
    "RSS MiB",
    "anonymous MiB",
    "maps MiB",
    "kernel MiB",
];

/// One moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Since the first connection.
    pub at: Duration,
    /// Connections begun.
    pub connections: usize,
    /// See [`QUANTITIES`]; NaN: cannot be read here.
    pub values: [f64; QUANTITIES.len()],
}

impl Reading {
    /// Reads everything now.
    pub fn of(
        at: Duration,
        connections: usize,
        process: &Process,
        scraper: &Scraper<'_>,
        group: Option<&MemoryGroup>,
    ) -> Result<Self> {
        let kernel = group.map(MemoryGroup::kernel_bytes).transpose()?;
        let values = [
            process.descriptors()? as f64,
            process.status("Threads")?,
            scraper.scrape()?.map_entries(),
            process.status_mib("VmRSS")?,
            process.status_mib("RssAnon")?,
            process.maps_mib()?,
            kernel.map_or(f64::NAN, |bytes| bytes as f64 / MIB),
        ];
        Ok(Self {
            at,
            connections,
            values,
        })
    }

    /// Prints what the columns are.
    pub fn print_head() {
        let names = QUANTITIES.map(|name| format!("{name:>14}"));
        println!("{:>8} {:>12}{}", "s", "connections", names.concat());
    }

    /// Prints one line.
    pub fn print(&self) {
        let values = self.values.map(|value| format!("{:>14}", shown(value)));
        let at = self.at.as_secs();
        println!("{at:>8} {:>12}{}", self.connections, values.concat());
    }
}

/// A whole number as such, others with two decimals, none as a dash.
pub fn shown(value: f64) -> String {
    if value.is_nan() {
        "-".to_owned()
    } else if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// All readings, comma-separated.
pub fn csv(readings: &[Reading]) -> String {
    let mut text = format!("seconds,connections,{}\n", QUANTITIES.join(","));
    for reading in readings {
        let values = reading.values.map(|value| value.to_string());
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:.1},{},{}",
            reading.at.as_secs_f64(),
            reading.connections,
            values.join(",")
        );
    }
    text
}

/// Asks the daemon for its metrics.
pub struct Scraper<'a> {
    network: &'a Network,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Scraper<'a> {
    /// For the daemon at the edge of this network.
    pub fn new(network: &'a Network) -> Result<Self> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build()?;
        Ok(Self { network, runtime })
    }

    /// What it says now.
    pub fn scrape(&self) -> Result<Said> {
        let ask = || {
            self.runtime
                .block_on(async { Endpoint::new(DEFAULT_URL)?.scrape().await })
        };
        let parsed = self.network.server().run_in(ask)?.context("/metrics")?;
        Ok(Said(parsed))
    }
}

/// One scrape.
pub struct Said(Parsed);

impl Said {
    /// Of all streams.
    fn sum(&self, name: &str, keep: impl Fn(&str) -> bool) -> f64 {
        let stream = |sample: &&service::metrics::ParsedSample| {
            sample.labels.get("stream").is_none_or(|name| keep(name))
        };
        let samples = self.0.samples.iter().filter(|sample| sample.name == name);
        samples.filter(stream).map(|sample| sample.value).sum()
    }

    /// Flows that the kernel's own iterator over the map has seen in its last walk.
    pub fn map_entries(&self) -> f64 {
        self.sum("flowvitals_stream_flows_open", |_| true)
    }

    /// Connections counted by the streams that stay.
    pub fn flows_seen(&self) -> f64 {
        self.sum("flowvitals_stream_flows_seen_total", |name| name != GUEST)
    }

    /// Sum of all differences of the ledger's laws.
    pub fn ledger_difference(&self) -> f64 {
        self.sum("flowvitals_ledger_difference", |_| true)
    }
}
