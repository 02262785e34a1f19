//! What an episode says to the world when something changes.

use sampler_event::Estimate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where an episode stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is wrong, as far as is known.
    Ok,
    /// Above the threshold, not for long enough yet.
    Pending,
    /// The alert is on.
    Firing,
    /// The alert is on; the value has fallen, not for long enough yet.
    Resolving,
    /// A change is suspected, and the rule has confirmed nothing. No state of an episode.
    Suspect,
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Ok → pending.
    Pending,
    /// Pending → ok.
    Withdrawn,
    /// The alert goes on: the only beginning of an episode.
    Fired,
    /// It is still on.
    Repeated,
    /// Firing → resolving.
    Resolving,
    /// Resolving → firing.
    Relapsed,
    /// The alert goes off: the only end of an episode.
    Resolved,
    /// It is still off; said again in case that the first word was lost.
    ResolvedRepeated,
    /// A change is suspected.
    Suspected,
    /// It still is.
    SuspectRepeated,
    /// It is suspected no more, or the alert has taken its place.
    SuspectEnded,
}

impl Kind {
    /// Whether Alertmanager is to hear of it.
    #[must_use]
    pub const fn is_alert(self) -> bool {
        matches!(
            self,
            Self::Fired | Self::Repeated | Self::Resolved | Self::ResolvedRepeated
        )
    }

    /// Whether it is about a suspicion, not an episode.
    #[must_use]
    pub const fn is_suspect(self) -> bool {
        matches!(
            self,
            Self::Suspected | Self::SuspectRepeated | Self::SuspectEnded
        )
    }
}

/// What raised the alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FiredBy {
    /// The interval's lower end stayed above the threshold.
    Rule,
    /// So many nodes saw a change in their pulses at the same time.
    Nodes(u32),
}

/// Why an episode ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The value stayed low.
    Cleared,
    /// The rule's schedule is over.
    ScheduleOver,
    /// The rule or the stream is no longer configured.
    RuleGone,
    /// Nothing was known for so long that the alert says nothing any more.
    EvidenceGone,
}

/// The highest estimate of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peak {
    /// The estimate.
    pub value: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// When, Unix ms.
    pub at_ms: u64,
}

impl Peak {
    /// Of one estimate.
    #[must_use]
    pub const fn of(estimate: &Estimate, at_ms: u64) -> Self {
        Self {
            value: estimate.value,
            low: estimate.low,
            high: estimate.high,
            at_ms,
        }
    }

    /// The higher one; of equals the first.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if other.value > self.value {
            other
        } else {
            self
        }
    }
}

/// What is to be published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Notice {
    /// What happened.
    pub kind: Kind,
    /// State after it.
    pub state: State,
    /// Number of the owner that says it; grows from owner to owner.
    pub owner_epoch: u64,
    /// Id of the episode; none before it fires. The same data give the same id.
    pub episode_id: Option<String>,
    /// When this was said, Unix ms.
    pub said_ms: u64,
    /// Event time at which the alert went on, Unix ms; while pending, since when.
    pub starts_at_ms: u64,
    /// When the alert ends, Unix ms: known once it is resolved, before that the moment until which the word holds; 0 while pending.
    pub ends_at_ms: u64,
    /// Estimated beginning of what is wrong, Unix ms.
    pub onset_ms: u64,
    /// What raised it.
    pub fired_by: Option<FiredBy>,
    /// Highest estimate so far.
    pub peak: Option<Peak>,
    /// How long the alert was on; when resolved.
    pub duration_ms: Option<u64>,
    /// Why it ended; when resolved.
    pub ended: Option<Ended>,
}
