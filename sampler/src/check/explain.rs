//! Which stream takes one flow, why the others do not, and whether the flow is in the sample.
//!
//! Pure. The answer of the plain rules is held against the kernel's tables.

use std::fmt;
use std::net::SocketAddr;

use ebpf_abi::hash::{flow_hash, group, key_from_bytes, selected, threshold};

use crate::cli::Client;
use crate::config::key::Key;
use crate::config::overlap::cgroup_covers;
use crate::config::pattern::Net;
use crate::config::{Config, StreamConfig};
use crate::rules::{Mismatch, NewFlow, RuleSet, mismatch, tuple};

/// Streams that do not even have the address and port are listed up to this number.
const LISTED: usize = 10;

/// The flow in question.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Our end.
    pub local: SocketAddr,
    /// The client's end; the port is optional.
    pub client: Client,
    /// The listener's cgroup.
    pub cgroup: Option<&'a str>,
    /// The mark.
    pub mark: u32,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Name of the stream that takes the flow.
    pub stream: Option<String>,
    /// Its sampling rate.
    pub rate: f64,
    /// Whether the flow is in the sample; none: without key or port it cannot be told.
    pub selected: Option<bool>,
    lines: Vec<String>,
}

/// Answers a question; `None` is a bug: the kernel's tables say something else.
pub fn explain(config: &Config, question: &Question<'_>, key: Option<&Key>) -> Option<Explanation> {
    let client = SocketAddr::new(question.client.address, question.client.port.unwrap_or(0));
    let flow = NewFlow {
        local: question.local,
        remote: client,
        cgroup: question.cgroup,
        mark: question.mark,
    };
    let taker = RuleSet::new(&config.streams).classify(&flow);
    if kernel_says(config, &flow) != taker.map(|at| at as u32) {
        return None;
    }
    let mut lines = rule_lines(&config.streams, &flow, taker);
    let Some(stream) = taker.map(|at| &config.streams[at]) else {
        lines.push("no stream takes it: it is neither counted nor sampled".to_owned());
        return Some(Explanation {
            stream: None,
            rate: 0.0,
            selected: None,
            lines,
        });
    };
    let (selected, line) = selection(stream, question, client, key);
    lines.push(line);
    Some(Explanation {
        stream: Some(stream.name.clone()),
        rate: stream.rate,
        selected,
        lines,
    })
}

fn kernel_says(config: &Config, flow: &NewFlow<'_>) -> Option<u32> {
    let paths: Vec<&str> = config
        .streams
        .iter()
        .filter_map(|s| s.cgroup.as_deref())
        .collect();
    let id = |path: &str| {
        let at = paths.iter().position(|known| *known == path)?;
        Some(at as u64 + 1)
    };
    let tables = RuleSet::new(&config.streams)
        .compile(|at| at as u32, id)
        .ok()?;
    tables.lookup(&flow.tuple(), flow.mark, |id| {
        let path = usize::try_from(id)
            .ok()
            .and_then(|id| paths.get(id.checked_sub(1)?));
        path.zip(flow.cgroup)
            .is_some_and(|(rule, flow)| cgroup_covers(rule, flow))
    })
}

fn rule_lines(streams: &[StreamConfig], flow: &NewFlow<'_>, taker: Option<usize>) -> Vec<String> {
    let mut elsewhere = Vec::new();
    let mut lines = Vec::new();
    for (at, stream) in streams.iter().enumerate() {
        let why = match mismatch(stream, flow) {
            Some(Mismatch::Local) => {
                elsewhere.push(stream.name.as_str());
                continue;
            }
            Some(Mismatch::Remote) => {
                let nets: Vec<_> = stream.remote.iter().map(|n| Net(*n).to_string()).collect();
                format!("no: the client is not in remote = [{}]", nets.join(", "))
            }
            Some(Mismatch::Cgroup) => {
                let rule = stream.cgroup.as_deref().unwrap_or_default();
                match flow.cgroup {
                    Some(path) => format!("no: cgroup {path} is not in {rule}"),
                    None => format!("no: it wants cgroup {rule} (--cgroup says the flow's)"),
                }
            }
            Some(Mismatch::Mark) => {
                let rule = stream.mark.unwrap_or_default();
                format!(
                    "no: it wants mark {rule}, the flow has {} (--mark)",
                    flow.mark
                )
            }
            None if taker == Some(at) => {
                let entry = stream.local.iter().find(|entry| entry.contains(flow.local));
                let shown = entry.map(ToString::to_string).unwrap_or_default();
                format!("takes it by local = {shown}")
            }
            None => "would take it, but comes later".to_owned(),
        };
        lines.push(format!("{} ({}): {why}", stream.name, stream.places.stream));
    }
    match elsewhere.len() {
        0 => {}
        1..=LISTED => {
            lines.push(format!(
                "{}: no: {} is not in local",
                elsewhere.join(", "),
                flow.local
            ));
        }
        count => lines.push(format!(
            "{count} other streams: no: {} is not in local",
            flow.local
        )),
    }
    lines
}

fn selection(
    stream: &StreamConfig,
    question: &Question<'_>,
    client: SocketAddr,
    key: Option<&Key>,
) -> (Option<bool>, String) {
    let head = format!("stream {}, rate {}", stream.name, stream.rate);
    let Some(key) = key else {
        let line = format!("{head}: whether it is sampled cannot be told without the key");
        return (None, line);
    };
    if question.client.port.is_none() {
        let line = format!("{head}: whether it is sampled depends on the client's port");
        return (None, line);
    }
    let hash = flow_hash(key_from_bytes(key.bytes), &tuple(question.local, client));
    let sampled = selected(hash, threshold(stream.rate));
    let line = format!(
        "{head}: {} under key {:08x} (its place is {:.6}, group {})",
        if sampled { "sampled" } else { "not sampled" },
        key.id(),
        (hash >> 32) as f64 / 2f64.powi(32),
        group(hash)
    );
    (Some(sampled), line)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
