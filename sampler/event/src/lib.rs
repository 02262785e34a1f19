//! Contract between the sampler and the aggregator.
//!
//! Input: events as protobuf bytes, or the numbers of which a window is made. Output: events, merged sums, quantiles and
//! estimates with intervals. The crate is pure: it reads no clock and does no input or output. Units are the last part of a
//! name; times are Unix milliseconds, durations microseconds unless the name says otherwise.
#![forbid(unsafe_code)]

pub mod json;
mod wire;

pub use json::{Event, to_json_line};
pub use prost::{DecodeError, Message};
pub use wire::{
    Flag, LifeCycle, NamespaceCounters, NodeHeartbeat, RttSource, StreamPulse, StreamState,
    StreamWindow,
};
