//! What a right configuration means, as text for a person.

use std::fmt::Display;
use std::io::{self, Write};
use std::thread::available_parallelism;

use crate::config::key::SamplingKey;
use crate::config::pattern::Net;
use crate::config::{Config, StreamConfig, WALK_BUDGET_PERCENT, WALK_NS_PER_SOCKET};

use super::machine::Report;
use crate::kernel::memory::Size;
use crate::spool::expected_room;

/// Entries of a list that are shown before "and N more".
const SHOWN: usize = 4;

/// Writes the summary; `machine` is none when this machine was not looked at.
pub(super) fn write(
    config: &Config,
    machine: Option<&Report>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let files = config.files.len();
    writeln!(out, "node {}, site {}", config.node_name(), config.site)?;
    writeln!(
        out,
        "configuration: {files} file(s), sha256 {}",
        config.sha256_hex()
    )?;
    writeln!(out, "sampling: {}", key_text(config, machine))?;
    writeln!(
        out,
        "window: {} ms; {}",
        config.window.length_ms,
        walk_text(config)
    )?;
    write_outlets(config, machine, out)?;
    write_memory(config, out)?;
    if config.streams.is_empty() {
        return writeln!(out, "no streams: nothing is sampled");
    }
    writeln!(
        out,
        "streams: {}, tried in this order:",
        config.streams.len()
    )?;
    config
        .streams
        .iter()
        .try_for_each(|stream| writeln!(out, "  {}", stream_text(stream)))
}

fn key_text(config: &Config, machine: Option<&Report>) -> String {
    let source = match config.sampling_key() {
        SamplingKey::FromFile { path, .. } => format!("from {}", path.display()),
        SamplingKey::FromState { path } => format!("of this node only, in {}", path.display()),
    };
    let key = match machine.map(|report| report.key.as_ref().map(|key| key.id())) {
        None => "key not read (offline)".to_owned(),
        Some(Some(id)) => format!("key {id:08x}"),
        Some(None) => "key not there yet".to_owned(),
    };
    format!(
        "{key}, {source}; at most {} flows at a time",
        config.sampling.max_sampled_flows
    )
}

fn walk_text(config: &Config) -> String {
    let flows = config.sampling.max_sampled_flows;
    let percent = config.window.walk_percent(flows);
    let interval_ms = config.window.walk_interval_ms;
    let mut text =
        format!("walk every {interval_ms} ms, {percent:.1} % of a core if all {flows} are open");
    if percent > WALK_BUDGET_PERCENT {
        let interval_ns = u64::from(interval_ms) * 1_000_000;
        let fitting = interval_ns as f64 * WALK_BUDGET_PERCENT / 100.0 / WALK_NS_PER_SOCKET as f64;
        text += &format!(" ({WALK_BUDGET_PERCENT} % at {})", fitting as u64);
    }
    text
}

fn write_outlets(config: &Config, machine: Option<&Report>, out: &mut dyn Write) -> io::Result<()> {
    match config.kafka.brokers.as_slice() {
        [] => writeln!(out, "events: to standard output, no [kafka] brokers")?,
        brokers => {
            writeln!(
                out,
                "events: to topic {} at {}",
                config.kafka.topic,
                listed(brokers)
            )?;
            writeln!(out, "{}", spool_text(config))?;
        }
    }
    let running = match machine {
        Some(report) if report.already_running => " (a sampler runs there already)",
        _ => "",
    };
    writeln!(
        out,
        "metrics: http://{}/metrics{running}",
        config.metrics.listen
    )
}

fn spool_text(config: &Config) -> String {
    let spool = &config.spool;
    let room = expected_room(
        spool.max_bytes,
        config.streams.len(),
        config.window.length_ms,
    );
    format!(
        "spool: {}, at most {} bytes: {} minutes without a broker if every stream is active; replay {} events/s",
        spool.directory.display(),
        spool.max_bytes,
        room.as_secs() / 60,
        spool.replay_events_per_s
    )
}

fn write_memory(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let cpus = available_parallelism().map_or(1, |cpus| cpus.get() as u32);
    let streams = config.streams.len() as u32;
    let memory = Size::new(streams, cpus).memory(config.sampling.max_sampled_flows);
    let fixed_bytes = memory.rules_bytes + memory.cells_bytes;
    writeln!(
        out,
        "kernel memory: {fixed_bytes} bytes ({} rules, {} cells of {streams} streams on {cpus} \
         CPUs), and at most about {} bytes for flows",
        memory.rules_bytes, memory.cells_bytes, memory.flows_bytes
    )
}

fn stream_text(stream: &StreamConfig) -> String {
    let mut text = format!(
        "{}: rate {}, local {}",
        stream.name,
        stream.rate,
        listed(&stream.local)
    );
    if !stream.remote.is_empty() {
        let nets: Vec<_> = stream.remote.iter().map(|net| Net(*net)).collect();
        text += &format!(", remote {}", listed(&nets));
    }
    if let Some(cgroup) = &stream.cgroup {
        text += &format!(", cgroup {cgroup}");
    }
    if let Some(mark) = stream.mark {
        text += &format!(", mark {mark}");
    }
    if stream.pulse_ms > 0 {
        text += &format!(", pulse every {} ms", stream.pulse_ms);
    }
    text
}

fn listed<T: Display>(items: &[T]) -> String {
    let shown: Vec<_> = items.iter().take(SHOWN).map(T::to_string).collect();
    match items.len().checked_sub(SHOWN) {
        None | Some(0) => shown.join(" "),
        Some(more) => format!("{} and {more} more", shown.join(" ")),
    }
}
