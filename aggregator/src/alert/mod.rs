//! When to raise an alert, and what it says.
//!
//! The way of the data: `rule` says what is watched, `suspect` sees a change in the pulses within fractions of a second,
//! `no_data` sees what is missing, `episode` decides from all of them when an alert begins and ends, `content` is what is sent.
//! All of it is pure: times are arguments, Unix milliseconds; nothing reads a clock or waits.

pub mod rule;

pub mod suspect;

pub mod nodata;

pub mod episode;

pub mod content;
mod rfc3339;

pub use content::{Alert, Evidence, Record};
pub use episode::{Ended, Episode, FiredBy, Kind, Notice, Observation, Peak, State, Superseded};
pub use nodata::NoData;
pub use rfc3339::utc;
pub use rule::{Active, Key, Rule, RuleMetric, Verdict};
pub use suspect::{Agreement, Change, Design, StreamDetector, Suspicion};
