//! Windows as rows: the window's own counts, and what the last 10 s say about all flows.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::Result;
use lab::network::Network;
use sampler_event::{
    HistogramKind, LifeCycle, Metric, NodeHeartbeat, Options, StreamWindow, WindowSum,
};

use super::alerts::Alerts;
use super::centre::Centre;
use super::last_ten::{self, KernelSeconds};
use super::play::Screen;
use super::stored;
use crate::consumer::{Consumer, Event};

/// Windows of 1 s behind an estimate.
const HORIZON: usize = 10;

/// What arrived so far.
#[derive(Default)]
pub struct Table {
    recent: BTreeMap<String, VecDeque<StreamWindow>>,
    whole: BTreeMap<String, WindowSum>,
    longest_stall_us: BTreeMap<String, u64>,
    last_node: Option<NodeHeartbeat>,
    windows: u64,
    bytes: u64,
    refused: u64,
}

impl Table {
    /// Adds an event, and prints it if it is a window and `show`.
    pub fn take(&mut self, event: Event, show: bool) {
        match event {
            Event::Malformed => self.refused += 1,
            Event::Alert(..) => {}
            Event::Node(node) => self.last_node = Some(*node),
            Event::Window(window, bytes) => {
                self.windows += 1;
                self.bytes += bytes as u64;
                let name = window.stream.clone();
                let sum = self.whole.entry(name.clone());
                let sum = sum.or_insert_with(|| WindowSum::new(name.as_str()));
                if sum.add(&window).is_err() {
                    self.refused += 1;
                    return;
                }
                let longest = self.longest_stall_us.entry(name.clone()).or_default();
                *longest = window.stall_longest_us.max(*longest);
                let recent = self.recent.entry(name).or_default();
                recent.push_back(*window);
                while recent.len() > HORIZON {
                    recent.pop_front();
                }
                if show {
                    row(recent);
                }
            }
        }
    }

    /// Whether the sampler's last heartbeat came.
    pub fn has_ended(&self) -> bool {
        let last = self.last_node.as_ref();
        last.is_some_and(|node| node.life_cycle() == LifeCycle::Stopping)
    }

    /// Per stream, everything.
    pub fn sums(&self) -> impl Iterator<Item = &WindowSum> {
        self.whole.values()
    }

    /// The longest stall that the windows of this stream tell of, microseconds.
    pub fn longest_stall_us(&self, stream: &str) -> u64 {
        self.longest_stall_us.get(stream).copied().unwrap_or(0)
    }

    /// The newest heartbeat.
    pub fn last_node(&self) -> Option<&NodeHeartbeat> {
        self.last_node.as_ref()
    }

    /// Windows, their bytes, and events that were none.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.windows, self.bytes, self.refused)
    }
}

/// The table as it grows by what comes out of Kafka.
pub struct Windows<'a> {
    /// Where they come from.
    pub consumer: &'a Consumer,
    /// Where they go.
    pub table: Table,
    /// Who tells of alerts.
    pub centre: &'a Centre,
    /// What they said.
    pub alerts: Alerts,
    /// The kernel's own counter.
    pub kernel: KernelSeconds,
}

impl Screen for Windows<'_> {
    fn title(&mut self, title: &str) {
        println!(
            "\n== {title}\n{:<8} {:<8} {:>5} {:>8} {:>8}  {:<32} {:>8} {:>8} {:>7}",
            "UTC",
            "stream",
            "rate",
            "players",
            "Mbit/s",
            "retransmitted, last 10 s (95 %)",
            "rtt p50",
            "rtt p99",
            "stalled"
        );
    }

    fn loses(&mut self, stream: &str) {
        self.alerts.began(stream);
    }

    fn show(&mut self, network: &Network) -> Result<()> {
        self.kernel.look(network)?;
        for event in self.consumer.drain(Duration::from_millis(100)) {
            if let Event::Alert(record, append_ms) = &event {
                self.alerts.said(record, *append_ms);
            }
            self.table.take(event, true);
        }
        self.alerts.paged(&self.centre.notifications());
        Ok(())
    }

    fn account(&mut self, network: &Network) -> Result<()> {
        let span = last_ten::print(&self.kernel, self.centre, network)?;
        match (span, self.centre.cassandra()) {
            (Some(end_s), Some(cassandra)) => stored::print(cassandra, network, end_s),
            _ => Ok(()),
        }
    }
}

fn row(recent: &VecDeque<StreamWindow>) {
    let Some(window) = recent.back() else { return };
    let mut sum = WindowSum::new(window.stream.as_str());
    // Each was added to the whole before, so each can be added.
    if recent.iter().any(|window| sum.add(window).is_err()) {
        return;
    }
    let all_flows = 1.0 / window.sampling_rate;
    let seconds = f64::from(window.observed_ms.max(1)) / 1_000.0;
    let ratio = match Metric::RetransRatio.estimate(&sum, &Options::default()) {
        Ok(estimate) => format!(
            "{:>6.2} %  [{:.2}, {:.2}]",
            estimate.value * 100.0,
            estimate.low * 100.0,
            estimate.high * 100.0
        ),
        Err(reason) => reason.to_string(),
    };
    let rtt = |q| {
        let kind = HistogramKind::Rtt(window.rtt_source);
        let us = sum.quantile_us(kind, q);
        us.map_or_else(
            || "-".to_owned(),
            |us| format!("{:.1} ms", us as f64 / 1_000.0),
        )
    };
    println!(
        "{:<8} {:<8} {:>5.2} {:>8.0} {:>8.1}  {:<32} {:>8} {:>8} {:>7.0}",
        time_of_day(window.window_start_ms),
        window.stream,
        (window.sampling_rate * 1e6).round() / 1e6,
        window.flows_open as f64 * all_flows,
        window.bytes_sent as f64 * all_flows * 8.0 / 1e6 / seconds,
        ratio,
        rtt(0.5),
        rtt(0.99),
        window.stalls_open as f64 * all_flows,
    );
}

fn time_of_day(unix_ms: u64) -> String {
    let s = unix_ms / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}
