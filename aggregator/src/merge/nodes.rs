//! Which nodes a stream's sums should hold, and which they do.
//!
//! A node sends one heartbeat per window, which names its streams, also the silent ones. It is expected from its first heartbeat on,
//! until it says that it stops or three of its windows pass without one. It has reported a moment when a heartbeat for that moment
//! or a later one is here: the heartbeat is the last event of its window.

use std::collections::{BTreeMap, BTreeSet};

use sampler_event::{LifeCycle, NodeHeartbeat};

/// Windows without a heartbeat after which a node is no longer expected.
const PATIENCE_WINDOWS: u64 = 3;

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeInfo {
    /// Life of its daemon.
    pub instance: u64,
    /// Length of its windows.
    pub window_ms: u32,
    /// Start of the first window of this presence, Unix ms; a restart within patience goes on with it.
    pub since_ms: u64,
    /// End of the last window that a heartbeat closed, Unix ms.
    pub until_ms: u64,
    /// It said that it stops.
    pub stopping: bool,
    /// Version of its daemon.
    pub version: String,
    /// What its kernel allows.
    pub kernel_mode: String,
    /// Its configured streams, each with the reason why it is not sampled as configured (mostly empty).
    pub streams: BTreeMap<String, String>,
}

/// Nodes of a stream over a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// Nodes that should be in the span.
    pub expected: u64,
    /// Of these, those whose heartbeats cover the span's end.
    pub reported: u64,
}

impl NodeInfo {
    fn patience_ms(&self) -> u64 {
        PATIENCE_WINDOWS * u64::from(self.window_ms)
    }

    /// Whether it should be in a span that ends at `to_ms`.
    fn is_expected(&self, to_ms: u64) -> bool {
        let until_ms = match self.stopping {
            true => self.until_ms,
            false => self.until_ms.saturating_add(self.patience_ms()),
        };
        self.since_ms < to_ms && to_ms <= until_ms
    }
}

/// All nodes of the site.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    nodes: BTreeMap<String, NodeInfo>,
}

impl Nodes {
    /// Takes in a heartbeat; one that is older than what is known changes nothing.
    pub fn hear(&mut self, heartbeat: &NodeHeartbeat) {
        let start_ms = heartbeat.window_start_ms;
        let until_ms = start_ms.saturating_add(u64::from(heartbeat.window_ms));
        let known = self.nodes.get(&heartbeat.node);
        if known.is_some_and(|node| node.until_ms >= until_ms) {
            return;
        }
        let goes_on = known.filter(|node| {
            !node.stopping && start_ms <= node.until_ms.saturating_add(node.patience_ms())
        });
        let since_ms = goes_on.map_or(start_ms, |node| node.since_ms);
        let streams = heartbeat
            .streams
            .iter()
            .map(|state| (state.stream.clone(), state.degraded.clone()));
        let node = NodeInfo {
            instance: heartbeat.instance,
            window_ms: heartbeat.window_ms,
            since_ms,
            until_ms,
            stopping: heartbeat.life_cycle() == LifeCycle::Stopping,
            version: heartbeat.version.clone(),
            kernel_mode: heartbeat.kernel_mode.clone(),
            streams: streams.collect(),
        };
        self.nodes.insert(heartbeat.node.clone(), node);
    }

    /// Nodes of a stream in a span that ends at `to_ms`.
    pub fn presence(&self, stream: &str, to_ms: u64) -> Presence {
        let expected = self
            .nodes
            .values()
            .filter(|node| node.streams.contains_key(stream) && node.is_expected(to_ms));
        expected.fold(Presence::default(), |sum, node| Presence {
            expected: sum.expected + 1,
            reported: sum.reported + u64::from(node.until_ms >= to_ms),
        })
    }

    /// Every stream that some node has configured.
    pub fn streams(&self) -> BTreeSet<&str> {
        let streams = self.nodes.values().flat_map(|node| node.streams.keys());
        streams.map(String::as_str).collect()
    }

    /// The nodes by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &NodeInfo)> {
        self.nodes.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Forgets nodes whose last heartbeat ended before a moment.
    pub fn forget_before(&mut self, moment_ms: u64) {
        self.nodes.retain(|_, node| node.until_ms >= moment_ms);
    }
}

#[cfg(test)]
mod tests {
    use sampler_event::StreamState;

    use super::*;

    fn heartbeat(node: &str, start_ms: u64) -> NodeHeartbeat {
        NodeHeartbeat {
            node: node.to_owned(),
            instance: 1,
            window_start_ms: start_ms,
            window_ms: 1_000,
            life_cycle: LifeCycle::Run.into(),
            streams: vec![StreamState {
                stream: "sport".to_owned(),
                ..StreamState::default()
            }],
            ..NodeHeartbeat::default()
        }
    }

    fn presence(nodes: &Nodes, to_ms: u64) -> (u64, u64) {
        let presence = nodes.presence("sport", to_ms);
        (presence.expected, presence.reported)
    }

    #[test]
    fn a_node_is_expected_for_three_windows_and_then_gone() {
        let mut nodes = Nodes::default();
        nodes.hear(&heartbeat("a", 10_000));
        assert_eq!(presence(&nodes, 10_000), (0, 0), "before its first window");
        assert_eq!(presence(&nodes, 11_000), (1, 1));
        assert_eq!(presence(&nodes, 12_000), (1, 0));
        assert_eq!(presence(&nodes, 14_000), (1, 0));
        assert_eq!(presence(&nodes, 15_000), (0, 0));
        assert_eq!(nodes.presence("news", 11_000), Presence::default());
    }

    #[test]
    fn one_that_stops_is_expected_no_more() {
        let mut nodes = Nodes::default();
        let mut last = heartbeat("a", 10_000);
        last.life_cycle = LifeCycle::Stopping.into();
        nodes.hear(&heartbeat("a", 9_000));
        nodes.hear(&last);
        assert_eq!(presence(&nodes, 11_000), (1, 1));
        assert_eq!(presence(&nodes, 12_000), (0, 0));
        // Back after a while: what lies between is not expected of it.
        nodes.hear(&heartbeat("a", 60_000));
        assert_eq!(presence(&nodes, 60_000), (0, 0));
        assert_eq!(presence(&nodes, 61_000), (1, 1));
    }

    #[test]
    fn a_quick_restart_is_no_gap_and_old_news_changes_nothing() {
        let mut nodes = Nodes::default();
        nodes.hear(&heartbeat("a", 10_000));
        let mut again = heartbeat("a", 12_000);
        again.instance = 2;
        nodes.hear(&again);
        nodes.hear(&heartbeat("a", 11_000));
        assert_eq!(presence(&nodes, 11_000), (1, 1));
        let (_, node) = nodes.iter().next().expect("a node");
        assert_eq!((node.instance, node.since_ms), (2, 10_000));
        nodes.forget_before(14_000);
        assert!(nodes.is_empty());
    }
}
