//! An alert in words: the annotations.
//!
//! Input: as [`Alert`](super::Alert). Output: names and texts; what is not known is left out. A name that a rule or a stream sets
//! itself does not take the place of one of ours. Shares are in percent with three digits, times RFC 3339 in UTC.

use std::collections::BTreeMap;

use sampler_event::{Counters, Estimate};

use crate::alert::episode::{Ended, FiredBy, Kind, Notice, Peak};
use crate::alert::evidence::{Evidence, NodeShare};
use crate::alert::rfc3339::utc;
use crate::alert::rule::{Key, Rule, RuleMetric};

/// All annotations of an alert.
pub(super) fn annotations(
    rule: &Rule,
    key: &Key,
    notice: &Notice,
    evidence: &Evidence,
) -> BTreeMap<String, String> {
    let number = |value| number(rule.metric, value);
    let percent = |value| share(value);
    let estimate = evidence.estimate.as_ref();
    let threshold = number(rule.threshold());
    let counters = &evidence.counters;
    let facts = [
        ("summary", Some(summary(rule, key, notice, evidence))),
        (
            "estimate",
            estimate.map(|found| interval(rule.metric, found)),
        ),
        ("threshold", Some(threshold)),
        ("baseline", evidence.baseline.map(share)),
        ("trend", trend(rule, evidence)),
        ("onset", Some(utc(notice.onset_ms))),
        (
            "flows_touched",
            part(evidence.flows_touched, evidence.flows_active).map(|touched| {
                let (some, all) = (evidence.flows_touched, evidence.flows_active);
                format!("{} ({some} of {all} sampled flows)", percent(touched))
            }),
        ),
        ("nodes_touched", nodes_touched(evidence)),
        ("worst_nodes", worst(rule.metric, &evidence.worst)),
        ("completeness", completeness(evidence)),
        (
            "sampling_rate",
            evidence
                .sampling_rates
                .map(|(least, most)| match least < most {
                    true => format!("{least} to {most}"),
                    false => least.to_string(),
                })
                .map(|rate| match evidence.biased {
                    true => format!("{rate}; flows were refused at a limit"),
                    false => rate,
                }),
        ),
        ("stall_causes", stall_causes(counters)),
        (
            "rto_share",
            part(counters.retrans_rto_segs, counters.retrans_segs).map(percent),
        ),
        (
            "spurious_share",
            part(counters.dsack_dups, counters.retrans_segs).map(|value| percent(value.min(1.0))),
        ),
        ("fired_by", notice.fired_by.map(fired_by)),
        ("peak", notice.peak.map(|peak| at_peak(rule.metric, peak))),
        ("duration", notice.duration_ms.map(seconds)),
        (
            "ended",
            notice.ended.map(|ended| ended_in_words(ended).to_owned()),
        ),
        (
            "changed",
            (!evidence.changes.is_empty()).then(|| evidence.changes.join("; ")),
        ),
        ("episode_id", notice.episode_id.clone()),
        (
            "record",
            notice
                .episode_id
                .as_ref()
                .map(|id| format!("/api/v1/alerts/{key}/{id}").replace('|', "%7C")),
        ),
        (
            "evidence",
            evidence.span_ms.map(|(from_ms, to_ms)| {
                let stream = &key.stream;
                format!("/api/v1/streams/{stream}/windows?from_ms={from_ms}&to_ms={to_ms}")
            }),
        ),
    ];
    let mut annotations = evidence.stream_labels.clone();
    annotations.extend(rule.annotations.clone());
    annotations.retain(|_, text| !text.is_empty());
    let known = facts
        .into_iter()
        .filter_map(|(name, text)| Some((name.to_owned(), text?)));
    annotations.extend(known);
    annotations
}

fn summary(rule: &Rule, key: &Key, notice: &Notice, evidence: &Evidence) -> String {
    let (stream, site) = (&key.stream, &key.site);
    let what = match rule.metric {
        RuleMetric::RetransSegs => "segments retransmitted",
        RuleMetric::RetransRatio => "of segments are retransmits",
        RuleMetric::StallRatio => "of busy time is stalled",
        RuleMetric::RttSlowRatio => "of round trips are slow",
        RuleMetric::FlowsSilentRatio => "of open flows make no progress",
        RuleMetric::NoData => "of nodes send no data",
    };
    let now = evidence.estimate.as_ref().map(|found| found.value);
    if notice.kind.is_suspect() {
        return suspicion(rule, key, notice, evidence);
    }
    let (value, since) = match notice.kind {
        Kind::Resolved | Kind::ResolvedRepeated | Kind::Withdrawn => {
            let peak = notice.peak.map(|peak| peak.value);
            (peak, "at the peak; it is over")
        }
        _ => (now.or(notice.peak.map(|peak| peak.value)), ""),
    };
    let value = value.map_or_else(
        || "an unknown part".to_owned(),
        |value| number(rule.metric, value),
    );
    let since = match since {
        "" => format!("since {}", utc(notice.onset_ms)),
        over => over.to_owned(),
    };
    format!("{stream} at {site}: {value} {what}, {since}")
}

fn suspicion(rule: &Rule, key: &Key, notice: &Notice, evidence: &Evidence) -> String {
    let (stream, site) = (&key.stream, &key.site);
    if notice.kind == Kind::SuspectEnded {
        return format!("{stream} at {site}: the rise of retransmissions is over");
    }
    let value = notice.peak.map_or(0.0, |peak| peak.value);
    let (value, since) = (share(value), utc(notice.onset_ms));
    let (rule, whose) = (&rule.name, whose(evidence));
    format!(
        "{stream} at {site}: retransmissions have risen to {value} of segments{whose} since {since}; not confirmed by {rule}"
    )
}

/// " of edge-07, one of 100 nodes": the others may be well.
fn whose(evidence: &Evidence) -> String {
    match (evidence.nodes_touched, evidence.worst.first()) {
        (1, Some(worst)) if evidence.nodes_with_data > 1 => {
            let (node, all) = (&worst.node, evidence.nodes_with_data);
            format!(" of {node}, one of {all} nodes,")
        }
        _ => String::new(),
    }
}

/// "0.5 % ten seconds earlier, now 3.1 %".
fn trend(rule: &Rule, evidence: &Evidence) -> Option<String> {
    let (now, before) = (evidence.estimate?, evidence.before?);
    let word = match now.value.partial_cmp(&before.value)? {
        std::cmp::Ordering::Greater => "rising",
        std::cmp::Ordering::Less => "falling",
        std::cmp::Ordering::Equal => "steady",
    };
    let before = number(rule.metric, before.value);
    Some(format!("{word}, {before} {} s earlier", rule.over_s))
}

fn nodes_touched(evidence: &Evidence) -> Option<String> {
    let (some, all) = (evidence.nodes_touched, evidence.nodes_with_data);
    (all > 0).then(|| format!("{some} of {all} nodes"))
}

/// "edge-07 8.1 % (812 of 10020); edge-03 …".
fn worst(metric: RuleMetric, nodes: &[NodeShare]) -> Option<String> {
    let one = |node: &NodeShare| match node.value {
        None => format!("{} no data", node.node),
        Some(value) => {
            let (name, value) = (&node.node, number(metric, value));
            format!("{name} {value} ({} of {} sampled)", node.some, node.all)
        }
    };
    let all: Vec<_> = nodes.iter().map(one).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn interval(metric: RuleMetric, found: &Estimate) -> String {
    let value = number(metric, found.value);
    if found.exact {
        return format!("{value} (exact)");
    }
    let (low, high) = (number(metric, found.low), number(metric, found.high));
    let (confidence, flows) = (share(found.confidence), found.flows_sampled);
    format!("{value} ({low} to {high} at {confidence}, {flows} sampled flows)")
}

fn at_peak(metric: RuleMetric, peak: Peak) -> String {
    let [value, low, high] = [peak.value, peak.low, peak.high].map(|value| number(metric, value));
    format!("{value} ({low} to {high}) at {}", utc(peak.at_ms))
}

fn completeness(evidence: &Evidence) -> Option<String> {
    let (reported, expected) = (evidence.nodes_reported, evidence.nodes_expected);
    let age = evidence.data_age_ms as f64 / 1_000.0;
    (expected > 0).then(|| format!("{reported} of {expected} nodes, data {age:.1} s old"))
}

fn stall_causes(counters: &Counters) -> Option<String> {
    let causes = [
        ("network", counters.stall_network_us),
        ("receiver", counters.stall_receiver_us),
        ("sender", counters.stall_sender_us),
        ("other", counters.stall_other_us),
    ];
    let all = causes
        .iter()
        .fold(0u64, |sum, (_, us)| sum.saturating_add(*us));
    let parts = causes.map(|(name, us)| Some(format!("{name} {}", share(part(us, all)?))));
    let parts: Option<Vec<_>> = parts.into_iter().collect();
    parts.map(|parts| parts.join(", "))
}

fn fired_by(fired_by: FiredBy) -> String {
    match fired_by {
        FiredBy::Rule => "the rule".to_owned(),
        FiredBy::Nodes(nodes) => format!("{nodes} nodes whose pulses agree"),
    }
}

const fn ended_in_words(ended: Ended) -> &'static str {
    match ended {
        Ended::Cleared => "the value stayed low",
        Ended::ScheduleOver => "the schedule is over",
        Ended::RuleGone => "the rule is no longer in force",
        Ended::EvidenceGone => "nothing was known for an hour; whether it is over is not known",
    }
}

/// A part of a whole; none of nothing.
fn part(some: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64)
}

/// A share in percent, a total in whole numbers.
pub(crate) fn number(metric: RuleMetric, value: f64) -> String {
    match metric.is_share() {
        true => share(value),
        false => format!("{value:.0}"),
    }
}

/// In percent, three digits.
pub(super) fn share(value: f64) -> String {
    let percent = value * 100.0;
    let digits = match percent.abs() {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        value if value >= 0.999_5 => 2,
        _ => 3,
    };
    let text = format!("{percent:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text} %")
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1_000.0)
}
