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
//! # One bad node
//!
//! A bad node among healthy ones (its network card, its peer) does not lift that sum, since the others pull it down. So every node has
//! a sum of its own. From 5 on it seconds what the stream sees; from 18 + 3 ln n on, n being the number of nodes, it is suspected by itself,
//! if it has 30 active sampled flows and many groups see it. That is suspected, and says whose it is; it is never a page by itself.
//!
//! # How often, how soon
//!
//! Without a change the mean time to a false alarm of a likelihood ratio CUSUM is at least e^A steps (Lorden 1971); real retransmits are
//! not independent counts, so the bound says little and a simulation says the rest (`--example false_alarms`, its seeds are options; what
//! it takes for usual life, and why, is written there). With a change to ρ times the level, S rises by I = μx(ρ ln ρ − ρ + 1)/F a pulse.
//! What limits it is the spread of what a hundred flows lose: clusters, flows that are not alike, players that fetch at the same moments.
//!
//! # Measured
//!
//! On real TCP: two streams of two nodes with 60 flows each that fetch 500 kB every two seconds at line rate, all sampled; loss 0.5 % to
//! 1.5 %, through samplers, Kafka, aggregator and Alertmanager (32 changes):
//!
//! ```text
//! cargo xtask bench onset
//! seconds from the onset until     p50/p90/p99
//! suspected, in the alert topic    0.28/0.52/0.70
//! paged, at the webhook            1.20/1.71/1.85 (two nodes agree; the true ratio of 10 s crosses the bound after 5.55/5.94/6.16)
//! ```
//!
//! On simulated usual life at a loss of 0.5 %, with seeds that nothing was tuned on; what is mild in it is listed in the example. Delays
//! are from the change to the arrival of the deciding pulse, without Kafka's part; each row of 300 changes:
//!
//! ```text
//! cargo run --release -p aggregator --example false_alarms -- --days 0 --trials 300 --seed 500000
//! loss × 3 on all nodes           suspected p50/p90/p99 ms      loss × 3 on one node     suspected p50/p90/p99 ms
//! 2 nodes, 100 flows              509/1112/1741                 of 2 (50 flows each)     1262/3271/7899
//! 1 node, 100 flows               462/1154/2669                 of 5 (60 each)           1716/4436/9834
//! 5 nodes, 300 flows              340/722/1171                  of 20 (50 each)          2018/6768/more than 20 s
//! 2 nodes, 250 flows              362/719/1318                  (2,000 changes of 2 nodes, 100 flows: 504/1175/2502)
//! ```
//!
//! In the model flows lose in clusters and unequally, which real links may do more or less than it: there p50 is at half a second with
//! 100 flows, and the 99th percentile is within 1.5 s only with 250. A higher A is quieter and slower.
//!
//! ```text
//! cargo run --release -p aggregator --example false_alarms -- --days 215 --trials 0 --seed 700000      (1,109 stream-days)
//! a stream-day             suspicions of nothing   of something real but brief
//! 2 nodes, 100 flows       15.0                    2.6
//! 1 node, 100 flows        30.3                    4.6
//! 5 nodes, 300 flows       14.9                    0.4
//! 20 nodes, 1,000 flows    16.7                    0.3
//! 20 flows                 1.7                     0.3
//! pages                    0 wrong; 21 right: the true ratio of that moment was above the rule's bound
//! ```
//!
//! In half an hour of real traffic at 0.1, 0.5 and 1.5 % there was no suspicion and no page (`cargo xtask bench steady`).
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
//! * A node is not listened to until it was learned for 20 seconds of traffic, a stream not for 30 more, and a node not for 30 seconds after
//!   its daemon began anew.
//! * A stream of fewer than 20 sampled flows with data in a second is not suspected; below 60, which some 150 open ones have, A is as many
//!   times higher as they are too few.
//! * A level that stays for 15 minutes is the new normal.
//!
//! All of it but the design is serialisable. Limits: [`MAX_NODES`] nodes a stream; pulses of more are counted and dropped.

mod baseline;
mod change;
mod cusum;
mod design;
mod node;
mod recent;

use std::collections::BTreeMap;

use sampler_event::{Flag, StreamPulse};
use serde::{Deserialize, Serialize};

use self::baseline::Dispersion;
pub use self::change::{Agreement, Change, NodeView, Suspicion};
use self::cusum::{Cusum, Moved, Step};
pub use self::design::Design;
use self::node::{Around, Node};

/// Nodes kept for a stream.
pub const MAX_NODES: usize = 256;

/// Blocks from which the spread of what was counted is learned, ms: an interval is of about as much.
const SPREAD_BLOCK_MS: u64 = 1_000;
/// A clock may be ahead by so much, ms; pulses further in the future are counted and dropped.
const AHEAD_MS: u64 = 5_000;

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
    /// When it was said that a change is suspected, Unix ms.
    #[serde(default)]
    suspected_ms: Option<u64>,
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
        let present = self.nodes.len();
        let Some(node) = self.nodes.get_mut(&pulse.node) else {
            return Vec::new();
        };
        let design = &self.design;
        let reading = node.read(pulse, design);
        let frozen = self.suspected_ms.is_some();
        let around = Around {
            frozen,
            nodes: present,
        };
        let adopted = node.learn(&reading, around, design);
        let alone = node.alone_ms().is_some();
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
                self.look(step);
            }
        }
        changes.extend(self.turn(reading.step.end_ms, alone, adopted));
        changes.extend(self.agree(reading.step.end_ms));
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

    fn look(&mut self, step: &Step) {
        let factor = self.dispersion.factor(&self.design);
        let flows = self.flows_up_to(self.design.enough_flows());
        let bounds = self.design.stream_bounds(flows);
        let moved = self.cusum.add(step, factor, bounds, &self.design);
        if moved == Moved::Ready && flows >= self.design.min_flows {
            self.cusum.alarm(step.end_ms);
        }
    }

    /// Whether the sum of all nodes alarms, or a node by itself.
    fn is_alarmed(&self) -> bool {
        let alone = |node: &Node| node.alone_ms().is_some();
        self.cusum.alarmed_ms().is_some() || self.nodes.values().any(alone)
    }

    /// What a pulse has turned: a suspicion begins or is over. `alone` says that its node is suspected by itself.
    fn turn(&mut self, end_ms: u64, alone: bool, given_up: bool) -> Option<Change> {
        let alarmed = match self.suspected_ms {
            None => alone || self.cusum.alarmed_ms().is_some(),
            Some(_) => self.is_alarmed(),
        };
        if alarmed == self.suspected_ms.is_some() {
            return None;
        }
        if !alarmed {
            self.suspected_ms = None;
            return Some(Change::Ended {
                at_ms: end_ms,
                given_up,
            });
        }
        self.suspected_ms = Some(end_ms);
        self.agreed_ms = None;
        Some(Change::Began(self.suspicion(end_ms)))
    }

    /// Says that nodes agree with what all of them see together, if it is time to.
    fn agree(&mut self, end_ms: u64) -> Option<Change> {
        self.cusum.alarmed_ms()?;
        let due = self
            .agreed_ms
            .is_none_or(|said_ms| end_ms.saturating_sub(said_ms) >= self.design.again_ms);
        let nodes = if due {
            self.touched(self.cusum.onset_ms())
        } else {
            0
        };
        (nodes >= 2).then(|| {
            self.agreed_ms = Some(end_ms);
            let suspicion = self.suspicion(end_ms);
            Change::Agreed(Agreement { suspicion, nodes })
        })
    }

    /// Nodes whose own detectors alarm for a change at that time.
    fn touched(&self, onset_ms: u64) -> u32 {
        let near_ms = self.design.agree_ms;
        let nodes = self
            .nodes
            .values()
            .filter(|node| node.saw(onset_ms, near_ms));
        nodes.count().try_into().unwrap_or(u32::MAX)
    }

    /// The sum that says it: that of all nodes, or else the one of the node that sees it most clearly.
    fn clearest(&self) -> &Cusum {
        let all = self.cusum.alarmed_ms().map(|_| &self.cusum);
        let alone = self.nodes.values().filter(|node| node.alone_ms().is_some());
        let alone = alone.map(Node::cusum);
        all.or_else(|| alone.max_by(|a, b| a.score().total_cmp(&b.score())))
            .unwrap_or(&self.cusum)
    }

    fn suspicion(&self, at_ms: u64) -> Suspicion {
        let dispersion = self.spread.factor(&self.design);
        let cusum = self.clearest();
        let (ratio, low, high) = cusum.ratio(dispersion);
        let onset_ms = cusum.onset_ms();
        Suspicion {
            at_ms,
            onset_ms,
            ratio,
            low,
            high,
            baseline: self.baseline(),
            dispersion,
            flows_active: self.flows_active(),
            nodes: self.touched(onset_ms),
            nodes_present: self.present().count().try_into().unwrap_or(u32::MAX),
        }
    }

    /// What each node that is there has to do with what is suspected: those that see it by themselves first, the worst of them before.
    #[must_use]
    pub fn views(&self) -> Vec<NodeView> {
        let (onset_ms, near_ms) = (self.clearest().onset_ms(), self.design.agree_ms);
        let since_ms = self.newest_ms.saturating_sub(AHEAD_MS);
        let present = self.nodes.iter().filter(|(_, n)| n.newest_ms() >= since_ms);
        let mut views: Vec<_> = present
            .map(|(name, node)| {
                let (retrans, sent) = node.cusum().counts();
                NodeView {
                    node: name.clone(),
                    touched: node.saw(onset_ms, near_ms),
                    ratio: if sent > 0.0 { retrans / sent } else { 0.0 },
                    retrans,
                    sent,
                }
            })
            .collect();
        views.sort_by(|a, b| {
            let by_ratio = b.ratio.total_cmp(&a.ratio);
            b.touched.cmp(&a.touched).then(by_ratio)
        });
        views
    }

    /// What is suspected now.
    #[must_use]
    pub fn suspected(&self) -> Option<Suspicion> {
        self.suspected_ms.map(|_| self.suspicion(self.newest_ms))
    }

    /// Nodes heard of in the last seconds.
    fn present(&self) -> impl Iterator<Item = &Node> {
        let since_ms = self.newest_ms.saturating_sub(AHEAD_MS);
        self.nodes
            .values()
            .filter(move |node| node.newest_ms() >= since_ms)
    }

    fn flows_active(&self) -> u64 {
        self.flows_up_to(u64::MAX)
    }

    /// Active flows of the nodes that are there. Counting stops once there are `enough`: on every pulse it is asked no more than that.
    fn flows_up_to(&self, enough: u64) -> u64 {
        let mut flows = 0u64;
        for node in self.present() {
            flows = flows.saturating_add(node.flows_active());
            if flows >= enough {
                break;
            }
        }
        flows
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
        self.suspected_ms?;
        let (lost_ms, adopt_ms) = (self.design.lost_ms, self.design.adopt_ms);
        let is_lost = |newest_ms: u64| now_ms.saturating_sub(newest_ms) > lost_ms;
        let alarmed_ms = self.cusum.alarmed_ms();
        let adopted = alarmed_ms.is_some_and(|ms| now_ms.saturating_sub(ms) > adopt_ms);
        if adopted {
            self.nodes.values_mut().for_each(Node::adopt);
            self.dispersion.restart();
        }
        if adopted || is_lost(self.newest_ms) {
            self.cusum = Cusum::default();
        }
        let alone = self.nodes.values_mut().filter(|n| n.alone_ms().is_some());
        alone
            .filter(|n| is_lost(n.newest_ms()))
            .for_each(Node::calm);
        self.turn(now_ms, false, true)
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
