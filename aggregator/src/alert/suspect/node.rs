//! One node of a stream: its recent traffic, its level, and a detector of its own.

use sampler_event::{GROUPS, StreamPulse};
use serde::{Deserialize, Serialize};

use super::Design;
use super::baseline::{Dispersion, Level};
use super::cusum::{Cusum, Moved, Step};
use super::recent::Recent;

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    instance: u64,
    level: Level,
    dispersion: Dispersion,
    /// End of its newest pulse, Unix ms.
    newest_ms: u64,
    /// Not listened to before, Unix ms: its daemon has just begun.
    quiet_until_ms: u64,
    cusum: Cusum,
    /// Since when it is suspected by itself, Unix ms.
    #[serde(default)]
    alone_ms: Option<u64>,
    recent: Recent,
}

/// What of its stream a node has to know.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    /// Nothing is learned: there is an alarm.
    pub frozen: bool,
    /// How many nodes there are.
    pub nodes: usize,
}

/// A pulse, read with what is known of its node.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// What it adds, by the cautious level.
    pub step: Step,
    /// Retransmits expected by the level itself: as they are weighed, and as they are counted.
    pub expected: (f64, f64),
    /// Whether enough is known of the node for the stream to listen to it.
    pub heard: bool,
    /// It moves the node's time on by so much, ms.
    passed_ms: u64,
}

impl Node {
    /// A node that was not known before.
    pub fn new(pulse: &StreamPulse) -> Self {
        Self {
            instance: pulse.instance,
            ..Self::default()
        }
    }

    /// Reads a pulse.
    pub fn read(&mut self, pulse: &StreamPulse, design: &Design) -> Reading {
        let start_ms = pulse.pulse_start_ms;
        let length_ms = u64::from(pulse.observed_ms.max(pulse.pulse_ms)).clamp(1, 60_000);
        let end_ms = start_ms.saturating_add(length_ms);
        if pulse.instance != self.instance {
            self.instance = pulse.instance;
            self.quiet_until_ms = start_ms.saturating_add(design.quiet_ms);
        }
        if start_ms.saturating_sub(self.newest_ms) > design.stale_ms {
            self.dispersion.restart();
        }
        let sent = pulse.data_segs_out as f64;
        let exposed = self.recent.take(pulse, end_ms, length_ms, design);
        let passed_ms = end_ms.saturating_sub(self.newest_ms).min(length_ms);
        self.newest_ms = self.newest_ms.max(end_ms);
        let groups = broad(pulse, self.level.ratio() * exposed, design);
        let mut step = Step {
            start_ms,
            end_ms,
            observed: groups.iter().sum(),
            groups,
            expected: 0.0,
            exposed,
            counted: pulse.retrans_segs as f64,
            sent,
            sampling_rate: pulse.sampling_rate,
        };
        let shaped = exposed * self.level.shape(&step);
        let least = exposed * design.least_ratio;
        let dispersion = self.dispersion.factor(design);
        step.expected = (self.level.cautious(dispersion, design) * shaped).max(least);
        Reading {
            step,
            expected: (
                (self.level.weighed(design) * shaped).max(least),
                self.level.ratio() * sent,
            ),
            heard: start_ms >= self.quiet_until_ms
                && self.dispersion.learned_ms() >= design.node_ms,
            passed_ms,
        }
    }

    /// Learns from what was read, unless the stream or the node alarms, and looks for a change of this node alone. Whether it has taken an
    /// alarm that stayed for normal.
    pub fn learn(&mut self, reading: &Reading, around: Around, design: &Design) -> bool {
        let step = &reading.step;
        if reading.heard {
            self.look(step, around, design);
        }
        let stuck = self
            .cusum
            .alarmed_ms()
            .is_some_and(|since_ms| step.end_ms.saturating_sub(since_ms) > design.adopt_ms);
        if stuck {
            self.adopt();
        }
        let quiet = step.start_ms < self.quiet_until_ms;
        let frozen = around.frozen || quiet || self.cusum.alarmed_ms().is_some();
        let counts = (step.observed, reading.expected.0);
        self.dispersion
            .add(step.start_ms, counts, design.block_ms, frozen, design);
        if !frozen {
            self.level.learn(step, reading.passed_ms, design);
        }
        stuck
    }

    fn look(&mut self, step: &Step, around: Around, design: &Design) {
        let dispersion = self.dispersion.factor(design);
        let bounds = design.node_bounds(around.nodes);
        if self.cusum.add(step, dispersion, bounds, design) == Moved::Ready {
            self.cusum.alarm(step.end_ms);
        }
        if self.cusum.alarmed_ms().is_none() {
            self.alone_ms = None;
        } else if self.alone_ms.is_none()
            && self.dispersion.learned_ms() >= design.stream_ms
            && self.cusum.proves(design.alone(around.nodes), design)
            && self.flows_active() >= design.alone_flows
        {
            self.alone_ms = Some(step.end_ms);
        }
    }

    /// Since when it is suspected by itself, Unix ms.
    pub const fn alone_ms(&self) -> Option<u64> {
        self.alone_ms
    }

    /// Whether it sees a change that began at about that time.
    pub fn saw(&self, onset_ms: u64, near_ms: u64) -> bool {
        self.cusum.alarmed_ms().is_some() && self.cusum.onset_ms().abs_diff(onset_ms) <= near_ms
    }

    /// Nothing is heard of it any more: nothing is suspected.
    pub fn calm(&mut self) {
        self.cusum = Cusum::default();
        self.alone_ms = None;
    }

    /// Takes the new level for normal and learns it.
    pub fn adopt(&mut self) {
        self.calm();
        self.level = Level::default();
        self.dispersion.restart();
    }

    /// Sampled flows with data in this second or the one before, at least.
    pub fn flows_active(&self) -> u64 {
        self.recent.flows_active(self.newest_ms)
    }

    /// Its own detector.
    pub const fn cusum(&self) -> &Cusum {
        &self.cusum
    }

    /// End of its newest pulse, Unix ms.
    pub const fn newest_ms(&self) -> u64 {
        self.newest_ms
    }

    /// Segments sent per ms, of the recent past.
    pub fn sent_per_ms(&self) -> f64 {
        self.recent.sent_per_ms(self.newest_ms)
    }

    /// What it holds for normal.
    pub fn ratio(&self) -> f64 {
        self.level.ratio()
    }
}

/// Retransmits without what only single flows have: a change of the network touches flows of all random groups, a flow that goes wrong
/// only its own. A group counts up to a multiple of what is expected of it, and always a few.
fn broad(pulse: &StreamPulse, expected: f64, design: &Design) -> [f64; GROUPS] {
    let most = design.few.max(design.group_most * expected / GROUPS as f64);
    // Who has no groups has all in each of them alike.
    let each = pulse.retrans_segs as f64 / GROUPS as f64;
    let mut groups = [each.min(most); GROUPS];
    if pulse.g_retrans_segs.len() == GROUPS {
        for (group, retrans) in groups.iter_mut().zip(&pulse.g_retrans_segs) {
            *group = f64::from(*retrans).min(most);
        }
    }
    groups
}
