//! From a record's bytes to an event that holds to the contract, or the reason why it is none.
//!
//! Input: one Kafka record. Output: an [`Event`], or [`Refused`]. Fields that a newer schema added are passed over.
//! Limits: bytes per record, submessages per heartbeat and the lengths of names are checked before anything is allocated for
//! them; what passes takes at most some twenty times its bytes in memory. No bytes make it panic.

use std::fmt;

use prost::Message;
use sampler_event::{Event, NodeHeartbeat, StreamPulse, StreamWindow, SumError, WindowSum};
use service::config::names::{
    MAX_LABEL_NAME_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS, MAX_NAME_BYTES, MAX_NODE_BYTES, name,
};
use service::topics;
use thiserror::Error;

use super::shape::{Cut, submessages};

/// Lengths that a window can have, ms.
const WINDOW_MS: [u32; 4] = [1000, 2000, 5000, 10_000];
/// Lengths that a pulse can have, ms.
const PULSE_MS: [u32; 3] = [100, 200, 500];
/// Least sampling rate but 0: the hash that selects flows knows none below.
pub const MIN_RATE: f64 = 1.0 / (1_u64 << 33) as f64;
/// Numbers of a group field, if it has any.
const GROUPS: usize = sampler_event::GROUPS;
/// An event may end so long after the broker took it, and is then of a node whose clock is merely fast.
pub const FUTURE_MS: u64 = 60_000;
/// Largest window: its three histograms with every bucket in use by counts of 2^32 take 6 KiB, everything else 2 KiB.
const MAX_WINDOW_BYTES: usize = 16 * 1024;
/// Largest pulse; one of ours has 128 bytes.
const MAX_PULSE_BYTES: usize = 4 * 1024;
/// Largest heartbeat; one of 200 streams has about 20 KiB.
const MAX_NODE_MESSAGE_BYTES: usize = 1024 * 1024;
/// Streams of one heartbeat.
const MAX_STREAMS: usize = 4096;
/// Network namespaces of one heartbeat.
const MAX_NAMESPACES: usize = 1024;
/// Longest text of a heartbeat that is no name: versions, and why a stream is degraded.
const MAX_TEXT_BYTES: usize = 1024;
/// Numbers of the fields of submessages in `event.proto`.
const STREAMS_FIELD: u32 = 17;
const NAMESPACES_FIELD: u32 = 34;
const LABELS_FIELD: u32 = 7;

/// The topics that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Windows, by stream.
    Window,
    /// Pulses, by stream.
    Pulse,
    /// Heartbeats, by node.
    Node,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Window, Self::Pulse, Self::Node];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Window => topics::WINDOW,
            Self::Pulse => topics::PULSE,
            Self::Node => topics::NODE,
        }
    }

    /// The topic of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }

    /// Full name of its records' message, as their header `schema` has it.
    #[must_use]
    pub const fn schema(self) -> &'static str {
        match self {
            Self::Window => "flowvitals.v1.StreamWindow",
            Self::Pulse => "flowvitals.v1.StreamPulse",
            Self::Node => "flowvitals.v1.NodeHeartbeat",
        }
    }

    const fn max_bytes(self) -> usize {
        match self {
            Self::Window => MAX_WINDOW_BYTES,
            Self::Pulse => MAX_PULSE_BYTES,
            Self::Node => MAX_NODE_MESSAGE_BYTES,
        }
    }

    /// Place in an array of one thing per topic.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A record as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    /// Its topic.
    pub topic: Topic,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When the broker appended it, Unix time.
    pub append_ms: u64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its header `schema`.
    pub schema: Option<&'a [u8]>,
    /// Its value.
    pub payload: Option<&'a [u8]>,
}

/// A record that is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Refused {
    /// Why.
    pub reason: Reason,
}

/// Why a record is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It has no value.
    Empty,
    /// It is larger, or holds more, than any event does.
    TooLarge,
    /// It is no protobuf message of its kind.
    Undecodable,
    /// Its header `schema` is absent or names another message or version.
    Schema,
    /// Its key is not its stream, or its node.
    Key,
    /// The field of this name breaks the contract.
    Malformed(&'static str),
    /// It ends more than [`FUTURE_MS`] after the broker took it.
    Future,
}

impl Reason {
    /// Number of labels.
    pub const COUNT: usize = 7;
    /// All labels, in the order of [`Self::index`].
    pub const LABELS: [&'static str; Self::COUNT] = [
        "empty",
        "too_large",
        "undecodable",
        "schema",
        "key",
        "malformed",
        "future",
    ];

    /// Place in an array of one thing per label.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Empty => 0,
            Self::TooLarge => 1,
            Self::Undecodable => 2,
            Self::Schema => 3,
            Self::Key => 4,
            Self::Malformed(_) => 5,
            Self::Future => 6,
        }
    }

    /// One of a small fixed set of words, for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        Self::LABELS[self.index()]
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(field) => write!(f, "malformed: {field}"),
            other => f.write_str(other.label()),
        }
    }
}

/// The event of a record.
///
/// # Errors
/// If the record breaks the contract; the cheapest check that finds it out gives the reason.
pub fn decode(raw: &Raw<'_>) -> Result<Event, Refused> {
    event(raw).map_err(|reason| Refused { reason })
}

fn event(raw: &Raw<'_>) -> Result<Event, Reason> {
    let payload = raw.payload.filter(|payload| !payload.is_empty());
    let payload = payload.ok_or(Reason::Empty)?;
    if payload.len() > raw.topic.max_bytes() {
        return Err(Reason::TooLarge);
    }
    if raw.schema != Some(raw.topic.schema().as_bytes()) {
        return Err(Reason::Schema);
    }
    let (event, key, end_ms) = match raw.topic {
        Topic::Window => {
            let window: StreamWindow = message(payload)?;
            check_window(&window)?;
            let end_ms = end_ms(
                window.window_start_ms,
                window.window_ms.max(window.observed_ms),
            );
            (Event::Window(Box::new(window)), raw.key, end_ms)
        }
        Topic::Pulse => {
            let pulse: StreamPulse = message(payload)?;
            check_pulse(&pulse)?;
            let end_ms = end_ms(pulse.pulse_start_ms, pulse.pulse_ms.max(pulse.observed_ms));
            (Event::Pulse(pulse), raw.key, end_ms)
        }
        Topic::Node => {
            check_size(payload)?;
            let heartbeat: NodeHeartbeat = message(payload)?;
            check_heartbeat(&heartbeat)?;
            let end_ms = end_ms(heartbeat.window_start_ms, heartbeat.window_ms);
            (Event::Node(Box::new(heartbeat)), raw.key, end_ms)
        }
    };
    if key != Some(subject(&event).as_bytes()) {
        return Err(Reason::Key);
    }
    if end_ms > raw.append_ms.saturating_add(FUTURE_MS) {
        return Err(Reason::Future);
    }
    Ok(event)
}

/// What the event is about: the key of its record.
fn subject(event: &Event) -> &str {
    match event {
        Event::Window(window) => &window.stream,
        Event::Pulse(pulse) => &pulse.stream,
        Event::Node(heartbeat) => &heartbeat.node,
    }
}

fn message<M: Message + Default>(payload: &[u8]) -> Result<M, Reason> {
    M::decode(payload).map_err(|_| Reason::Undecodable)
}

fn end_ms(start_ms: u64, length_ms: u32) -> u64 {
    start_ms.saturating_add(u64::from(length_ms))
}

fn check_window(window: &StreamWindow) -> Result<(), Reason> {
    check_names(&window.node, &window.site, Some(&window.stream))?;
    check_time("window_ms", window.window_ms, &WINDOW_MS)?;
    check_start("window_start_ms", window.window_start_ms, window.window_ms)?;
    check_rate(window.sampling_rate)?;
    // The sum's own rules for rates, groups and histograms.
    WindowSum::check(window).map_err(|error| match error {
        SumError::Rate { .. } => Reason::Malformed("sampling_rate"),
        SumError::Groups { field, .. } | SumError::Histogram { field, .. } => {
            Reason::Malformed(field)
        }
        SumError::Stream { .. } => Reason::Malformed("stream"),
        SumError::RateConflict { .. } => Reason::Malformed("rate_epoch"),
        SumError::RttSource { .. } => Reason::Malformed("rtt_source"),
    })
}

fn check_pulse(pulse: &StreamPulse) -> Result<(), Reason> {
    check_names(&pulse.node, &pulse.site, Some(&pulse.stream))?;
    check_time("pulse_ms", pulse.pulse_ms, &PULSE_MS)?;
    check_start("pulse_start_ms", pulse.pulse_start_ms, pulse.pulse_ms)?;
    check_rate(pulse.sampling_rate)?;
    require(
        "g_retrans_segs",
        matches!(pulse.g_retrans_segs.len(), 0 | GROUPS),
    )
}

/// Bounds a heartbeat's submessages, whose memory is not bounded by their bytes.
fn check_size(payload: &[u8]) -> Result<(), Reason> {
    at_most(payload, NAMESPACES_FIELD, MAX_NAMESPACES)?;
    at_most(payload, STREAMS_FIELD, MAX_STREAMS)?;
    for stream in submessages(payload, STREAMS_FIELD) {
        at_most(stream.map_err(undecodable)?, LABELS_FIELD, MAX_LABELS)?;
    }
    Ok(())
}

fn at_most(message: &[u8], field: u32, most: usize) -> Result<(), Reason> {
    let mut found = 0_usize;
    for one in submessages(message, field) {
        one.map_err(undecodable)?;
        found += 1;
        if found > most {
            return Err(Reason::TooLarge);
        }
    }
    Ok(())
}

fn undecodable(_: Cut) -> Reason {
    Reason::Undecodable
}

fn check_heartbeat(heartbeat: &NodeHeartbeat) -> Result<(), Reason> {
    check_names(&heartbeat.node, &heartbeat.site, None)?;
    check_time("window_ms", heartbeat.window_ms, &WINDOW_MS)?;
    check_start(
        "window_start_ms",
        heartbeat.window_start_ms,
        heartbeat.window_ms,
    )?;
    for (field, text) in [
        ("version", &heartbeat.version),
        ("kernel_mode", &heartbeat.kernel_mode),
        ("kernel_release", &heartbeat.kernel_release),
    ] {
        require(field, text.len() <= MAX_TEXT_BYTES)?;
    }
    require(
        "config_sha256",
        matches!(heartbeat.config_sha256.len(), 0 | 32),
    )?;
    for state in &heartbeat.streams {
        require("streams", name(&state.stream, MAX_NAME_BYTES).is_ok())?;
        require("degraded", state.degraded.len() <= MAX_TEXT_BYTES)?;
        check_rate(state.sampling_rate)?;
        let labels = state.labels.iter().all(|(name, value)| {
            name.len() <= MAX_LABEL_NAME_BYTES && value.len() <= MAX_LABEL_VALUE_BYTES
        });
        require("labels", labels)?;
    }
    let mut namespaces = heartbeat.namespaces.iter();
    require(
        "netns",
        namespaces.all(|one| one.netns.len() <= MAX_TEXT_BYTES),
    )
}

fn check_names(node: &str, site: &str, stream: Option<&str>) -> Result<(), Reason> {
    require("node", name(node, MAX_NODE_BYTES).is_ok())?;
    require("site", name(site, MAX_NAME_BYTES).is_ok())?;
    let good = stream.is_none_or(|stream| name(stream, MAX_NAME_BYTES).is_ok());
    require("stream", good)
}

fn check_time(field: &'static str, length_ms: u32, allowed: &[u32]) -> Result<(), Reason> {
    require(field, allowed.contains(&length_ms))
}

fn check_start(field: &'static str, start_ms: u64, length_ms: u32) -> Result<(), Reason> {
    require(field, start_ms.is_multiple_of(u64::from(length_ms.max(1))))
}

fn check_rate(rate: f64) -> Result<(), Reason> {
    // As the sum of windows takes it: no −0, which would sort as another rate. A flow of a tiny rate would stand for more than a
    // number can hold.
    let some = (MIN_RATE..=1.0).contains(&rate);
    require(
        "sampling_rate",
        some || (rate == 0.0 && rate.is_sign_positive()),
    )
}

fn require(field: &'static str, holds: bool) -> Result<(), Reason> {
    if holds {
        Ok(())
    } else {
        Err(Reason::Malformed(field))
    }
}
