//! When an alert goes on, and when it goes off.
//!
//! Input: observations of one rule and stream, agreements of nodes, and the time. Output: notices to publish. Event time (`at_ms`, the
//! end of what was estimated) decides what is proven; the time of day (`now_ms`) only what is said again, and what is forgotten.
//!
//! ```text
//!        lower end above      … for hold_ms          value below clear_below
//!  ok ───────────────► pending ────────────► firing ◄─────────────────────────► resolving
//!   ▲ └──── two nodes agree ────────────────────►                                     │
//!   └──────────────────────────────────────────────────────── … for clear_for_ms ◄────┘
//! ```
//!
//! `schedule over` and `rule gone` also end what is firing, at once. What is provisional, incomplete or too thin to estimate neither raises nor clears: the clocks of holding and clearing stand
//! still. Only after [`EVIDENCE_GONE_MS`] without anything known is an alert given up, and says so. An input that flaps makes one
//! episode, because only a value that stays low ends it. `starts_at_ms` never changes after an episode fired, and its id follows from
//! key and `starts_at_ms`, so that another owner that sees the same data names it alike.
//!
//! An [`Episode`] is its own saved state. One that was read back says nothing until [`Episode::restore`] makes somebody its owner;
//! an owner that [hears](Episode::hear) of a later one falls silent.

mod notice;
mod streak;

use sampler_event::{Estimate, Insufficient};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

pub use self::notice::{Ended, FiredBy, Kind, Notice, Peak, State};
use self::streak::Streak;
use super::rule::{Key, QUORUM, Rule, RuleMetric, Verdict};
use super::suspect::Agreement;

/// An alert that is on is said again after so long.
pub const REPEAT_MS: u64 = 15_000;
/// Each time it is said to hold for so long: it lapses by itself if nobody says it any more.
pub const HOLDS_MS: u64 = 60_000;
/// That an alert is off is said again for so long.
pub const RESOLVED_REPEAT_MS: u64 = 300_000;
/// An alert of which nothing was known for so long is given up: nobody watches the stream any more.
pub const EVIDENCE_GONE_MS: u64 = 3_600_000;
/// An observation further ahead of the time of day is not believed: it would hide all that follow.
const AHEAD_MS: u64 = 60_000;

/// What is known at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// End of the span that was estimated, Unix ms.
    pub at_ms: u64,
    /// The estimate, or why there is none.
    pub estimate: Result<Estimate, Insufficient>,
    /// The end of the span is newer than the watermark: events may be on their way. A node that does not report does not make
    /// an observation provisional, the numbers of nodes say that.
    pub provisional: bool,
    /// Nodes that should be in it.
    pub nodes_expected: u64,
    /// Nodes that are, up to its end.
    pub nodes_reported: u64,
}

impl Observation {
    /// Whether it may decide anything: nothing is on its way, and at least [`QUORUM`] of the nodes are in it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let needed = self.nodes_expected as f64 * QUORUM;
        !self.provisional && self.nodes_expected > 0 && self.nodes_reported as f64 >= needed
    }

    fn judge(&self, rule: &Rule) -> Verdict {
        match self.is_complete() {
            true => rule.judge(&self.estimate),
            false => Verdict::Unknown,
        }
    }
}

/// Somebody else owns the episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("owner {owner_epoch} has taken over from owner {mine}")]
pub struct Superseded {
    /// The owner.
    pub owner_epoch: u64,
    /// Who wanted it.
    pub mine: u64,
}

/// One rule on one stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    key: Key,
    owner_epoch: u64,
    /// Whether this one may speak; nothing that was read back may.
    #[serde(skip)]
    owned: bool,
    /// Newest observation, Unix ms.
    at_ms: u64,
    phase: Phase,
    /// The one before, while it is said again.
    resolved: Option<Resolved>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Ok,
    Pending { above: Streak, peak: Peak },
    Firing(Incident),
    Resolving { incident: Incident, below: Streak },
}

/// An alert that went on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Incident {
    id: String,
    starts_at_ms: u64,
    onset_ms: u64,
    fired_by: FiredBy,
    peak: Peak,
    /// When it was said last, and when something was known last: times of day, Unix ms.
    said_ms: u64,
    known_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Resolved {
    incident: Incident,
    ends_at_ms: u64,
    ended: Ended,
    since_ms: u64,
}

impl Episode {
    /// A rule on a stream of which nothing is known yet.
    #[must_use]
    pub const fn new(key: Key, owner_epoch: u64) -> Self {
        Self {
            key,
            owner_epoch,
            owned: true,
            at_ms: 0,
            phase: Phase::Ok,
            resolved: None,
        }
    }

    /// Goes on with what another owner saved. What that one had proven of holding or clearing has to be proven again; an alert that
    /// is on stays on, under its id and since its `starts_at_ms`. [`Episode::resume`] says again what was said last.
    ///
    /// # Errors
    /// If the owner that saved it is a later one.
    pub fn restore(mut saved: Self, owner_epoch: u64, now_ms: u64) -> Result<Self, Superseded> {
        if saved.owner_epoch > owner_epoch {
            return Err(Superseded {
                owner_epoch: saved.owner_epoch,
                mine: owner_epoch,
            });
        }
        saved.owner_epoch = owner_epoch;
        saved.owned = true;
        match &mut saved.phase {
            Phase::Ok => {}
            Phase::Pending { above, .. } => above.restart(),
            Phase::Firing(incident) => incident.known_ms = now_ms,
            Phase::Resolving { incident, below } => {
                incident.known_ms = now_ms;
                below.restart();
            }
        }
        Ok(saved)
    }

    /// Says again where it stands: whether the last word of the owner before got through is not known, and the next one can hide it.
    /// None if there is nothing to be said of it. To be called before anything is decided.
    pub fn resume(&mut self, now_ms: u64) -> Option<Notice> {
        match &self.phase {
            Phase::Firing(_) | Phase::Resolving { .. } => self.say(Kind::Repeated, now_ms),
            Phase::Pending { .. } => self.pending_notice(Kind::Pending, State::Pending, now_ms),
            Phase::Ok => {
                self.resolved.as_mut()?.incident.said_ms = 0;
                self.repeat_resolved(now_ms)
            }
        }
    }

    /// That nothing is on.
    #[must_use]
    pub const fn nothing(&self, now_ms: u64) -> Notice {
        self.unfired_notice(Kind::Withdrawn, State::Ok, self.at_ms, None, now_ms)
    }

    /// Takes in what was saved by somebody. If it is a later owner, this one has lost the episode and says nothing any more; returns
    /// whether that is so now.
    pub fn hear(&mut self, saved: &Self) -> bool {
        let later = saved.owner_epoch > self.owner_epoch;
        let goes_on = !self.owned && saved.owner_epoch == self.owner_epoch;
        if saved.key == self.key && (later || goes_on) {
            *self = saved.clone();
            self.owned = false;
        }
        !self.owned
    }

    /// What it is about.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> State {
        match self.phase {
            Phase::Ok => State::Ok,
            Phase::Pending { .. } => State::Pending,
            Phase::Firing(_) => State::Firing,
            Phase::Resolving { .. } => State::Resolving,
        }
    }

    /// Id of the episode, if its alert is on.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.incident().map(|incident| incident.id.as_str())
    }

    /// Estimated beginning of what is wrong, Unix ms, if its alert is on.
    #[must_use]
    pub fn onset_ms(&self) -> Option<u64> {
        self.incident().map(|incident| incident.onset_ms)
    }

    /// Number of its owner.
    #[must_use]
    pub const fn owner_epoch(&self) -> u64 {
        self.owner_epoch
    }

    /// Whether it may be forgotten: nothing is on and nothing is to be said.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Ok) && self.resolved.is_none()
    }

    const fn incident(&self) -> Option<&Incident> {
        match &self.phase {
            Phase::Firing(incident) | Phase::Resolving { incident, .. } => Some(incident),
            Phase::Ok | Phase::Pending { .. } => None,
        }
    }

    /// Takes in an observation; one that is not newer than the last, or lies in the future, changes nothing.
    pub fn observe(&mut self, rule: &Rule, observation: &Observation, now_ms: u64) -> Vec<Notice> {
        if !self.owned {
            return Vec::new();
        }
        let mut decided = None;
        let at_ms = observation.at_ms;
        if at_ms > self.at_ms && at_ms <= now_ms.saturating_add(AHEAD_MS) {
            self.at_ms = at_ms;
            if rule.is_active(at_ms) && !rule.is_over(now_ms) {
                let verdict = observation.judge(rule);
                let known = match verdict {
                    Verdict::Unknown => None,
                    _ => observation.estimate.as_ref().ok(),
                };
                match known {
                    Some(estimate) => {
                        decided = self.decide(rule, verdict, Peak::of(estimate, at_ms), now_ms);
                    }
                    None => self.interrupt(),
                }
            }
        }
        decided.into_iter().chain(self.tick(rule, now_ms)).collect()
    }

    /// Nothing is known: no time is proven.
    const fn interrupt(&mut self) {
        match &mut self.phase {
            Phase::Pending { above: streak, .. } | Phase::Resolving { below: streak, .. } => {
                streak.interrupt();
            }
            Phase::Ok | Phase::Firing(_) => {}
        }
    }

    fn decide(
        &mut self,
        rule: &Rule,
        verdict: Verdict,
        found: Peak,
        now_ms: u64,
    ) -> Option<Notice> {
        let (at_ms, over_ms) = (found.at_ms, rule.over_ms());
        match &mut self.phase {
            Phase::Ok => match verdict {
                Verdict::Above => self.begin(rule, found, now_ms),
                _ => None,
            },
            Phase::Pending { above, peak } => {
                *peak = peak.max(found);
                if verdict != Verdict::Above {
                    let notice = self.pending_notice(Kind::Withdrawn, State::Ok, now_ms);
                    self.phase = Phase::Ok;
                    return notice;
                }
                above.extend(at_ms, over_ms);
                match above.has_lasted(rule.hold_ms) {
                    true => self.fire_held(rule, at_ms, now_ms),
                    false => None,
                }
            }
            Phase::Firing(incident) => {
                incident.know(found, now_ms);
                // The span of an observation can lie before what raised the alert.
                if verdict != Verdict::Below || at_ms <= incident.starts_at_ms {
                    return None;
                }
                let incident = incident.clone();
                self.phase = Phase::Resolving {
                    incident,
                    below: Streak::new(at_ms),
                };
                self.settle(rule, now_ms)
            }
            Phase::Resolving { incident, below } => {
                incident.know(found, now_ms);
                if verdict != Verdict::Below {
                    let incident = incident.clone();
                    self.phase = Phase::Firing(incident);
                    return self.say(Kind::Relapsed, now_ms);
                }
                below.extend(at_ms, over_ms);
                match below.has_lasted(rule.clear_for_ms) {
                    true => self.resolve(Ended::Cleared, at_ms, now_ms),
                    false => None,
                }
            }
        }
    }

    /// Ok → pending, and on if nothing has to be held.
    fn begin(&mut self, rule: &Rule, peak: Peak, now_ms: u64) -> Option<Notice> {
        self.phase = Phase::Pending {
            above: Streak::new(peak.at_ms),
            peak,
        };
        if rule.hold_ms == 0 {
            return self.fire_held(rule, peak.at_ms, now_ms);
        }
        self.pending_notice(Kind::Pending, State::Pending, now_ms)
    }

    /// The moment at which it begins to clear can be the one at which it has.
    fn settle(&mut self, rule: &Rule, now_ms: u64) -> Option<Notice> {
        if rule.clear_for_ms == 0 {
            return self.resolve(Ended::Cleared, self.at_ms, now_ms);
        }
        self.say(Kind::Resolving, now_ms)
    }

    fn fire_held(&mut self, rule: &Rule, at_ms: u64, now_ms: u64) -> Option<Notice> {
        let Phase::Pending { above, peak } = &self.phase else {
            return None;
        };
        // The first span that proved it may have been wrong from its beginning; a change detector knows better.
        let onset_ms = above.since_ms.saturating_sub(rule.over_ms());
        let peak = *peak;
        self.fire(FiredBy::Rule, at_ms, onset_ms, peak, now_ms)
    }

    fn fire(
        &mut self,
        fired_by: FiredBy,
        starts_at_ms: u64,
        onset_ms: u64,
        peak: Peak,
        now_ms: u64,
    ) -> Option<Notice> {
        self.resolved = None;
        self.phase = Phase::Firing(Incident {
            id: episode_id(&self.key, starts_at_ms),
            starts_at_ms,
            onset_ms,
            fired_by,
            peak,
            said_ms: now_ms,
            known_ms: now_ms,
        });
        self.say(Kind::Fired, now_ms)
    }

    /// Nodes agree that something changed: raises the alert at once if the rule allows it and the ratio since then, its lower end,
    /// is above the rule's threshold.
    pub fn agree(&mut self, rule: &Rule, agreement: &Agreement, now_ms: u64) -> Option<Notice> {
        let found = &agreement.suspicion;
        let allowed = rule.fast
            && rule.metric == RuleMetric::RetransRatio
            && rule.is_active(found.at_ms)
            && found.at_ms <= now_ms.saturating_add(AHEAD_MS);
        let proven =
            found.flows_active >= rule.min_flows && found.low.is_finite() && found.low > rule.above;
        // Old pulses that a new owner reads again speak of what is over.
        let news = found.at_ms > self.at_ms && self.incident().is_none();
        if !(self.owned && allowed && proven && news) {
            return None;
        }
        let peak = Peak {
            value: found.ratio,
            low: found.low,
            high: found.high,
            at_ms: found.at_ms,
        };
        let fired_by = FiredBy::Nodes(agreement.nodes);
        self.fire(fired_by, found.at_ms, found.onset_ms, peak, now_ms)
    }

    /// A change detector knows better when it began than the rule, whose spans are long. Only before it is clear, and only backwards
    /// to where the rule can have seen it.
    pub fn date_onset(&mut self, rule: &Rule, onset_ms: u64) {
        if let Phase::Firing(incident) = &mut self.phase
            && (incident.onset_ms..incident.starts_at_ms).contains(&onset_ms)
            && rule.metric == RuleMetric::RetransRatio
        {
            incident.onset_ms = onset_ms;
        }
    }

    /// The time passes: what is on is said again, what is over is closed. To be called about once a second, also when there is nothing
    /// to observe.
    pub fn tick(&mut self, rule: &Rule, now_ms: u64) -> Option<Notice> {
        if !self.owned {
            return None;
        }
        if rule.is_over(now_ms) {
            let end_ms = rule.active.map_or(now_ms, |active| active.end_ms);
            let closed = self.close_at(Ended::ScheduleOver, end_ms, now_ms);
            return closed.or_else(|| self.repeat_resolved(now_ms));
        }
        let Some(incident) = self.incident() else {
            return self.repeat_resolved(now_ms);
        };
        if now_ms.saturating_sub(incident.known_ms) >= EVIDENCE_GONE_MS {
            return self.close_at(Ended::EvidenceGone, now_ms, now_ms);
        }
        match now_ms.saturating_sub(incident.said_ms) >= REPEAT_MS {
            true => self.say(Kind::Repeated, now_ms),
            false => None,
        }
    }

    /// The rule or the stream is gone.
    pub fn close(&mut self, now_ms: u64) -> Option<Notice> {
        match self.owned {
            true => self.close_at(Ended::RuleGone, now_ms, now_ms),
            false => None,
        }
    }

    fn close_at(&mut self, ended: Ended, end_ms: u64, now_ms: u64) -> Option<Notice> {
        if let Phase::Pending { .. } = self.phase {
            let notice = self.pending_notice(Kind::Withdrawn, State::Ok, now_ms);
            self.phase = Phase::Ok;
            return notice;
        }
        self.resolve(ended, end_ms, now_ms)
    }

    fn resolve(&mut self, ended: Ended, end_ms: u64, now_ms: u64) -> Option<Notice> {
        let incident = self.incident().cloned()?;
        // Nothing that lies before this episode may begin another.
        self.at_ms = self.at_ms.max(incident.starts_at_ms);
        let resolved = Resolved {
            ends_at_ms: end_ms.max(incident.starts_at_ms),
            incident: Incident {
                said_ms: now_ms,
                ..incident
            },
            ended,
            since_ms: now_ms,
        };
        let notice = self.resolved_notice(&resolved, Kind::Resolved, now_ms);
        self.resolved = Some(resolved);
        self.phase = Phase::Ok;
        Some(notice)
    }

    fn repeat_resolved(&mut self, now_ms: u64) -> Option<Notice> {
        let mut resolved = self.resolved.take()?;
        if now_ms.saturating_sub(resolved.since_ms) > RESOLVED_REPEAT_MS {
            return None;
        }
        let due = now_ms.saturating_sub(resolved.incident.said_ms) >= REPEAT_MS;
        let notice = due.then(|| {
            resolved.incident.said_ms = now_ms;
            self.resolved_notice(&resolved, Kind::ResolvedRepeated, now_ms)
        });
        self.resolved = Some(resolved);
        notice
    }

    fn resolved_notice(&self, resolved: &Resolved, kind: Kind, now_ms: u64) -> Notice {
        let starts_at_ms = resolved.incident.starts_at_ms;
        Notice {
            state: State::Ok,
            ends_at_ms: resolved.ends_at_ms,
            duration_ms: Some(resolved.ends_at_ms - starts_at_ms),
            ended: Some(resolved.ended),
            ..self.notice(&resolved.incident, kind, now_ms)
        }
    }

    /// A notice of the alert that is on.
    fn say(&mut self, kind: Kind, now_ms: u64) -> Option<Notice> {
        if let Phase::Firing(incident) | Phase::Resolving { incident, .. } = &mut self.phase
            && kind.is_alert()
        {
            incident.said_ms = now_ms;
        }
        self.incident()
            .map(|incident| self.notice(incident, kind, now_ms))
    }

    fn notice(&self, incident: &Incident, kind: Kind, now_ms: u64) -> Notice {
        Notice {
            kind,
            state: self.state(),
            owner_epoch: self.owner_epoch,
            episode_id: Some(incident.id.clone()),
            said_ms: now_ms,
            starts_at_ms: incident.starts_at_ms,
            ends_at_ms: now_ms.saturating_add(HOLDS_MS),
            onset_ms: incident.onset_ms,
            fired_by: Some(incident.fired_by),
            peak: Some(incident.peak),
            duration_ms: None,
            ended: None,
        }
    }

    fn pending_notice(&self, kind: Kind, state: State, now_ms: u64) -> Option<Notice> {
        let Phase::Pending { above, peak } = &self.phase else {
            return None;
        };
        Some(self.unfired_notice(kind, state, above.since_ms, Some(*peak), now_ms))
    }

    /// A notice of what has not fired.
    const fn unfired_notice(
        &self,
        kind: Kind,
        state: State,
        since_ms: u64,
        peak: Option<Peak>,
        now_ms: u64,
    ) -> Notice {
        Notice {
            kind,
            state,
            owner_epoch: self.owner_epoch,
            episode_id: None,
            said_ms: now_ms,
            starts_at_ms: since_ms,
            ends_at_ms: 0,
            onset_ms: since_ms,
            fired_by: None,
            peak,
            duration_ms: None,
            ended: None,
        }
    }
}

impl Incident {
    fn know(&mut self, found: Peak, now_ms: u64) {
        self.peak = self.peak.max(found);
        self.known_ms = now_ms;
    }
}

/// Eight bytes of a hash, as text: who sees the same data finds the same id.
fn episode_id(key: &Key, starts_at_ms: u64) -> String {
    let hash = Sha256::digest(format!("{key}|{starts_at_ms}"));
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests;
