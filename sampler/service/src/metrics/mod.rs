//! Prometheus exposition: families of samples, written as text or protobuf, and read back.

pub mod family;
pub mod parse;
pub mod protobuf;
pub mod text;

pub use family::{Buckets, Family, Kind, Sample, Value, counter, gauge};
pub use parse::{ParseError, Parsed, ParsedSample, parse};
