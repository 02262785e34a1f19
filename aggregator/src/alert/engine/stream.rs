//! One stream that this aggregator owns, with its rules.
//!
//! Input: pulses, moments that are complete, the passing of time. Output: what is to be said and saved, in the order in which it
//! happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use sampler_event::{StreamPulse, WindowSum};

use super::Out;
use super::saved::{SavedStream, stream_key};
use super::saying::{Known, Saying, end_suspicion, tell};
use super::tracked::{Tracked, began, bury, keep_suspecting, resume, see};
use crate::alert::nodata::NoData;
use crate::alert::observe::observe;
use crate::alert::rule::RuleMetric;
use crate::alert::suspect::{Agreement, Change, StreamDetector};
use crate::merge::Presence;

/// The stream.
pub(super) struct Stream {
    pub name: String,
    pub partition: i32,
    pub owner_epoch: u64,
    /// None: no rule wants one.
    pub detector: Option<StreamDetector>,
    /// Nodes that agreed before the history was read to its end.
    agreement: Option<Agreement>,
    /// End of the newest pulse that the detector has learned from, Unix ms.
    learned_ms: u64,
    /// End of the last span that the rules have looked at, Unix ms.
    pub evaluated_ms: u64,
    /// When what was learned is saved next, Unix ms.
    pub save_at_ms: u64,
    pub tracked: BTreeMap<String, Tracked>,
}

impl Stream {
    pub(super) fn new(name: String, partition: i32, owner_epoch: u64) -> Self {
        Self {
            name,
            partition,
            owner_epoch,
            detector: None,
            agreement: None,
            learned_ms: 0,
            evaluated_ms: 0,
            save_at_ms: 0,
            tracked: BTreeMap::new(),
        }
    }

    /// Goes on with what another owner has learned.
    pub(super) fn restore(&mut self, saved: SavedStream) {
        self.detector = saved.detector;
        self.learned_ms = saved.learned_ms;
    }

    /// Takes in a pulse. While the history is read, nothing is said.
    pub(super) fn pulse(&mut self, pulse: &StreamPulse, live_now: bool, saying: &mut Saying<'_>) {
        let length_ms = u64::from(pulse.observed_ms.max(pulse.pulse_ms));
        let end_ms = pulse.pulse_start_ms.saturating_add(length_ms);
        let known = !live_now && end_ms <= self.learned_ms;
        let Some(detector) = self.detector.as_mut().filter(|_| !known) else {
            return;
        };
        let changes = detector.take(pulse);
        self.learned_ms = self.learned_ms.max(end_ms);
        for change in changes {
            match (live_now, change) {
                (true, change) => self.changed(change, saying),
                (false, Change::Agreed(agreement)) => self.agreement = Some(agreement),
                (false, Change::Ended { .. }) => self.agreement = None,
                (false, Change::Began(_)) => {}
            }
        }
    }

    /// The history is read: what it has left behind is news, after what the owner before said last.
    pub(super) fn caught_up(&mut self, no_data: Option<&NoData>, saying: &mut Saying<'_>) {
        let known = known(self.partition, self.detector.as_ref(), self.evaluated_ms);
        for tracked in self.tracked.values_mut() {
            let known = known.with_nodes(&tracked.rule, no_data);
            resume(tracked, &known, saying);
        }
        let gone = self.tracked.iter().filter(|(_, tracked)| tracked.gone);
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| self.close(name, saying));
        if let Some(found) = self.detector.as_ref().and_then(StreamDetector::suspected) {
            self.changed(Change::Began(found), saying);
        }
        if let Some(agreement) = self.agreement.take() {
            self.changed(Change::Agreed(agreement), saying);
        }
    }

    fn changed(&mut self, change: Change, saying: &mut Saying<'_>) {
        let known = known(self.partition, self.detector.as_ref(), self.evaluated_ms);
        let fast = |tracked: &&mut Tracked| tracked.rule.fast && !tracked.gone;
        for tracked in self.tracked.values_mut().filter(fast) {
            match &change {
                Change::Began(found) => began(tracked, found, &known, saying),
                Change::Agreed(agreement) => {
                    if let Some(suspect) = &mut tracked.suspect {
                        suspect.agree(agreement);
                    }
                    let rule = Arc::clone(&tracked.rule);
                    let fired = tracked.episode.agree(&rule, agreement, saying.now_ms);
                    tell(tracked, fired, &known, saying);
                }
                Change::Ended { .. } => end_suspicion(tracked, &known, saying),
            }
        }
    }

    /// All rules look at a span that ends at `at_ms`; how many did.
    pub(super) fn look(&mut self, at_ms: u64, presence: Presence, saying: &mut Saying<'_>) -> u64 {
        self.evaluated_ms = at_ms;
        let mut sums: BTreeMap<u64, WindowSum> = BTreeMap::new();
        let known = known(self.partition, self.detector.as_ref(), at_ms);
        let mut looked = 0;
        for tracked in self.tracked.values_mut() {
            let rule = Arc::clone(&tracked.rule);
            let in_force = rule.is_active(at_ms) && rule.metric != RuleMetric::NoData;
            if tracked.gone || !in_force {
                continue;
            }
            let over_ms = rule.over_ms();
            let sum = sums.entry(over_ms).or_insert_with(|| {
                saying
                    .live
                    .sum(&self.name, at_ms.saturating_sub(over_ms), at_ms)
            });
            let observation = observe(&rule, sum, at_ms, presence, false);
            looked += 1;
            see(tracked, &observation, &known, saying);
        }
        looked
    }

    /// The rules of missing data look at the nodes.
    pub(super) fn look_for_nodes(
        &mut self,
        no_data: &NoData,
        at_ms: u64,
        consuming: bool,
        saying: &mut Saying<'_>,
    ) {
        let known = Known {
            no_data: Some(no_data),
            ..known(self.partition, self.detector.as_ref(), at_ms)
        };
        for tracked in self.tracked.values_mut() {
            let rule = Arc::clone(&tracked.rule);
            if !tracked.gone && rule.metric == RuleMetric::NoData {
                let observation = no_data.observe(&rule, at_ms, consuming);
                see(tracked, &observation, &known, saying);
            }
        }
    }

    /// The time passes.
    pub(super) fn tick(&mut self, no_data: Option<&NoData>, saying: &mut Saying<'_>) {
        let now_ms = saying.now_ms;
        let change = self.detector.as_mut().and_then(|d| d.tick(now_ms));
        if let Some(change) = change {
            self.changed(change, saying);
        }
        let known = known(self.partition, self.detector.as_ref(), self.evaluated_ms);
        for tracked in self.tracked.values_mut() {
            let rule = Arc::clone(&tracked.rule);
            let known = known.with_nodes(&rule, no_data);
            let notice = tracked.episode.tick(&rule, now_ms);
            tell(tracked, notice, &known, saying);
            keep_suspecting(tracked, &known, saying);
            bury(tracked, known.partition, saying);
        }
        self.tracked
            .retain(|_, tracked| !(tracked.gone && tracked.is_over()));
    }

    /// A rule is not configured any more: what it raised ends.
    pub(super) fn close(&mut self, name: &str, saying: &mut Saying<'_>) {
        let known = known(self.partition, self.detector.as_ref(), self.evaluated_ms);
        if let Some(tracked) = self.tracked.get_mut(name) {
            tracked.gone = true;
            let notice = tracked.episode.close(saying.now_ms);
            tell(tracked, notice, &known, saying);
            end_suspicion(tracked, &known, saying);
        }
    }

    /// Saves what was learned.
    pub(super) fn save(&self, site: &str, no_data: Option<&NoData>, out: &mut Vec<Out>) {
        let saved = SavedStream {
            owner_epoch: self.owner_epoch,
            detector: self.detector.clone(),
            learned_ms: self.learned_ms,
            no_data: no_data.cloned(),
        };
        if saved.detector.is_none() && saved.no_data.is_none() {
            return;
        }
        if let Ok(value) = serde_json::to_string(&saved) {
            out.push(Out::Save {
                partition: self.partition,
                key: stream_key(site, &self.name),
                value: Some(value),
            });
        }
    }
}

/// What the stream's own parts add to what its rules say.
const fn known(partition: i32, detector: Option<&StreamDetector>, at_ms: u64) -> Known<'_> {
    Known {
        partition,
        detector,
        no_data: None,
        at_ms,
    }
}
