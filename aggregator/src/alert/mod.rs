//! When to raise an alert, and what it says.
//!
//! The way of the data: `rule` says what is watched, `suspect` sees a change in the pulses within fractions of a second,
//! `no_data` sees what is missing, `observe` what a rule sees, `episode` decides from all of them when an alert begins and ends, `evidence` is
//! gathered when there is something to say, `content` is what is sent. `engine` has all of them for all rules and streams; `board` is
//! what was said by anybody.
//! All of it is pure: times are arguments, Unix milliseconds; nothing reads a clock or waits.

pub mod rule;

mod observe;
mod silent;

pub mod suspect;

pub mod nodata;

pub mod episode;
pub mod suspected;

mod changes;
pub mod evidence;

pub mod content;
mod rfc3339;

pub mod engine;

pub mod board;

pub use board::Board;
pub use content::{Alert, Record};
pub use engine::Engine;
pub use episode::{Ended, Episode, FiredBy, Kind, Notice, Observation, Peak, State, Superseded};
pub use evidence::{Evidence, NodeShare};
pub use nodata::NoData;
pub use rfc3339::utc;
pub use rule::{Active, Key, Rule, RuleMetric, Verdict};
pub use suspect::{Agreement, Change, Design, NodeView, StreamDetector, Suspicion};
