//! A suspicion as the world hears of it, beside the episode of a rule.
//!
//! Input: what the change detector sees. Output: notices of the state `suspect`, which pages nobody. It ends when the detector's alarm
//! ends, or when the episode fires: then the alert carries its onset.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::episode::{HOLDS_MS, Kind, Notice, Peak, REPEAT_MS, State};
use super::suspect::{Agreement, Suspicion};

/// What is suspected, for one rule and stream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Suspect {
    /// End of the pulse that gave the last bit of evidence, Unix ms.
    pub since_ms: u64,
    /// Estimated time of the change, Unix ms.
    pub onset_ms: u64,
    /// Segments retransmitted by segments sent since then.
    pub ratio: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// The learned ratio.
    pub baseline: f64,
    /// Sampled flows with data, at least.
    pub flows_active: u64,
    /// Nodes that see it by themselves. One: the others may be well.
    pub nodes: u32,
    /// Nodes heard of in the last seconds.
    #[serde(default)]
    pub nodes_present: u32,
    /// When it was said last, Unix ms.
    pub said_ms: u64,
}

impl Suspect {
    /// Of what the detector sees.
    #[must_use]
    pub const fn new(found: &Suspicion, now_ms: u64) -> Self {
        Self {
            since_ms: found.at_ms,
            onset_ms: found.onset_ms,
            ratio: found.ratio,
            low: found.low,
            high: found.high,
            baseline: found.baseline,
            flows_active: found.flows_active,
            nodes: found.nodes,
            nodes_present: found.nodes_present,
            said_ms: now_ms,
        }
    }

    /// Nodes see it too.
    pub const fn agree(&mut self, agreement: &Agreement) {
        self.nodes = agreement.nodes;
    }

    /// Takes in what the detector sees by now.
    pub const fn go_on(&mut self, found: &Suspicion) {
        (self.ratio, self.low, self.high) = (found.ratio, found.low, found.high);
        (self.baseline, self.flows_active) = (found.baseline, found.flows_active);
        (self.nodes, self.nodes_present) = (found.nodes, found.nodes_present);
    }

    /// Whether it is to be said again.
    #[must_use]
    pub const fn is_due(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.said_ms) >= REPEAT_MS
    }

    /// What is said. `state` is the one after it: of the episode, when the suspicion is over.
    #[must_use]
    pub fn notice(&self, kind: Kind, state: State, owner_epoch: u64, now_ms: u64) -> Notice {
        let over = kind == Kind::SuspectEnded;
        let ends_at_ms = match over {
            true => now_ms.max(self.since_ms),
            false => now_ms.saturating_add(HOLDS_MS),
        };
        Notice {
            kind,
            state,
            owner_epoch,
            episode_id: None,
            said_ms: now_ms,
            starts_at_ms: self.since_ms,
            ends_at_ms,
            onset_ms: self.onset_ms,
            fired_by: None,
            peak: Some(Peak {
                value: self.ratio,
                low: self.low,
                high: self.high,
                at_ms: self.since_ms,
            }),
            duration_ms: over.then(|| ends_at_ms - self.since_ms),
            ended: None,
        }
    }
}
