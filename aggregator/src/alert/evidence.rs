//! What is known of a stream when an alert about it is said.
//!
//! Input: the site in memory, a rule, and the end of the span that it judged. Output: [`Evidence`]. It is gathered when there is something to
//! say, never for every observation. Counters are of sampled flows unless they say otherwise. Limits: [`WORST`] nodes by name.

use std::collections::BTreeMap;

use sampler_event::{Counters, Estimate, Stratum, WindowSum};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::observe;
use super::rule::{Rule, RuleMetric};
use super::suspect::NodeView;
use crate::merge::Live;

/// Nodes that are named.
pub const WORST: usize = 5;
/// A node with less than this share of the mean node's traffic is not held against the others.
const LEAST_TRAFFIC: f64 = 0.01;

/// What is known when a notice is published.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// The estimate that the rule judged.
    pub estimate: Option<Estimate>,
    /// The same one span earlier.
    pub before: Option<Estimate>,
    /// What the change detector holds for normal, as the same ratio.
    pub baseline: Option<f64>,
    /// Begin and end of the span, Unix ms.
    pub span_ms: Option<(u64, u64)>,
    /// Sampled flows with data at the end of the span.
    pub flows_active: u64,
    /// Of these, those that are touched: with a retransmit or a stall, as the metric is.
    pub flows_touched: u64,
    /// Nodes that should be in the estimate.
    pub nodes_expected: u64,
    /// Nodes that are.
    pub nodes_reported: u64,
    /// Nodes with data, and those of them that are above the threshold by themselves.
    pub nodes_with_data: u64,
    /// See `nodes_with_data`.
    pub nodes_touched: u64,
    /// The worst nodes first.
    pub worst: Vec<NodeShare>,
    /// Age of the newest data, ms.
    pub data_age_ms: u64,
    /// Lowest and highest sampling rate of the flows.
    pub sampling_rates: Option<(f64, f64)>,
    /// Flows were refused at a limit on a node.
    pub biased: bool,
    /// Sums over the span, of sampled flows.
    pub counters: Counters,
    /// Labels of the stream on its nodes.
    pub stream_labels: BTreeMap<String, String>,
    /// What changed on its nodes lately.
    pub changes: Vec<String>,
}

/// What one node has to do with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeShare {
    /// Its name.
    pub node: String,
    /// Its own ratio; its own total where the metric is one. None: it says nothing.
    pub value: Option<f64>,
    /// Numerator of its sampled flows.
    pub some: u64,
    /// Denominator of its sampled flows.
    pub all: u64,
}

impl Evidence {
    /// Gathers what there is about a span that ends at `at_ms`.
    #[must_use]
    pub fn gather(live: &Live, rule: &Rule, stream: &str, at_ms: u64, now_ms: u64) -> Self {
        let from_ms = at_ms.saturating_sub(rule.over_ms());
        let sum = live.sum(stream, from_ms, at_ms);
        let earlier = live.sum(stream, from_ms.saturating_sub(rule.over_ms()), from_ms);
        let presence = live.nodes().presence(stream, at_ms);
        let gauges = sum.gauges_since(at_ms);
        let (flows_touched, flows_active) = match rule.metric {
            RuleMetric::RetransSegs | RuleMetric::RetransRatio => {
                (gauges.flows_retransmitting, gauges.flows_active)
            }
            RuleMetric::StallRatio => (gauges.flows_stalled, gauges.flows_active),
            RuleMetric::FlowsSilentRatio => (gauges.flows_silent, gauges.flows_open),
            RuleMetric::RttSlowRatio | RuleMetric::NoData => (0, 0),
        };
        let mut evidence = Self {
            estimate: observe::estimate(rule, &sum, at_ms).ok(),
            before: observe::estimate(rule, &earlier, from_ms).ok(),
            span_ms: Some((from_ms, at_ms)),
            flows_active,
            flows_touched,
            nodes_expected: presence.expected,
            nodes_reported: presence.reported,
            data_age_ms: now_ms.saturating_sub(at_ms),
            sampling_rates: rates(&sum),
            biased: sum.flags() & sampler_event::Flag::Biased as u32 != 0,
            counters: sum.counters(),
            stream_labels: live.nodes().labels(stream),
            ..Self::default()
        };
        match rule.metric {
            RuleMetric::NoData => {}
            _ => evidence.name_nodes(rule, &sum, at_ms),
        }
        evidence
    }

    fn name_nodes(&mut self, rule: &Rule, sum: &WindowSum, at_ms: u64) {
        let mut nodes: BTreeMap<&str, Part> = BTreeMap::new();
        for (key, stratum) in sum.strata().filter(|(_, s)| s.sampling_rate > 0.0) {
            let part = nodes.entry(key.node.as_str()).or_default();
            part.add(rule.metric, stratum, at_ms);
        }
        nodes.retain(|_, part| part.all > 0);
        let mean =
            nodes.values().map(|part| part.all_flows).sum::<f64>() / nodes.len().max(1) as f64;
        let threshold = match rule.metric {
            // Of a total each node has its part.
            RuleMetric::RetransSegs => rule.above / nodes.len().max(1) as f64,
            _ => rule.above,
        };
        let mut found: Vec<(f64, &str, Part)> = nodes
            .into_iter()
            .filter(|(_, part)| part.all_flows >= mean * LEAST_TRAFFIC)
            .map(|(node, part)| (part.value(rule.metric), node, part))
            .collect();
        self.nodes_with_data = found.len() as u64;
        self.nodes_touched = found
            .iter()
            .filter(|(value, ..)| *value > threshold)
            .count() as u64;
        found.sort_by(|(one, ..), (other, ..)| other.total_cmp(one));
        let worst = found.into_iter().take(WORST);
        self.worst = worst
            .map(|(value, node, part)| NodeShare {
                node: node.to_owned(),
                value: Some(value),
                some: part.some,
                all: part.all,
            })
            .collect();
    }

    /// Takes what the pulses say of the nodes for what the windows say: those do not hold it yet.
    pub fn see_nodes(&mut self, views: &[NodeView]) {
        self.nodes_with_data = views.len() as u64;
        self.nodes_touched = views.iter().filter(|view| view.touched).count() as u64;
        let worst = views.iter().take(WORST).map(|view| NodeShare {
            node: view.node.clone(),
            value: Some(view.ratio),
            some: view.retrans as u64,
            all: view.sent as u64,
        });
        self.worst = worst.collect();
    }

    /// Names nodes of which nothing is known.
    pub fn name_missing<'a>(&mut self, nodes: impl Iterator<Item = &'a str>) {
        let missing = nodes.take(WORST).map(|node| NodeShare {
            node: node.to_owned(),
            value: None,
            some: 0,
            all: 0,
        });
        self.worst = missing.collect();
    }
}

fn rates(sum: &WindowSum) -> Option<(f64, f64)> {
    let rates = sum.strata().map(|(_, stratum)| stratum.sampling_rate);
    rates.filter(|rate| *rate > 0.0).fold(None, |range, rate| {
        let (least, most) = range.unwrap_or((rate, rate));
        Some((rate.min(least), rate.max(most)))
    })
}

/// Numerator and denominator of one node: of its sampled flows, and scaled to all.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    some: u64,
    all: u64,
    some_flows: f64,
    all_flows: f64,
}

impl Part {
    fn add(&mut self, metric: RuleMetric, stratum: &Stratum, at_ms: u64) {
        let (counters, groups) = (&stratum.counters, &stratum.groups);
        let total = |groups: &[u64]| groups.iter().fold(0u64, |sum, g| sum.saturating_add(*g));
        let (some, all) = match metric {
            RuleMetric::RetransSegs | RuleMetric::RetransRatio => {
                (counters.retrans_segs, counters.data_segs_out)
            }
            RuleMetric::StallRatio => (total(&groups.stall_ms), total(&groups.busy_ms)),
            RuleMetric::RttSlowRatio => (total(&groups.rtt_slow), total(&groups.rtt_count)),
            RuleMetric::FlowsSilentRatio if stratum.gauges.end_ms >= at_ms => {
                (stratum.gauges.flows_silent, stratum.gauges.flows_open)
            }
            RuleMetric::FlowsSilentRatio | RuleMetric::NoData => (0, 0),
        };
        self.some = self.some.saturating_add(some);
        self.all = self.all.saturating_add(all);
        self.some_flows += some as f64 / stratum.sampling_rate;
        self.all_flows += all as f64 / stratum.sampling_rate;
    }

    fn value(&self, metric: RuleMetric) -> f64 {
        match metric {
            RuleMetric::RetransSegs => self.some_flows,
            _ => self.some_flows / self.all_flows,
        }
    }
}
