//! One node of a stream: its recent traffic, its level, and a detector of its own.

use sampler_event::{GROUPS, StreamPulse};
use serde::{Deserialize, Serialize};

use super::Design;
use super::baseline::{Dispersion, Level};
use super::cusum::{Cusum, Step};

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    instance: u64,
    level: Level,
    dispersion: Dispersion,
    /// End of its newest pulse, Unix ms.
    newest_ms: u64,
    /// Not listened to before, Unix ms: its daemon has just begun.
    #[serde(skip)]
    quiet_until_ms: u64,
    #[serde(skip)]
    cusum: Cusum,
    /// Segments sent per ms, of the recent past.
    #[serde(skip)]
    sent_per_ms: f64,
    /// Distinct flows in this second, so far, and in the one before.
    #[serde(skip)]
    flows: (u64, u64, u64),
}

/// A pulse, read with what is known of its node.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// What it adds, by the cautious level.
    pub step: Step,
    /// Retransmits expected by the level itself.
    pub expected: f64,
    /// Whether enough is known of the node for the stream to listen to it.
    pub heard: bool,
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
        let sent = self.smooth(pulse.data_segs_out as f64, start_ms, length_ms, design);
        self.newest_ms = self.newest_ms.max(end_ms);
        self.count_flows(pulse);
        let cautious = self.level.cautious(self.dispersion.factor(), design);
        let step = Step {
            start_ms,
            end_ms,
            observed: broad(pulse, cautious * sent, design),
            expected: cautious * sent,
            counted: pulse.retrans_segs as f64,
            sampling_rate: pulse.sampling_rate,
            sent,
        };
        Reading {
            step,
            expected: self.level.ratio().max(design.least_ratio) * sent,
            heard: start_ms >= self.quiet_until_ms
                && self.dispersion.blocks() >= design.node_blocks,
        }
    }

    /// Learns from what was read, unless the stream or the node alarms, and looks for a change of this node alone.
    pub fn learn(&mut self, reading: &Reading, frozen: bool, design: &Design) {
        let step = &reading.step;
        let length_ms = step.end_ms - step.start_ms;
        if reading.heard {
            self.cusum.add(step, self.dispersion.factor(), design);
        }
        let stuck = self
            .cusum
            .alarmed_ms()
            .is_some_and(|since_ms| step.end_ms.saturating_sub(since_ms) > design.adopt_ms);
        if stuck {
            self.adopt();
        }
        let quiet = step.start_ms < self.quiet_until_ms;
        let frozen = frozen || quiet || self.cusum.alarmed_ms().is_some();
        let expected = reading.expected;
        self.dispersion
            .add(step.start_ms, step.observed, expected, frozen, design);
        if !frozen {
            self.level
                .learn(step.observed, step.sent, length_ms, design);
        }
    }

    /// Takes the new level for normal and learns it.
    pub fn adopt(&mut self) {
        self.cusum = Cusum::default();
        self.level = Level::default();
        self.dispersion.restart();
    }

    /// Segments whose retransmits this pulse can hold: those sent in it or, if that is more, those of the recent past. Retransmits come
    /// a round trip or a timeout after what they repair, so they belong to a burst that is over.
    fn smooth(&mut self, sent: f64, start_ms: u64, length_ms: u64, design: &Design) -> f64 {
        let length = length_ms as f64;
        let gap = start_ms.saturating_sub(self.newest_ms) as f64;
        let fall = (-length / design.recent_ms).exp();
        self.sent_per_ms *= (-gap / design.recent_ms).exp() * fall;
        self.sent_per_ms += sent / length * (1.0 - fall);
        sent.max(self.sent_per_ms * length)
    }

    fn count_flows(&mut self, pulse: &StreamPulse) {
        let second = pulse.pulse_start_ms / 1_000;
        let (known, now, before) = self.flows;
        self.flows = match second == known {
            true => (known, now.max(pulse.flows_active), before),
            false => (second, pulse.flows_active, now),
        };
    }

    /// Sampled flows with data in this second or the one before, at least.
    pub fn flows_active(&self) -> u64 {
        self.flows.1.max(self.flows.2)
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
    pub const fn sent_per_ms(&self) -> f64 {
        self.sent_per_ms
    }

    /// What it holds for normal.
    pub fn ratio(&self) -> f64 {
        self.level.ratio()
    }
}

/// Retransmits without what only single flows have: a change of the network touches flows of all random groups, a flow that goes wrong
/// only its own. A group counts up to what twice the sought change would bring it, and always a few.
fn broad(pulse: &StreamPulse, expected: f64, design: &Design) -> f64 {
    let most = design.few + 2.0 * design.ratio * expected / GROUPS as f64;
    let all = pulse.retrans_segs as f64;
    match pulse.g_retrans_segs.len() {
        GROUPS => pulse
            .g_retrans_segs
            .iter()
            .map(|retrans| f64::from(*retrans).min(most))
            .sum::<f64>()
            .min(all),
        _ => all.min(most * GROUPS as f64),
    }
}
