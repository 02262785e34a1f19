//! Which nodes a stream's sums should hold, and which they do.
//!
//! A node sends one heartbeat per window, which names its streams, also the silent ones. It is expected from its first heartbeat on,
//! until it says that it stops or three of its windows pass without one. It has reported a moment of a stream when a heartbeat for
//! that moment or a later one is here, and so are the windows of that stream which it names: heartbeats and windows come from
//! different topics, and the one may overtake the other. A window that never comes counts against its node for the lateness, then it
//! is lost. Limits: [`progress::MAX_MISSING`](super::progress) holes are remembered for a node and stream.

use std::collections::{BTreeMap, BTreeSet};

use sampler_event::{LifeCycle, NodeHeartbeat, StreamState, StreamWindow};

use super::progress::Progress;

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
    /// Its configured streams.
    pub streams: BTreeMap<String, StreamInfo>,
}

/// A stream of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamInfo {
    /// Why it is not sampled as configured; mostly empty.
    pub degraded: String,
    /// Labels of its configuration: customer, event, tier.
    pub labels: BTreeMap<String, String>,
    /// Which of its windows are here.
    progress: Progress,
}

/// Nodes of a stream over a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// Nodes that should be in the span.
    pub expected: u64,
    /// Of these, those whose heartbeats and windows cover the span's end.
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

    /// Takes in what a heartbeat of a window that ended at `end_ms` says of its streams.
    fn set_streams(&mut self, states: &[StreamState], end_ms: u64) {
        let named: BTreeSet<&str> = states.iter().map(|state| state.stream.as_str()).collect();
        self.streams
            .retain(|stream, _| named.contains(stream.as_str()));
        for state in states {
            let known = self.streams.get_mut(&state.stream);
            let info = match known {
                Some(info) => info,
                None => self.streams.entry(state.stream.clone()).or_default(),
            };
            info.degraded.clone_from(&state.degraded);
            if info.labels.len() != state.labels.len()
                || state
                    .labels
                    .iter()
                    .any(|(name, text)| info.labels.get(name) != Some(text))
            {
                info.labels = state.labels.clone().into_iter().collect();
            }
            info.progress
                .heard(self.instance, state.next_sequence, state.silent, end_ms);
        }
    }
}

/// All nodes of the site.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    nodes: BTreeMap<String, NodeInfo>,
    lateness_ms: u64,
}

impl Nodes {
    /// None yet; a window that is missing for longer than the lateness is lost.
    pub fn new(lateness_ms: u64) -> Self {
        Self {
            nodes: BTreeMap::new(),
            lateness_ms,
        }
    }

    /// Takes in a heartbeat; one that is older than what is known changes nothing.
    pub fn hear(&mut self, heartbeat: &NodeHeartbeat) {
        let start_ms = heartbeat.window_start_ms;
        let until_ms = start_ms.saturating_add(u64::from(heartbeat.window_ms));
        let known = self.nodes.get(&heartbeat.node);
        if known.is_some_and(|node| node.until_ms >= until_ms) {
            return;
        }
        let known = self.nodes.remove(&heartbeat.node);
        let goes_on = known.as_ref().filter(|node| {
            !node.stopping && start_ms <= node.until_ms.saturating_add(node.patience_ms())
        });
        let since_ms = goes_on.map_or(start_ms, |node| node.since_ms);
        let mut node = NodeInfo {
            instance: heartbeat.instance,
            window_ms: heartbeat.window_ms,
            since_ms,
            until_ms,
            stopping: heartbeat.life_cycle() == LifeCycle::Stopping,
            version: heartbeat.version.clone(),
            kernel_mode: heartbeat.kernel_mode.clone(),
            streams: known.map(|node| node.streams).unwrap_or_default(),
        };
        node.set_streams(&heartbeat.streams, until_ms);
        self.nodes.insert(heartbeat.node.clone(), node);
    }

    /// A window is here. Of a node whose heartbeat has not come yet nothing needs to be known.
    pub(super) fn saw(&mut self, window: &StreamWindow) {
        let node = self.nodes.get_mut(&window.node);
        let stream = node.and_then(|node| node.streams.get_mut(&window.stream));
        if let Some(stream) = stream {
            let end_ms = window
                .window_start_ms
                .saturating_add(u64::from(window.window_ms));
            stream
                .progress
                .saw(window.instance, window.sequence, end_ms);
        }
    }

    /// The windows of a stream are somebody else's now, or come anew.
    pub(super) fn forget_progress(&mut self, stream: &str) {
        for node in self.nodes.values_mut() {
            if let Some(stream) = node.streams.get_mut(stream) {
                stream.progress = Progress::default();
            }
        }
    }

    fn expected<'a>(
        &'a self,
        stream: &'a str,
        to_ms: u64,
    ) -> impl Iterator<Item = (&'a str, &'a NodeInfo, &'a StreamInfo)> {
        self.nodes.iter().filter_map(move |(name, node)| {
            let info = node.streams.get(stream)?;
            node.is_expected(to_ms)
                .then_some((name.as_str(), node, info))
        })
    }

    /// Nodes of a stream in a span that ends at `to_ms`.
    pub fn presence(&self, stream: &str, to_ms: u64) -> Presence {
        let expected = self.expected(stream, to_ms);
        expected.fold(Presence::default(), |sum, (_, node, info)| Presence {
            expected: sum.expected + 1,
            reported: sum.reported + u64::from(self.has_reported(node, info, to_ms)),
        })
    }

    fn has_reported(&self, node: &NodeInfo, info: &StreamInfo, to_ms: u64) -> bool {
        node.until_ms >= to_ms && info.progress.is_complete(to_ms, self.lateness_ms)
    }

    /// Expected nodes that have not reported, in order of their names.
    pub fn missing<'a>(&'a self, stream: &'a str, to_ms: u64) -> impl Iterator<Item = &'a str> {
        let expected = self.expected(stream, to_ms);
        expected
            .filter(move |(_, node, info)| !self.has_reported(node, info, to_ms))
            .map(|(name, _, _)| name)
    }

    /// The time in which the windows of all nodes of a stream begin and end together: the least common multiple of their lengths.
    /// None if no node has configured the stream.
    pub fn step_ms(&self, stream: &str) -> Option<u64> {
        let nodes = self.nodes.values();
        let of_stream = nodes.filter(|node| node.streams.contains_key(stream));
        let lengths = of_stream.map(|node| u64::from(node.window_ms).max(1_000));
        lengths.reduce(least_common_multiple)
    }

    /// Labels of a stream, as its nodes have them; of contradicting ones the first by the node's name.
    pub fn labels(&self, stream: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for node in self.nodes.values() {
            for (name, text) in node
                .streams
                .get(stream)
                .iter()
                .flat_map(|info| &info.labels)
            {
                labels.entry(name.clone()).or_insert_with(|| text.clone());
            }
        }
        labels
    }

    /// Whether a node has configured a stream.
    pub fn serves(&self, node: &str, stream: &str) -> bool {
        let node = self.nodes.get(node);
        node.is_some_and(|node| node.streams.contains_key(stream))
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

const fn least_common_multiple(one: u64, other: u64) -> u64 {
    let (mut a, mut b) = (one, other);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    one / a * other
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

    fn window(sequence: u64, start_ms: u64) -> StreamWindow {
        StreamWindow {
            node: "a".to_owned(),
            stream: "sport".to_owned(),
            instance: 1,
            sequence,
            window_start_ms: start_ms,
            window_ms: 1_000,
            ..StreamWindow::default()
        }
    }

    fn naming(start_ms: u64, next_sequence: u64, silent: bool) -> NodeHeartbeat {
        let mut heartbeat = heartbeat("a", start_ms);
        heartbeat.streams[0].next_sequence = next_sequence;
        heartbeat.streams[0].silent = silent;
        heartbeat
    }

    #[test]
    fn a_heartbeat_that_overtakes_its_window_is_no_report() {
        let mut nodes = Nodes::new(2_000);
        nodes.hear(&naming(10_000, 5, false));
        assert_eq!(presence(&nodes, 11_000), (1, 0), "window 4 is on its way");
        nodes.saw(&window(4, 10_000));
        assert_eq!(presence(&nodes, 11_000), (1, 1));
        nodes.hear(&naming(11_000, 7, false));
        nodes.saw(&window(6, 11_000));
        assert_eq!(presence(&nodes, 12_000), (1, 0), "two epochs, two windows");
        assert_eq!(presence(&nodes, 11_000), (1, 1), "the past is as it was");
        nodes.saw(&window(5, 11_000));
        assert_eq!(presence(&nodes, 12_000), (1, 1));
        nodes.hear(&naming(12_000, 7, true));
        assert_eq!(presence(&nodes, 13_000), (1, 1), "nothing to say");
    }

    #[test]
    fn a_lost_window_does_not_block_for_ever() {
        let mut nodes = Nodes::new(2_000);
        nodes.hear(&naming(10_000, 5, false));
        nodes.saw(&window(4, 10_000));
        for (start_ms, next, arrives) in [(11_000, 6, false), (12_000, 7, true), (13_000, 8, true)]
        {
            nodes.hear(&naming(start_ms, next, false));
            if arrives {
                nodes.saw(&window(next - 1, start_ms));
            }
        }
        let at = [12_000, 13_000, 14_000].map(|to_ms| presence(&nodes, to_ms).1);
        assert_eq!(at, [0, 0, 1]);
        nodes.saw(&window(5, 11_000));
        let at = [12_000, 13_000, 14_000].map(|to_ms| presence(&nodes, to_ms).1);
        assert_eq!(at, [1, 1, 1], "late, but here");
    }

    #[test]
    fn a_new_life_begins_anew_and_old_windows_do_not_count_for_it() {
        let mut nodes = Nodes::new(2_000);
        nodes.hear(&naming(10_000, 500, false));
        nodes.saw(&window(499, 10_000));
        let mut again = naming(11_000, 1, false);
        again.instance = 2;
        nodes.hear(&again);
        nodes.saw(&window(500, 10_000));
        assert_eq!(presence(&nodes, 12_000), (1, 0));
        let mut first = window(0, 11_000);
        first.instance = 2;
        nodes.saw(&first);
        assert_eq!(presence(&nodes, 12_000), (1, 1));
        nodes.forget_progress("sport");
        assert_eq!(presence(&nodes, 12_000), (1, 0), "read again from here on");
    }

    #[test]
    fn windows_of_different_lengths_meet_at_their_common_multiple() {
        let mut nodes = Nodes::new(2_000);
        assert_eq!(nodes.step_ms("sport"), None);
        nodes.hear(&heartbeat("a", 10_000));
        assert_eq!(nodes.step_ms("sport"), Some(1_000));
        for (node, window_ms, expected) in [("b", 2_000, 2_000), ("c", 5_000, 10_000)] {
            let mut heartbeat = heartbeat(node, 10_000);
            heartbeat.window_ms = window_ms;
            nodes.hear(&heartbeat);
            assert_eq!(nodes.step_ms("sport"), Some(expected));
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
