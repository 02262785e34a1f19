//! How the detector is laid out: what is sought, how sure it must be, what it takes for normal.

use serde::Deserialize;

use super::cusum::Bounds;

/// How the detector is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Design {
    /// ρ: the change that is sought, as a multiple of the level.
    pub ratio: f64,
    /// A: evidence that alarms.
    pub threshold: f64,
    /// A of a node that seconds what the stream has seen.
    pub node_threshold: f64,
    /// A of a node that is suspected by itself, while the others may be well.
    pub alone_threshold: f64,
    /// It grows by so much with the logarithm of the number of nodes: the more there are, the more often chance hits one.
    pub alone_more: f64,
    /// Sampled flows that such a node must have.
    pub alone_flows: u64,
    /// Its sum stops at so many times that A.
    pub alone_ceiling: f64,
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
    /// Sampled flows with data in a second that a stream must have to be suspected: fewer are no evidence of a network.
    pub min_flows: u64,
    /// From so many on A is what it is; of fewer it is as many times higher.
    pub full_flows: u64,
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
            alone_threshold: 18.0,
            alone_more: 3.0,
            alone_flows: 30,
            alone_ceiling: 1.25,
            most_at_once: 0.5,
            ceiling: 2.0,
            least_ratio: 5e-4,
            few: 8.0,
            group_most: 8.0,
            trim: 2,
            trimmed: 2.0,
            strong: 1.5,
            breadth_ms: 300.0,
            min_flows: 20,
            full_flows: 60,
            block_ms: 300,
            guess: 5.0,
            guess_retrans: 50.0,
            learn_ms: 600_000.0,
            recent_ms: 500.0,
            node_ms: 20_000,
            stream_ms: 30_000,
            quiet_ms: 30_000,
            stale_ms: 1_800_000,
            adopt_ms: 900_000,
            lost_ms: 60_000,
            agree_ms: 2_000,
            again_ms: 200,
        }
    }
}

impl Design {
    /// More flows than these change nothing.
    pub(super) fn enough_flows(&self) -> u64 {
        self.full_flows.max(self.min_flows)
    }

    /// Bounds of the sum of a stream with so many flows.
    pub(super) fn stream_bounds(&self, flows: u64) -> Bounds {
        let missing = self.full_flows as f64 / flows.max(1) as f64;
        let threshold = self.threshold * missing.max(1.0);
        Bounds {
            threshold,
            ceiling: threshold * self.ceiling,
        }
    }

    /// Bounds of the sum of one of so many nodes.
    pub(super) fn node_bounds(&self, nodes: usize) -> Bounds {
        let alone = self.alone(nodes) * self.alone_ceiling;
        Bounds {
            threshold: self.node_threshold,
            ceiling: alone.max(self.node_threshold * self.ceiling),
        }
    }

    /// A of one of so many nodes that is suspected by itself.
    pub(super) fn alone(&self, nodes: usize) -> f64 {
        self.alone_threshold + self.alone_more * (nodes.max(1) as f64).ln()
    }
}
