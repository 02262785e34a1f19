//! What a rule sees of a stream at one moment.
//!
//! Input: a rule and the sum of the stream's windows over its span. Output: an [`Observation`]. `no_data` has one of its own.

use sampler_event::{Estimate, Insufficient, Options, WindowSum};

use super::episode::Observation;
use super::rule::{Rule, RuleMetric};
use super::silent;
use crate::merge::{Presence, main_source};

/// The estimate that a rule judges, over a span that ends at `end_ms`.
///
/// # Errors
/// If there is too little evidence.
pub fn estimate(rule: &Rule, sum: &WindowSum, end_ms: u64) -> Result<Estimate, Insufficient> {
    if rule.metric == RuleMetric::FlowsSilentRatio {
        return silent::ratio(sum, end_ms, rule.min_flows);
    }
    let source = main_source(sum);
    if source.is_none() && rule.metric == RuleMetric::RttSlowRatio {
        return Err(Insufficient::Denominator);
    }
    let options = Options {
        min_flows: rule.min_flows,
        ..Options::default()
    };
    let metric = rule.metric.estimated(source.unwrap_or_default());
    metric.map_or(Err(Insufficient::Denominator), |metric| {
        metric.estimate(sum, &options)
    })
}

/// What is known at `end_ms`. `waiting` says that events of nodes that live may be on their way.
pub fn observe(
    rule: &Rule,
    sum: &WindowSum,
    end_ms: u64,
    presence: Presence,
    waiting: bool,
) -> Observation {
    Observation {
        at_ms: end_ms,
        estimate: estimate(rule, sum, end_ms),
        provisional: waiting,
        nodes_expected: presence.expected,
        nodes_reported: presence.reported,
    }
}
