//! What was said, gathered to episodes and suspicions.
//!
//! Input: [`Heard`] in its order. Output: one [`Found`] per episode, one [`Suspected`] per suspicion. Limits: [`MAX_FOUND`] of each, those that
//! find no room are counted.

use std::collections::BTreeMap;

use sampler_event::Estimate;
use serde::Serialize;

use super::Heard;
use crate::alert::{Ended, FiredBy, Key, Kind, NodeShare, Notice, Peak, Record, State};

/// Episodes, and suspicions, that are kept.
pub const MAX_FOUND: usize = 100_000;

/// An episode.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// What it is about.
    #[serde(flatten)]
    pub key: Key,
    /// Its id.
    pub episode_id: String,
    /// Label of the alert.
    pub severity: String,
    /// What raised it.
    pub fired_by: Option<FiredBy>,
    /// Event time at which it went on, Unix ms.
    pub starts_at_ms: u64,
    /// When that was said, Unix ms.
    pub said_ms: u64,
    /// Estimated beginning of what is wrong, Unix ms.
    pub onset_ms: u64,
    /// Event time at which it went off, Unix ms; none: it is still on.
    pub ends_at_ms: Option<u64>,
    /// How long it was on, ms.
    pub duration_ms: Option<u64>,
    /// Why it ended.
    pub ended: Option<Ended>,
    /// The highest estimate.
    pub peak: Option<Peak>,
    /// The estimate that was judged when it went on.
    pub estimate: Option<Judged>,
    /// Nodes with data then, and those of them above the threshold by themselves.
    pub nodes_with_data: u64,
    /// See `nodes_with_data`.
    pub nodes_touched: u64,
    /// Nodes that should be in the estimate.
    pub nodes_expected: u64,
    /// Nodes that are.
    pub nodes_reported: u64,
    /// The worst of them.
    pub worst_nodes: Vec<NodeShare>,
}

/// An estimate with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// The estimate.
    pub value: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// Distinct sampled flows behind it.
    pub flows_sampled: u64,
}

impl From<&Estimate> for Judged {
    fn from(estimate: &Estimate) -> Self {
        Self {
            value: estimate.value,
            low: estimate.low,
            high: estimate.high,
            flows_sampled: estimate.flows_sampled,
        }
    }
}

/// The estimate that raised an alert: the rule's, or that of the pulses in which nodes agreed.
fn judged(heard: &Heard) -> Option<Judged> {
    let (notice, evidence) = (&heard.record.notice, &heard.evidence);
    match (notice.fired_by, notice.peak) {
        (Some(FiredBy::Nodes(_)), Some(peak)) => Some(Judged {
            value: peak.value,
            low: peak.low,
            high: peak.high,
            flows_sampled: evidence.flows_active,
        }),
        _ => evidence.estimate.as_ref().map(Judged::from),
    }
}

/// A suspicion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suspected {
    /// What it is about.
    #[serde(flatten)]
    pub key: Key,
    /// Event time at which it began, Unix ms.
    pub since_ms: u64,
    /// Estimated time of the change, Unix ms.
    pub onset_ms: u64,
    /// When it was over, Unix ms; none: it is not.
    pub ended_ms: Option<u64>,
    /// An alert took its place.
    pub confirmed: bool,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Episodes {
    /// Episodes in the order in which they were raised.
    pub found: Vec<Found>,
    /// Suspicions in their order.
    pub suspected: Vec<Suspected>,
    /// Those that found no room.
    pub crowded: u64,
    /// Place of the one that is on, by key.
    on: BTreeMap<Key, usize>,
    suspect: BTreeMap<Key, usize>,
}

impl Episodes {
    /// Takes in what was said.
    pub fn hear(&mut self, heard: &Heard) {
        let (record, notice) = (&heard.record, &heard.record.notice);
        match notice.kind {
            Kind::Fired => self.fired(heard),
            Kind::Suspected => self.suspected(record),
            Kind::SuspectEnded => {
                if let Some(at) = self.suspect.remove(&record.key) {
                    let suspected = &mut self.suspected[at];
                    suspected.ended_ms = Some(notice.ends_at_ms);
                    suspected.confirmed = matches!(notice.state, State::Firing | State::Resolving);
                }
            }
            _ if notice.kind.is_suspect() => {}
            _ => self.goes_on(&record.key, notice),
        }
    }

    fn fired(&mut self, heard: &Heard) {
        let (record, notice) = (&heard.record, &heard.record.notice);
        let evidence = &heard.evidence;
        if self.found.len() >= MAX_FOUND {
            self.crowded += 1;
            return;
        }
        self.on.insert(record.key.clone(), self.found.len());
        self.found.push(Found {
            key: record.key.clone(),
            episode_id: notice.episode_id.clone().unwrap_or_default(),
            severity: record.labels.get("severity").cloned().unwrap_or_default(),
            fired_by: notice.fired_by,
            starts_at_ms: notice.starts_at_ms,
            said_ms: notice.said_ms,
            onset_ms: notice.onset_ms,
            ends_at_ms: None,
            duration_ms: None,
            ended: None,
            peak: notice.peak,
            estimate: judged(heard),
            nodes_with_data: evidence.nodes_with_data,
            nodes_touched: evidence.nodes_touched,
            nodes_expected: evidence.nodes_expected,
            nodes_reported: evidence.nodes_reported,
            worst_nodes: record.worst_nodes.clone(),
        });
    }

    fn suspected(&mut self, record: &Record) {
        if self.suspected.len() >= MAX_FOUND {
            self.crowded += 1;
            return;
        }
        self.suspect
            .insert(record.key.clone(), self.suspected.len());
        self.suspected.push(Suspected {
            key: record.key.clone(),
            since_ms: record.notice.starts_at_ms,
            onset_ms: record.notice.onset_ms,
            ended_ms: None,
            confirmed: false,
        });
    }

    fn goes_on(&mut self, key: &Key, notice: &Notice) {
        let Some(&at) = self.on.get(key) else { return };
        let found = &mut self.found[at];
        found.peak = notice.peak.or(found.peak);
        if notice.kind == Kind::Resolved {
            found.ends_at_ms = Some(notice.ends_at_ms);
            found.duration_ms = notice.duration_ms;
            found.ended = notice.ended;
            self.on.remove(key);
        }
    }
}
