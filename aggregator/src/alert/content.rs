//! What an alert says.
//!
//! Input: a rule, a notice of its episode and the evidence of that moment. Output: [`Alert`], the JSON form that Alertmanager takes at
//! `POST /api/v2/alerts` (a list of them), and [`Record`], the JSON value of the alert topic. Labels say which alert it is and never
//! change in an episode; everything that changes is an annotation. Nothing that is not known is said.

use std::collections::BTreeMap;

use sampler_event::{Counters, Estimate};
use serde::{Deserialize, Serialize};

use super::episode::{Ended, FiredBy, Kind, Notice, Peak};
use super::rfc3339::utc;
use super::rule::{Key, Rule, RuleMetric};

/// What is known when a notice is published.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// The estimate that the rule judged.
    pub estimate: Option<Estimate>,
    /// What the change detector holds for normal, as the same ratio.
    pub baseline: Option<f64>,
    /// Sampled flows with data at the end of the span.
    pub flows_active: u64,
    /// Of these, those that are touched: with a retransmit or a stall, as the metric is.
    pub flows_touched: u64,
    /// Nodes that should be in the estimate.
    pub nodes_expected: u64,
    /// Nodes that are.
    pub nodes_reported: u64,
    /// Age of the newest data, ms.
    pub data_age_ms: u64,
    /// Lowest and highest sampling rate of the flows.
    pub sampling_rates: Option<(f64, f64)>,
    /// Sums over the span, of sampled flows.
    pub counters: Counters,
}

/// An alert as Alertmanager takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Which alert it is.
    pub labels: BTreeMap<String, String>,
    /// What it says.
    pub annotations: BTreeMap<String, String>,
    /// When it went on, RFC 3339.
    pub starts_at: String,
    /// When it went off, or until when its word holds, RFC 3339.
    pub ends_at: String,
    /// Where to read more.
    #[serde(rename = "generatorURL", skip_serializing_if = "Option::is_none")]
    pub generator_url: Option<String>,
}

/// A value of the alert topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What it is about; with bars between, the key of the record.
    #[serde(flatten)]
    pub key: Key,
    /// What happened.
    #[serde(flatten)]
    pub notice: Notice,
    /// Labels of the alert.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the alert.
    pub annotations: BTreeMap<String, String>,
}

impl Alert {
    /// The alert of a notice; none if Alertmanager is not to hear of it.
    #[must_use]
    pub fn new(rule: &Rule, key: &Key, notice: &Notice, evidence: &Evidence) -> Option<Self> {
        notice.kind.is_alert().then(|| Self {
            labels: labels(rule, key),
            annotations: annotations(rule, key, notice, evidence),
            starts_at: utc(notice.starts_at_ms),
            ends_at: utc(notice.ends_at_ms),
            generator_url: None,
        })
    }

    /// The alert that is always on: whoever does not hear it any more knows that alerts do not come through.
    #[must_use]
    pub fn watchdog(site: &str, since_ms: u64, ends_at_ms: u64) -> Self {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let labels = [
            label("alertname", "FlowvitalsWatchdog"),
            label("site", site),
            label("severity", "none"),
        ];
        let summary =
            "This alert is always on. If it goes away, alerts of this site do not come through.";
        Self {
            labels: labels.into(),
            annotations: [label("summary", summary)].into(),
            starts_at: utc(since_ms),
            ends_at: utc(ends_at_ms),
            generator_url: None,
        }
    }
}

impl Record {
    /// The record of a notice.
    #[must_use]
    pub fn new(rule: &Rule, key: &Key, notice: &Notice, evidence: &Evidence) -> Self {
        Self {
            key: key.clone(),
            notice: notice.clone(),
            labels: labels(rule, key),
            annotations: annotations(rule, key, notice, evidence),
        }
    }
}

/// Value of the label `alertname`.
const fn alertname(metric: RuleMetric) -> &'static str {
    match metric {
        RuleMetric::RetransSegs => "FlowvitalsRetransSegs",
        RuleMetric::RetransRatio => "FlowvitalsRetransRatio",
        RuleMetric::StallRatio => "FlowvitalsStallRatio",
        RuleMetric::RttSlowRatio => "FlowvitalsRttSlowRatio",
        RuleMetric::FlowsSilentRatio => "FlowvitalsFlowsSilentRatio",
        RuleMetric::NoData => "FlowvitalsNoData",
    }
}

/// The configured ones and those that every alert has, which win.
fn labels(rule: &Rule, key: &Key) -> BTreeMap<String, String> {
    let mut labels = rule.labels.clone();
    let own = [
        ("alertname", alertname(rule.metric)),
        ("rule", key.rule.as_str()),
        ("site", key.site.as_str()),
        ("stream", key.stream.as_str()),
        ("severity", rule.severity.as_str()),
    ];
    labels.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    labels
}

fn annotations(
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
        ("baseline", evidence.baseline.map(number)),
        ("onset", Some(utc(notice.onset_ms))),
        (
            "flows_touched",
            part(evidence.flows_touched, evidence.flows_active).map(|touched| {
                let (some, all) = (evidence.flows_touched, evidence.flows_active);
                format!("{} ({some} of {all} sampled flows)", percent(touched))
            }),
        ),
        ("completeness", completeness(evidence)),
        (
            "sampling_rate",
            evidence
                .sampling_rates
                .map(|(least, most)| match least < most {
                    true => format!("{least} to {most}"),
                    false => least.to_string(),
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
        ("episode_id", notice.episode_id.clone()),
    ];
    let mut annotations = rule.annotations.clone();
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

fn number(metric: RuleMetric, value: f64) -> String {
    match metric.is_share() {
        true => share(value),
        false => format!("{value:.0}"),
    }
}

/// In percent, three digits.
fn share(value: f64) -> String {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::episode::State;
    use super::super::rule::tests::{estimate, rule};
    use super::*;

    fn key() -> Key {
        Key {
            rule: "retransmissions".to_owned(),
            site: "ams1".to_owned(),
            stream: "sport-1".to_owned(),
        }
    }

    fn notice(kind: Kind) -> Notice {
        let resolved = kind == Kind::Resolved;
        Notice {
            kind,
            state: if resolved { State::Ok } else { State::Firing },
            owner_epoch: 7,
            episode_id: Some("00ff".to_owned()),
            said_ms: 1_795_376_705_000,
            starts_at_ms: 1_795_376_702_000,
            ends_at_ms: 1_795_376_765_000,
            onset_ms: 1_795_376_700_100,
            fired_by: Some(FiredBy::Nodes(2)),
            peak: Some(Peak {
                value: 0.05,
                low: 0.04,
                high: 0.062,
                at_ms: 1_795_376_703_000,
            }),
            duration_ms: resolved.then_some(63_000),
            ended: resolved.then_some(Ended::Cleared),
        }
    }

    fn evidence() -> Evidence {
        Evidence {
            estimate: Some(estimate(0.031, 0.025)),
            baseline: Some(0.004),
            flows_active: 400,
            flows_touched: 130,
            nodes_expected: 100,
            nodes_reported: 97,
            data_age_ms: 1_200,
            sampling_rates: Some((0.1, 0.25)),
            counters: Counters {
                retrans_segs: 200,
                retrans_rto_segs: 50,
                dsack_dups: 10,
                stall_network_us: 750,
                stall_sender_us: 250,
                ..Counters::default()
            },
        }
    }

    #[test]
    fn alertmanager_is_told_what_where_since_when_how_wide_and_why() {
        let mut rule = rule();
        rule.labels = [("customer".to_owned(), "acme".to_owned())].into();
        let runbook = ("runbook_url".to_owned(), "https://example.net/r".to_owned());
        rule.annotations = [runbook, ("empty".to_owned(), String::new())].into();
        let alert = Alert::new(&rule, &key(), &notice(Kind::Fired), &evidence()).expect("an alert");
        let found = serde_json::to_value([alert]).expect("JSON");
        let expected = json!([{
            "labels": {
                "alertname": "FlowvitalsRetransRatio", "rule": "retransmissions", "site": "ams1",
                "stream": "sport-1", "severity": "page", "customer": "acme"
            },
            "annotations": {
                "summary": "sport-1 at ams1: 3.1 % of segments are retransmits, since 2026-11-22T19:45:00.100Z",
                "estimate": "3.1 % (2.5 % to 3.7 % at 95 %, 300 sampled flows)",
                "threshold": "2 %",
                "baseline": "0.4 %",
                "onset": "2026-11-22T19:45:00.100Z",
                "flows_touched": "32.5 % (130 of 400 sampled flows)",
                "completeness": "97 of 100 nodes, data 1.2 s old",
                "sampling_rate": "0.1 to 0.25",
                "stall_causes": "network 75 %, receiver 0 %, sender 25 %, other 0 %",
                "rto_share": "25 %",
                "spurious_share": "5 %",
                "fired_by": "2 nodes whose pulses agree",
                "peak": "5 % (4 % to 6.2 %) at 2026-11-22T19:45:03.000Z",
                "episode_id": "00ff",
                "runbook_url": "https://example.net/r"
            },
            "startsAt": "2026-11-22T19:45:02.000Z",
            "endsAt": "2026-11-22T19:46:05.000Z"
        }]);
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_known_is_not_said_and_labels_cannot_be_taken() {
        let mut rule = rule();
        rule.labels = [("site".to_owned(), "elsewhere".to_owned())].into();
        let notice = notice(Kind::Resolved);
        let alert = Alert::new(&rule, &key(), &notice, &Evidence::default()).expect("an alert");
        let names: Vec<_> = alert.annotations.keys().map(String::as_str).collect();
        let known = [
            "duration",
            "ended",
            "episode_id",
            "fired_by",
            "onset",
            "peak",
            "summary",
            "threshold",
        ];
        assert_eq!(names, known);
        assert_eq!(alert.annotations["duration"], "63.0 s");
        assert_eq!(alert.labels["site"], "ams1");
        assert_eq!(alert.labels.len(), 5);
        for kind in [
            Kind::Pending,
            Kind::Withdrawn,
            Kind::Resolving,
            Kind::Relapsed,
        ] {
            let notice = Notice {
                kind,
                ..notice.clone()
            };
            assert_eq!(Alert::new(&rule, &key(), &notice, &evidence()), None);
        }
    }

    #[test]
    fn the_record_is_flat_and_reads_back() {
        let record = Record::new(&rule(), &key(), &notice(Kind::Fired), &evidence());
        let json = serde_json::to_value(&record).expect("JSON");
        for (name, value) in [
            ("rule", json!("retransmissions")),
            ("stream", json!("sport-1")),
            ("kind", json!("fired")),
            ("state", json!("firing")),
            ("owner_epoch", json!(7)),
            ("episode_id", json!("00ff")),
            ("fired_by", json!({"nodes": 2})),
        ] {
            assert_eq!(json[name], value, "{name}");
        }
        assert_eq!(record.key.to_string(), "retransmissions|ams1|sport-1");
        assert_eq!(
            serde_json::from_value::<Record>(json).expect("its own JSON"),
            record
        );
    }

    #[test]
    fn shares_in_percent() {
        for (value, text) in [
            (0.0, "0 %"),
            (0.000_041, "0.004 %"),
            (0.02, "2 %"),
            (0.099_96, "10 %"),
            (0.123_4, "12.3 %"),
            (1.0, "100 %"),
        ] {
            assert_eq!(share(value), text);
        }
    }

    #[test]
    fn the_watchdog_is_the_sites() {
        let alert = Alert::watchdog("ams1", 0, 60_000);
        assert_eq!(alert.labels["alertname"], "FlowvitalsWatchdog");
        assert_eq!(alert.labels["site"], "ams1");
        assert_eq!(alert.ends_at, "1970-01-01T00:01:00.000Z");
    }
}
