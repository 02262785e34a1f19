//! What is missing: a stream's data held against the nodes that should send them.
//!
//! Input: heartbeats, as (node, when, state), and the time. Output: an observation whose value is the share of expected nodes that say
//! nothing; a rule of the metric `no_data` judges it. A node is expected from its first heartbeat that names the stream until it says
//! that it stops, drops the stream, or was silent for `forget_after_ms`: much longer than merging waits for it, because here its
//! absence is the news. A node that reports the stream as silent is there. Only while a schedule says that there must be an
//! audience, a stream that every node reports as silent counts as missing everywhere.
//!
//! The expectation is serialisable: a new owner knows whom to miss. Limits: [`MAX_NODES`] nodes a stream.

use std::collections::BTreeMap;

use sampler_event::{Estimate, Insufficient};
use serde::{Deserialize, Serialize};

use super::episode::Observation;
use super::rule::Rule;

/// Nodes kept for a stream.
pub const MAX_NODES: usize = 1_024;

/// What a heartbeat says about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// There was something to say.
    Data,
    /// The stream is configured and there was nothing to say.
    Silent,
    /// The node stops on purpose, or has not configured the stream any more.
    Leaves,
}

/// What one node said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    /// End of the window of its last heartbeat, Unix ms.
    heard_ms: u64,
    /// End of its last window that had something to say, Unix ms.
    data_ms: u64,
}

/// The nodes of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoData {
    nodes: BTreeMap<String, Node>,
}

impl NoData {
    /// Takes in what a node's heartbeat for a window that ended at `end_ms` says; older ones than known change nothing.
    pub fn hear(&mut self, node: &str, end_ms: u64, said: Said) {
        let known = self.nodes.get(node);
        if known.is_some_and(|node| node.heard_ms >= end_ms) {
            return;
        }
        let data_ms = match said {
            Said::Leaves => {
                self.nodes.remove(node);
                return;
            }
            Said::Data => end_ms,
            Said::Silent => known.map_or(0, |node| node.data_ms),
        };
        if known.is_none() && self.nodes.len() >= MAX_NODES {
            return;
        }
        let heard = Node {
            heard_ms: end_ms,
            data_ms,
        };
        self.nodes.insert(node.to_owned(), heard);
    }

    /// Expected nodes from which nothing was heard in a span that ends at `at_ms`, in order of their names.
    pub fn missing(&self, at_ms: u64, over_ms: u64) -> impl Iterator<Item = &str> {
        let begin_ms = at_ms.saturating_sub(over_ms);
        let silent = self
            .nodes
            .iter()
            .filter(move |(_, node)| node.heard_ms <= begin_ms);
        silent.map(|(name, _)| name.as_str())
    }

    /// Takes in what another owner knew: whom to miss. The later word of a node counts.
    pub fn merge(&mut self, other: &Self) {
        for (name, theirs) in &other.nodes {
            let room = self.nodes.len() < MAX_NODES;
            match self.nodes.get_mut(name) {
                Some(mine) if mine.heard_ms < theirs.heard_ms => *mine = *theirs,
                Some(_) => {}
                None if room => drop(self.nodes.insert(name.clone(), *theirs)),
                None => {}
            }
        }
    }

    /// Whether it expects a node.
    #[must_use]
    pub fn expects(&self, node: &str) -> bool {
        self.nodes.contains_key(node)
    }

    /// Forgets nodes that were silent for too long.
    pub fn forget_before(&mut self, moment_ms: u64) {
        self.nodes.retain(|_, node| node.heard_ms >= moment_ms);
    }

    /// How things stand at `at_ms`, by the time of day less what delivery may take. `consuming` says whether this aggregator itself
    /// is connected and has read what there is: one that is cut off does not know who is missing.
    #[must_use]
    pub fn observe(&self, rule: &Rule, at_ms: u64, consuming: bool) -> Observation {
        let expected = self.nodes.len() as u64;
        let missing = self.missing(at_ms, rule.over_ms()).count() as u64;
        let begin_ms = at_ms.saturating_sub(rule.over_ms());
        let silent =
            rule.active.is_some() && self.nodes.values().all(|node| node.data_ms <= begin_ms);
        let value = match silent {
            true => 1.0,
            false => missing as f64 / expected.max(1) as f64,
        };
        let estimate = match expected {
            0 => Err(Insufficient::Denominator),
            _ => Ok(Estimate {
                value,
                low: value,
                high: value,
                confidence: 1.0,
                flows_sampled: 0,
                exact: true,
            }),
        };
        // That nodes are missing is what is observed here, not a gap in the observation.
        Observation {
            at_ms,
            estimate,
            provisional: !consuming,
            nodes_expected: expected,
            nodes_reported: expected,
        }
    }

    /// Nodes that are expected.
    #[must_use]
    pub fn expected(&self) -> usize {
        self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::{Active, RuleMetric, Verdict, tests::rule};
    use super::*;

    fn no_data_rule(active: Option<Active>) -> Rule {
        Rule {
            metric: RuleMetric::NoData,
            active,
            ..rule()
        }
    }

    fn value(no_data: &NoData, rule: &Rule, at_ms: u64) -> f64 {
        let observation = no_data.observe(rule, at_ms, true);
        observation.estimate.expect("nodes").value
    }

    #[test]
    fn missing_nodes_are_held_against_the_expected_ones() {
        let rule = no_data_rule(None);
        let mut no_data = NoData::default();
        for node in ["a", "b", "c"] {
            no_data.hear(node, 10_000, Said::Data);
        }
        assert_eq!(value(&no_data, &rule, 19_999), 0.0);
        no_data.hear("a", 20_000, Said::Silent);
        assert_eq!(value(&no_data, &rule, 20_000), 2.0 / 3.0);
        assert_eq!(
            no_data.missing(20_000, 10_000).collect::<Vec<_>>(),
            ["b", "c"]
        );
        let observation = no_data.observe(&rule, 20_000, true);
        assert!(observation.is_complete());
        assert_eq!(rule.judge(&observation.estimate), Verdict::Above);
        // Whoever says that it leaves is not missed, and old news do not bring it back.
        no_data.hear("b", 21_000, Said::Leaves);
        assert_eq!(value(&no_data, &rule, 21_000), 0.5);
        no_data.hear("a", 5_000, Said::Leaves);
        assert_eq!(no_data.expected(), 2);
        no_data.forget_before(20_000);
        assert_eq!(no_data.expected(), 1);
    }

    #[test]
    fn silence_everywhere_counts_only_inside_a_schedule() {
        let mut no_data = NoData::default();
        for at_ms in [10_000, 20_000, 30_000] {
            no_data.hear("a", at_ms, Said::Silent);
            no_data.hear("b", at_ms, Said::Silent);
        }
        let active = Active {
            begin_ms: 0,
            end_ms: 100_000,
        };
        assert_eq!(value(&no_data, &no_data_rule(None), 30_000), 0.0);
        assert_eq!(value(&no_data, &no_data_rule(Some(active)), 30_000), 1.0);
        no_data.hear("b", 31_000, Said::Data);
        assert_eq!(value(&no_data, &no_data_rule(Some(active)), 31_000), 0.0);
    }

    #[test]
    fn who_knows_nothing_says_nothing() {
        let rule = no_data_rule(None);
        let mut no_data = NoData::default();
        let nobody = no_data.observe(&rule, 10_000, true);
        assert_eq!(nobody.estimate, Err(Insufficient::Denominator));
        assert!(!nobody.is_complete());
        no_data.hear("a", 10_000, Said::Data);
        assert!(!no_data.observe(&rule, 60_000, false).is_complete());
        let json = serde_json::to_string(&no_data).expect("JSON");
        let read: NoData = serde_json::from_str(&json).expect("its own JSON");
        assert_eq!(value(&read, &rule, 60_000), 1.0);
    }

    #[test]
    fn nodes_are_bounded() {
        let mut no_data = NoData::default();
        for node in 0..2 * MAX_NODES {
            no_data.hear(&node.to_string(), 1_000, Said::Data);
        }
        assert_eq!(no_data.expected(), MAX_NODES);
    }
}
