//! The sections of `sampler.toml` about the work of the node: sampling, windows, bounds.
//!
//! In: one section of the file. Out: its typed form; a section or option that is absent has the
//! default that `Default` gives. Units are part of the names.

use std::path::PathBuf;

use toml::de::DeValue;

use service::config::error::{Findings, Wrong};
use service::config::reader::{
    Parsed, Section, absolute_path, boolean, choice, number, one_of, whole,
};

/// Measured cost of the walk of sampled sockets, nanoseconds a socket.
pub const WALK_NS_PER_SOCKET: u64 = 1_400;
/// What the walk may cost when every sampled flow is open, of one core.
pub const WALK_BUDGET_PERCENT: f64 = 2.0;
/// Most flows that may be sampled at once.
pub const MAX_SAMPLED_FLOWS: u64 = 4_194_304;

/// A sampling rate: 0 to 1.
pub(super) fn rate(value: &DeValue<'_>) -> Parsed<f64> {
    const ALLOWED: &str = "a number from 0.0 to 1.0, the share of new flows";
    number(value, ALLOWED).and_then(check_rate)
}

/// A sampling rate from elsewhere (the command line).
pub fn check_rate(rate: f64) -> Result<f64, Wrong> {
    match (0.0..=1.0).contains(&rate) {
        true => Ok(rate.abs()), // no -0.0
        false => Err(Wrong::new(
            format!("{rate} is out of range"),
            "a number from 0.0 to 1.0, the share of new flows",
        )),
    }
}

/// `[sampling]`
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Rate of every stream that has none of its own, 0 to 1.
    pub rate: f64,
    /// The key file; none: a random key in the state directory.
    pub key_file: Option<PathBuf>,
    /// Most flows that are sampled at once.
    pub max_sampled_flows: u32,
    /// No other sampler may follow flows of the same cgroup.
    pub alone: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            rate: 0.1,
            key_file: None,
            max_sampled_flows: 65_536,
            alone: true,
        }
    }
}

impl Sampling {
    pub(super) fn read(mut section: Section<'_>, findings: &mut Findings) -> Self {
        let default = Self::default();
        let max = u64::from(default.max_sampled_flows);
        let read = Self {
            rate: section.or(findings, "rate", default.rate, rate),
            key_file: section.optional(findings, "key_file", absolute_path),
            max_sampled_flows: section.or(findings, "max_sampled_flows", max, |value| {
                whole(value, 1..=MAX_SAMPLED_FLOWS)
            }) as u32,
            alone: section.or(findings, "alone", default.alone, boolean),
        };
        section.end(findings, &[]);
        read
    }
}

/// `[window]`
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Length of a window.
    pub length_ms: u32,
    /// Time between two walks of the open flows.
    pub walk_interval_ms: u32,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            length_ms: 1_000,
            walk_interval_ms: 1_000,
        }
    }
}

impl Window {
    pub(super) fn read(
        mut section: Section<'_>,
        sampling: &Sampling,
        findings: &mut Findings,
    ) -> Self {
        let default = Self::default();
        let length_ms = section.or(
            findings,
            "length_ms",
            u64::from(default.length_ms),
            |value| one_of(value, &[1_000, 2_000, 5_000, 10_000]),
        ) as u32;
        let mut given = false;
        let interval = u64::from(default.walk_interval_ms);
        let walk_interval_ms = section.or(findings, "walk_interval_ms", interval, |value| {
            given = true;
            let ms = whole(value, 10..=60_000)?;
            match ms < interval {
                true => within_budget(ms as u32, sampling.max_sampled_flows),
                false => Ok(ms),
            }
        }) as u32;
        let read = Self {
            length_ms,
            walk_interval_ms,
        };
        let percent = read.walk_percent(sampling.max_sampled_flows);
        if given && walk_interval_ms >= default.walk_interval_ms && percent > WALK_BUDGET_PERCENT {
            let place = section
                .value("walk_interval_ms")
                .map(|value| section.place_of(value));
            findings.warn(
                place.unwrap_or_else(|| section.place()),
                "window.walk_interval_ms",
                over_budget(walk_interval_ms, sampling.max_sampled_flows),
            );
        }
        section.end(findings, &[]);
        read
    }

    /// What the walk costs when `flows` are open, percent of one core.
    pub fn walk_percent(&self, flows: u32) -> f64 {
        walk_percent(self.walk_interval_ms, flows)
    }
}

fn walk_percent(interval_ms: u32, flows: u32) -> f64 {
    let walk_ms = f64::from(flows) * WALK_NS_PER_SOCKET as f64 / 1e6;
    walk_ms / f64::from(interval_ms) * 100.0
}

fn over_budget(interval_ms: u32, flows: u32) -> String {
    format!(
        "a walk every {interval_ms} ms costs {:.1} % of a core when all max_sampled_flows = {flows} \
         are open, more than {WALK_BUDGET_PERCENT} %",
        walk_percent(interval_ms, flows)
    )
}

/// An interval shorter than the default must fit the budget.
fn within_budget(ms: u32, flows: u32) -> Parsed<u64> {
    if walk_percent(ms, flows) <= WALK_BUDGET_PERCENT {
        return Ok(u64::from(ms));
    }
    let share = WALK_BUDGET_PERCENT / 100.0;
    let most_flows = f64::from(ms) * share * 1e6 / WALK_NS_PER_SOCKET as f64;
    Err(Wrong::new(
        over_budget(ms, flows),
        format!(
            "1000 or more, or sampling.max_sampled_flows of at most {}",
            most_flows as u64
        ),
    ))
}

/// `[state]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What outlives the daemon: the random key, the id of its last life.
    pub directory: PathBuf,
}

impl Default for State {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/lib/flowvitals"),
        }
    }
}

impl State {
    pub(super) fn read(mut section: Section<'_>, findings: &mut Findings) -> Self {
        let directory = section.or(
            findings,
            "directory",
            Self::default().directory,
            absolute_path,
        );
        section.end(findings, &[]);
        Self { directory }
    }
}

/// `[spool]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    /// Where events wait for the broker.
    pub directory: PathBuf,
    /// Bound of the spool; the oldest events go first.
    pub max_bytes: u64,
    /// What is not confirmed by then is brought to the disk.
    pub fsync_ms: u32,
    /// Speed of the replay after an outage.
    pub replay_events_per_s: u32,
}

impl Spool {
    /// The defaults, below a state directory.
    pub(super) fn below(state: &State) -> Self {
        Self {
            directory: state.directory.join("spool"),
            max_bytes: 268_435_456,
            fsync_ms: 1_000,
            replay_events_per_s: 1_000,
        }
    }

    pub(super) fn read(mut section: Section<'_>, state: &State, findings: &mut Findings) -> Self {
        let default = Self::below(state);
        let (fsync, replay) = (
            u64::from(default.fsync_ms),
            u64::from(default.replay_events_per_s),
        );
        let read = Self {
            directory: section.or(findings, "directory", default.directory, absolute_path),
            max_bytes: section.or(findings, "max_bytes", default.max_bytes, |value| {
                whole(value, 1 << 20..=1 << 40)
            }),
            fsync_ms: section.or(findings, "fsync_ms", fsync, |value| {
                whole(value, 10..=60_000)
            }) as u32,
            replay_events_per_s: section.or(findings, "replay_events_per_s", replay, |value| {
                whole(value, 1..=1_000_000)
            }) as u32,
        };
        section.end(findings, &[]);
        read
    }
}

impl Default for Spool {
    fn default() -> Self {
        Self::below(&State::default())
    }
}

/// What happens when the node spends more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitAction {
    /// The sampling rate goes down.
    Rate,
    /// The kernel side is detached.
    Detach,
    /// It is only logged.
    Log,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Of one core, kernel side and daemon together, over a minute.
    pub cpu_percent: f64,
    /// What happens above it.
    pub action: LimitAction,
    /// If this file exists, the kernel side is detached within a second.
    pub disable_file: PathBuf,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_percent: 1.0,
            action: LimitAction::Rate,
            disable_file: PathBuf::from("/etc/flowvitals/disabled"),
        }
    }
}

impl Limits {
    pub(super) fn read(mut section: Section<'_>, findings: &mut Findings) -> Self {
        let default = Self::default();
        let read = Self {
            cpu_percent: section.or(findings, "cpu_percent", default.cpu_percent, cpu_percent),
            action: section.or(findings, "action", default.action, action),
            disable_file: section.or(
                findings,
                "disable_file",
                default.disable_file,
                absolute_path,
            ),
        };
        section.end(findings, &[]);
        read
    }
}

fn cpu_percent(value: &DeValue<'_>) -> Parsed<f64> {
    const ALLOWED: &str = "a number from 0.01 to 100, percent of one core";
    number(value, ALLOWED).and_then(|percent| match (0.01..=100.0).contains(&percent) {
        true => Ok(percent),
        false => Err(Wrong::new(format!("{percent} is out of range"), ALLOWED)),
    })
}

fn action(value: &DeValue<'_>) -> Parsed<LimitAction> {
    let choices = [
        ("rate", LimitAction::Rate),
        ("detach", LimitAction::Detach),
        ("log", LimitAction::Log),
    ];
    choice(value, &choices)
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// How long the last events may take to leave.
    pub timeout_s: u32,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { timeout_s: 10 }
    }
}

impl Shutdown {
    pub(super) fn read(mut section: Section<'_>, findings: &mut Findings) -> Self {
        let default = u64::from(Self::default().timeout_s);
        let timeout_s = section.or(findings, "timeout_s", default, |value| {
            whole(value, 1..=300)
        }) as u32;
        section.end(findings, &[]);
        Self { timeout_s }
    }
}
