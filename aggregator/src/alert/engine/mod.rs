//! All rules on all streams of the partitions that this aggregator owns.
//!
//! Input: events that were seen for the first time, the merged data after they were taken in, and the time. Output: [`Out`]s, in the
//! order in which they are to be done. Pure: no clock, no waiting.
//!
//! A rule looks at every whole second (or every common multiple of the nodes' windows) of its stream once, as early as the data allow:
//! when all expected nodes have reported it, or else when the watermark has passed it. Pulses go to the change detector at once; no slow
//! node is waited for there. A partition is owned from [`Engine::assign`] to [`Engine::revoke`]; nothing is judged before the history of
//! its topics is read ([`Engine::caught_up`]), and nothing is said any more once a later owner is heard of ([`Engine::hear_owner`]).
//! Limits: [`MAX_TRACKED`] pairs of rule and stream; those that find no room are counted.

//!
//! The way of the data: `ownership` says what is ours, `intake` takes in events, `judge` looks at what is due, each `stream` has its
//! `tracked` rules, `saying` is what comes out, `saved` what is left for the next owner.

mod ownership;

mod intake;

mod judge;
mod stream;
mod tracked;

mod saying;

mod saved;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::ownership::Held;
use self::saying::Saying;
use self::stream::Stream;
use super::changes::Changes;
use super::content::{Alert, Record};
use super::episode::State;
use super::nodata::NoData;
use super::rule::{Key, Rule};
use crate::merge::Live;

/// Pairs of a rule and a stream.
pub const MAX_TRACKED: usize = 65_536;

/// How the engine works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Events of a window may arrive this long after its end, ms.
    pub lateness_ms: u64,
    /// A node that was silent for so long is missed no more, ms.
    pub node_forget_after_ms: u64,
    /// A record of what is over leaves the alert topic after so long, ms.
    pub tombstone_after_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lateness_ms: 2_000,
            node_forget_after_ms: 900_000,
            tombstone_after_ms: 24 * 3_600_000,
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Out {
    /// To be said to everybody.
    Say(Box<Said>),
    /// To be taken out of the alert topic.
    Forget(Key),
    /// To be put into the state topic; no value: taken out of it.
    Save {
        /// Partition of the state topic: the one of the stream's windows.
        partition: i32,
        /// Key of the record.
        key: String,
        /// JSON.
        value: Option<String>,
    },
}

/// Something that is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// For the alert topic.
    pub record: Record,
    /// For Alertmanager, if it is to hear of it.
    pub alert: Option<Alert>,
}

/// What was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Observations that a rule has judged.
    pub evaluations: u64,
    /// Suspicions that began.
    pub suspects: u64,
    /// Records of the state topic that could not be read.
    pub state_unreadable: u64,
    /// Partitions lost to a later owner.
    pub superseded: u64,
    /// Pairs of a rule and a stream that found no room.
    pub crowded: u64,
}

/// How many pairs of rule and stream are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States {
    /// Nothing is on.
    pub ok: u64,
    /// Above the threshold, not for long enough.
    pub pending: u64,
    /// On.
    pub firing: u64,
    /// On, and falling.
    pub resolving: u64,
    /// Suspected, beside whatever the rule says.
    pub suspect: u64,
}

/// The engine.
pub struct Engine {
    site: String,
    options: Options,
    rules: Vec<Arc<Rule>>,
    /// Partitions of the window topic; none: not known.
    partitions: Option<i32>,
    held: BTreeMap<i32, Held>,
    /// Partition of streams whose windows or pulses came.
    seen: BTreeMap<String, i32>,
    streams: BTreeMap<String, Stream>,
    no_data: BTreeMap<String, NoData>,
    changes: Changes,
    tracked: usize,
    counts: Counts,
    out: Vec<Out>,
}

impl Engine {
    /// Owns nothing yet.
    #[must_use]
    pub fn new(site: impl Into<String>, rules: Vec<Arc<Rule>>, options: Options) -> Self {
        Self {
            site: site.into(),
            options,
            rules,
            partitions: None,
            held: BTreeMap::new(),
            seen: BTreeMap::new(),
            streams: BTreeMap::new(),
            no_data: BTreeMap::new(),
            changes: Changes::default(),
            tracked: 0,
            counts: Counts::default(),
            out: Vec::new(),
        }
    }

    /// How many partitions the window topic has: who owns a stream follows from it, also while no window comes.
    pub const fn set_partitions(&mut self, partitions: i32) {
        self.partitions = Some(partitions);
    }

    fn parts<'a>(
        &'a mut self,
        live: &'a Live,
        now_ms: u64,
    ) -> (&'a mut BTreeMap<String, Stream>, Saying<'a>) {
        let saying = Saying {
            live,
            changes: &self.changes,
            now_ms,
            tombstone_after_ms: self.options.tombstone_after_ms,
            out: &mut self.out,
        };
        (&mut self.streams, saying)
    }

    /// What is to be done by now.
    #[must_use]
    pub fn take(&mut self) -> Vec<Out> {
        for out in &self.out {
            if let Out::Say(said) = out
                && said.record.notice.kind == super::Kind::Suspected
            {
                self.counts.suspects += 1;
            }
        }
        std::mem::take(&mut self.out)
    }

    /// What was done since the start.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// How many pairs of rule and stream are in each state.
    #[must_use]
    pub fn states(&self) -> States {
        let mut states = States::default();
        let all = self.streams.values().flat_map(|s| s.tracked.values());
        for tracked in all {
            match tracked.episode.state() {
                State::Pending => states.pending += 1,
                State::Firing => states.firing += 1,
                State::Resolving => states.resolving += 1,
                State::Ok | State::Suspect => states.ok += 1,
            }
            states.suspect += u64::from(tracked.suspect.is_some());
        }
        states
    }

    /// The longest span that a rule looks back, with the one before it, ms.
    #[must_use]
    pub fn reach_ms(rules: &[Arc<Rule>]) -> u64 {
        let reach_ms = rules.iter().map(|rule| 2 * rule.over_ms() + rule.hold_ms);
        reach_ms.max().unwrap_or(0)
    }
}
