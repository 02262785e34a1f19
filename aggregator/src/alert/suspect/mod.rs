//! Seeing a change within fractions of a second.
//!
//! Input: pulses of one stream, as they arrive. Output: that retransmissions have risen, since when, and whether single nodes say so
//! too. A suspicion does not page; two nodes that agree may.
//!
//! # Statistic
//!
//! In a pulse of node i, y segments were retransmitted where the node's own learned level lets μᵢ·x be expected, x being the segments
//! sent. The log likelihood ratio of a level ρ times as high against the learned one, of counts whose variance is F times their mean
//! (a quasi-Poisson model), is
//!
//! ```text
//! z = (y · ln ρ − (ρ − 1) · μᵢx) / F      S ← max(0, S + z)      alarm at S ≥ A      onset: S's last zero
//! ```
//!
//! That is Page's CUSUM (1954), in the usual form of counts with the reference value k = μx · (ρ − 1)/ln ρ and the decision interval
//! h = F · A/ln ρ (Hawkins & Olwell 1998, Poisson CUSUM); k is between the level and its ρ-fold, here 1.82 times the level. It adds up
//! over the nodes in order of arrival: nothing waits for a slow node, and each pulse weighs what it saw. Because every node is held against
//! its own level, a node that drains or comes back does not shift the stream.
//!
//! # How often, how soon
//!
//! Without a change the mean time to a false alarm of a likelihood ratio CUSUM is at least e^A steps (Lorden 1971); real retransmits are
//! not independent counts, so the bound says little and a simulation says the rest (`--example false_alarms`, its seeds are options; what
//! it takes for usual life, and why, is written there). With a change to ρ times the level, S rises by I = μx(ρ ln ρ − ρ + 1)/F a pulse.
//! What limits it is the spread of what a hundred flows lose: clusters, flows that are not alike, players that fetch at the same moments.
//!
//! # What keeps it quiet
//!
//! * Level and F are exponential means over ten minutes of traffic, frozen while it alarms. F is measured over blocks of a few pulses, so
//!   that it holds what pulses in a row have in common. What was learned from few retransmits is taken two standard deviations higher.
//! * The level is learned by class of traffic too: what is counted does not rise in proportion to it.
//! * Retransmits trail what they repair: x is at least the recent traffic, so a burst of segments, or an audience that leaves, does
//!   not raise the ratio behind it.
//! * A random group of flows counts up to a bound, and no pulse lifts S by more than half of A: one flow, or one pulse, is not an alarm.
//!   Without the two groups that brought most the last moments must still be twice as high as expected, unless S is far above A.
//! * A node is not listened to until it was learned for 30 seconds of traffic, nor for 30 seconds after its daemon began anew.
//! * A stream of fewer than 50 active sampled flows is not suspected.
//! * A level that stays for 15 minutes is the new normal.
//!
//! All of it but the design is serialisable. Limits: [`MAX_NODES`] nodes a stream; pulses of more are counted and dropped.

mod baseline;
mod cusum;
mod node;
mod recent;

use std::collections::BTreeMap;

use sampler_event::{Flag, StreamPulse};
use serde::{Deserialize, Serialize};

use self::baseline::Dispersion;
use self::cusum::{Cusum, Moved, Step};
use self::node::Node;

/// Nodes kept for a stream.
pub const MAX_NODES: usize = 256;

/// How the detector is laid out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    /// ρ: the change that is sought, as a multiple of the level.
    pub ratio: f64,
    /// A: evidence that alarms.
    pub threshold: f64,
    /// A of a node by itself: it only seconds what the stream has seen.
    pub node_threshold: f64,
    /// Part of A that one pulse can bring.
    pub most_at_once: f64,
    /// The sum stops at so many times A, so that the end is seen too.
    pub ceiling: f64,
    /// A lower level counts as this one: three times next to nothing is nothing.
    pub least_ratio: f64,
    /// Retransmits that a group may always have in a pulse.
    pub few: f64,
    /// It may have so many times the expected ones besides.
    pub group_most: f64,
    /// So many random groups, those that brought most, are left out to see whether a change is broad.
    pub trim: usize,
    /// Part of A that the others must have brought.
    pub trimmed: f64,
    /// At so many times A that is not asked any more.
    pub strong: f64,
    /// What they have brought is forgotten with this time constant, ms.
    pub breadth_ms: f64,
    /// Sampled flows that a stream must have to be suspected: fewer are no evidence of a network.
    pub min_flows: u64,
    /// Length of the blocks from which the dispersion of what is weighed is learned, ms.
    pub block_ms: u64,
    /// F before anything is known of it.
    pub guess: f64,
    /// That guess weighs as much as so many retransmits.
    pub guess_retrans: f64,
    /// Time constant of what is learned, ms of traffic.
    pub learn_ms: f64,
    /// Time constant of the recent traffic, ms.
    pub recent_ms: f64,
    /// Traffic from which a node is learned before the stream listens to it, ms.
    pub node_ms: u64,
    /// Traffic from which a stream is learned before it may alarm, ms.
    pub stream_ms: u64,
    /// A node whose daemon began anew is not listened to for so long, ms.
    pub quiet_ms: u64,
    /// A node that was away for so long is learned anew, ms.
    pub stale_ms: u64,
    /// An alarm of so long is the new normal, ms.
    pub adopt_ms: u64,
    /// An alarm without pulses ends after so long, ms.
    pub lost_ms: u64,
    /// Nodes agree if the changes that they saw began within so long before or after the stream's, ms.
    pub agree_ms: u64,
    /// That they agree is said again after so long, since what they see becomes more certain, ms.
    pub again_ms: u64,
}

impl Default for Design {
    fn default() -> Self {
        Self {
            ratio: 3.0,
            threshold: 9.0,
            node_threshold: 5.0,
            most_at_once: 0.5,
            ceiling: 2.0,
            least_ratio: 5e-4,
            few: 4.0,
            group_most: 8.0,
            trim: 2,
            trimmed: 2.0,
            strong: 1.5,
            breadth_ms: 300.0,
            min_flows: 50,
            block_ms: 300,
            guess: 5.0,
            guess_retrans: 50.0,
            learn_ms: 600_000.0,
            recent_ms: 500.0,
            node_ms: 30_000,
            stream_ms: 60_000,
            quiet_ms: 30_000,
            stale_ms: 1_800_000,
            adopt_ms: 900_000,
            lost_ms: 60_000,
            agree_ms: 2_000,
            again_ms: 200,
        }
    }
}

/// Blocks from which the spread of what was counted is learned, ms: an interval is of about as much.
const SPREAD_BLOCK_MS: u64 = 1_000;
/// A clock may be ahead by so much, ms; pulses further in the future are counted and dropped.
const AHEAD_MS: u64 = 5_000;

/// That retransmissions have risen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suspicion {
    /// End of the pulse that gave the last bit of evidence, Unix ms.
    pub at_ms: u64,
    /// Estimated time of the change, Unix ms.
    pub onset_ms: u64,
    /// Segments retransmitted by segments sent since then.
    pub ratio: f64,
    /// Lower end of its interval of two standard deviations.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// The learned ratio of the nodes that sent since then, by their traffic.
    pub baseline: f64,
    /// Variance of the counts of a second by their mean.
    pub dispersion: f64,
    /// Sampled flows with data in the last seconds, at least.
    pub flows_active: u64,
}

/// That nodes see the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// What the stream sees.
    pub suspicion: Suspicion,
    /// How many of its nodes see it by themselves, at the same time.
    pub nodes: u32,
}

/// What a pulse has changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// A change is suspected.
    Began(Suspicion),
    /// Two nodes or more see it by themselves. Said again, with more certain numbers, a few times a second while it lasts.
    Agreed(Agreement),
    /// It is over, at that time (Unix ms).
    Ended {
        /// When, Unix ms.
        at_ms: u64,
        /// The new level is taken for normal, or nothing more was heard: it is not known to have gone back.
        given_up: bool,
    },
}

/// The detector of one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamDetector {
    nodes: BTreeMap<String, Node>,
    /// Of what is weighed.
    dispersion: Dispersion,
    /// Of what was counted, single flows' bursts and all.
    spread: Dispersion,
    #[serde(skip)]
    design: Design,
    cusum: Cusum,
    /// When it was said that nodes agree, Unix ms.
    agreed_ms: Option<u64>,
    /// End of the newest pulse, Unix ms.
    newest_ms: u64,
    /// Newest time of day that was told, Unix ms; 0: none.
    #[serde(skip)]
    told_ms: u64,
    /// Pulses of nodes for which there was no room.
    #[serde(skip)]
    crowded: u64,
    /// Pulses from the future.
    #[serde(skip)]
    ahead: u64,
}

impl StreamDetector {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(design: Design) -> Self {
        Self {
            design,
            ..Self::default()
        }
    }

    /// Takes in a pulse; duplicates are the caller's to drop. What comes from a backlog or has no sampling rate is not looked at.
    pub fn take(&mut self, pulse: &StreamPulse) -> Vec<Change> {
        let rate = pulse.sampling_rate;
        let replayed = pulse.flags & Flag::Replayed as u32 != 0;
        if replayed || !(rate > 0.0 && rate <= 1.0) || !self.has_place(pulse) {
            return Vec::new();
        }
        let Some(node) = self.nodes.get_mut(&pulse.node) else {
            return Vec::new();
        };
        let design = &self.design;
        let reading = node.read(pulse, design);
        let frozen = self.cusum.alarmed_ms().is_some();
        node.learn(&reading, frozen, design);
        self.newest_ms = self.newest_ms.max(reading.step.end_ms);
        let mut changes = Vec::new();
        if reading.heard {
            let step = &reading.step;
            let (weighed, counted) = reading.expected;
            let learn = |dispersion: &mut Dispersion, counts, block_ms| {
                dispersion.add(step.start_ms, counts, block_ms, frozen, design);
            };
            learn(
                &mut self.dispersion,
                (step.observed, weighed),
                design.block_ms,
            );
            learn(&mut self.spread, (step.counted, counted), SPREAD_BLOCK_MS);
            if self.dispersion.learned_ms() >= design.stream_ms {
                self.look(step, &mut changes);
            }
        }
        changes.extend(self.pass(self.newest_ms));
        changes
    }

    /// Whether a pulse is of a time that can be and of a node that is known, or can be from now on.
    fn has_place(&mut self, pulse: &StreamPulse) -> bool {
        if self.told_ms > 0 && pulse.pulse_start_ms > self.told_ms.saturating_add(AHEAD_MS) {
            self.ahead = self.ahead.saturating_add(1);
            return false;
        }
        if self.nodes.contains_key(&pulse.node) {
            return true;
        }
        if self.nodes.len() >= MAX_NODES {
            self.crowded = self.crowded.saturating_add(1);
            return false;
        }
        self.nodes.insert(pulse.node.clone(), Node::new(pulse));
        true
    }

    fn look(&mut self, step: &Step, changes: &mut Vec<Change>) {
        let factor = self.dispersion.factor(&self.design);
        let threshold = self.design.threshold;
        match self.cusum.add(step, factor, threshold, &self.design) {
            Moved::On => {}
            Moved::Ready if self.flows_active() < self.design.min_flows => {}
            Moved::Ready => {
                self.cusum.alarm(step.end_ms);
                self.agreed_ms = None;
                changes.push(Change::Began(self.suspicion(step.end_ms)));
            }
            Moved::Cleared => changes.push(Change::Ended {
                at_ms: step.end_ms,
                given_up: false,
            }),
        }
        let due = self
            .agreed_ms
            .is_none_or(|said_ms| step.end_ms.saturating_sub(said_ms) >= self.design.again_ms);
        if self.cusum.alarmed_ms().is_some() && due {
            let nodes = self.agreeing();
            if nodes >= 2 {
                self.agreed_ms = Some(step.end_ms);
                let suspicion = self.suspicion(step.end_ms);
                changes.push(Change::Agreed(Agreement { suspicion, nodes }));
            }
        }
    }

    /// Nodes whose own detectors alarm for a change at the time of the stream's.
    fn agreeing(&self) -> u32 {
        let (onset_ms, near_ms) = (self.cusum.onset_ms(), self.design.agree_ms);
        let nodes = self.nodes.values().map(Node::cusum).filter(|cusum| {
            cusum.alarmed_ms().is_some() && cusum.onset_ms().abs_diff(onset_ms) <= near_ms
        });
        nodes.count().try_into().unwrap_or(u32::MAX)
    }

    fn suspicion(&self, at_ms: u64) -> Suspicion {
        let dispersion = self.spread.factor(&self.design);
        let (ratio, low, high) = self.cusum.ratio(dispersion);
        Suspicion {
            at_ms,
            onset_ms: self.cusum.onset_ms(),
            ratio,
            low,
            high,
            baseline: self.baseline(),
            dispersion,
            flows_active: self.flows_active(),
        }
    }

    /// What is suspected now.
    #[must_use]
    pub fn suspected(&self) -> Option<Suspicion> {
        let alarmed = self.cusum.alarmed_ms().is_some();
        alarmed.then(|| self.suspicion(self.newest_ms))
    }

    /// Nodes heard of in the last seconds.
    fn present(&self) -> impl Iterator<Item = &Node> {
        let since_ms = self.newest_ms.saturating_sub(AHEAD_MS);
        self.nodes
            .values()
            .filter(move |node| node.newest_ms() >= since_ms)
    }

    fn flows_active(&self) -> u64 {
        self.present()
            .fold(0, |sum, node| sum.saturating_add(node.flows_active()))
    }

    /// The learned ratio over the nodes that are there, each by its recent traffic.
    #[must_use]
    pub fn baseline(&self) -> f64 {
        let (retrans, sent) = self.present().fold((0.0, 0.0), |(retrans, sent), node| {
            let weight = node.sent_per_ms();
            (retrans + node.ratio() * weight, sent + weight)
        });
        if sent > 0.0 { retrans / sent } else { 0.0 }
    }

    /// The time of day, to be told about once a second: an alarm that stays or of which nothing is heard any more is given up. The time of
    /// the pulses does the same while there are some.
    pub fn tick(&mut self, now_ms: u64) -> Option<Change> {
        self.told_ms = self.told_ms.max(now_ms);
        self.pass(now_ms)
    }

    fn pass(&mut self, now_ms: u64) -> Option<Change> {
        let since_ms = self.cusum.alarmed_ms()?;
        let lost = now_ms.saturating_sub(self.newest_ms) > self.design.lost_ms;
        let adopted = now_ms.saturating_sub(since_ms) > self.design.adopt_ms;
        if !(lost || adopted) {
            return None;
        }
        self.cusum = Cusum::default();
        if adopted {
            self.nodes.values_mut().for_each(Node::adopt);
            self.dispersion.restart();
        }
        Some(Change::Ended {
            at_ms: now_ms,
            given_up: true,
        })
    }

    /// Forgets nodes whose newest pulse ended before a moment.
    pub fn forget_before(&mut self, moment_ms: u64) {
        self.nodes.retain(|_, node| node.newest_ms() >= moment_ms);
    }

    /// Nodes that are known.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Pulses dropped because there was no room for their nodes.
    #[must_use]
    pub const fn crowded(&self) -> u64 {
        self.crowded
    }

    /// Pulses dropped because they were of a time that has not come.
    #[must_use]
    pub const fn ahead(&self) -> u64 {
        self.ahead
    }
}

#[cfg(test)]
mod tests;
