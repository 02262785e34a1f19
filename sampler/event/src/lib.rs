//! Contract between the sampler and the aggregator.
//!
//! Input: events as protobuf bytes, or the numbers of which a window is made. Output: events, merged sums, quantiles and
//! estimates with intervals. The crate is pure: it reads no clock and does no input or output. Units are the last part of a
//! name; times are Unix milliseconds, durations microseconds unless the name says otherwise.
#![forbid(unsafe_code)]

// What travels.
mod wire;

pub mod json;

// Times as counts.
mod layout;

mod histogram;

pub mod codec;

// Windows added up.
mod counters;

mod gauges;

mod histograms;

mod stratum;

mod sum;

// What the sums say about all flows.
mod estimate;

mod metric;

pub use codec::CodecError;
pub use counters::{Counters, GROUPS, Groups};
pub use estimate::{Estimate, Insufficient, Options, Sample, ratio, total};
pub use gauges::Gauges;
pub use histogram::{Bucket, Histogram, HistogramError};
pub use histograms::{HistogramKind, Histograms};
pub use json::{Event, to_json_line};
pub use layout::Layout;
pub use metric::Metric;
pub use prost::{DecodeError, Message};
pub use stratum::{Stratum, StratumKey, source_of};
pub use sum::{SumError, WindowSum};
pub use wire::{
    Flag, LifeCycle, NamespaceCounters, NodeHeartbeat, RttSource, StreamPulse, StreamState,
    StreamWindow,
};
