//! What an alert says.
//!
//! Input: a rule, a notice of its episode and the evidence of that moment. Output: [`Alert`], the JSON form that Alertmanager takes at
//! `POST /api/v2/alerts` (a list of them), and [`Record`], the JSON value of the alert topic. Labels say which alert it is and never
//! change in an episode; everything that changes is an annotation. Nothing that is not known is said.

mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::words::annotations;
pub(crate) use self::words::number;
use super::episode::Notice;
use super::evidence::{Evidence, NodeShare};
use super::rfc3339::utc;
use super::rule::{Key, Rule, RuleMetric};
use super::suspected::Suspect;

/// Severity of a suspicion, whatever the rule's is: a route can show it and page nobody.
pub const SUSPECT_SEVERITY: &str = "suspect";

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// What it is about; with bars between, the key of the record.
    #[serde(flatten)]
    pub key: Key,
    /// What happened.
    #[serde(flatten)]
    pub notice: Notice,
    /// A change that is suspected now, whether the rule has confirmed anything or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<Suspect>,
    /// The worst nodes first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub worst_nodes: Vec<NodeShare>,
    /// Begin of the span that the evidence is of, Unix ms; 0: none.
    #[serde(default)]
    pub evidence_from_ms: u64,
    /// End of it, Unix ms.
    #[serde(default)]
    pub evidence_to_ms: u64,
    /// Labels of the alert.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the alert.
    pub annotations: BTreeMap<String, String>,
}

impl Alert {
    /// The alert of a notice; none if Alertmanager is not to hear of it.
    #[must_use]
    pub fn new(rule: &Rule, key: &Key, notice: &Notice, evidence: &Evidence) -> Option<Self> {
        let severity = severity(rule, notice);
        let heard = notice.kind.is_alert() || notice.kind.is_suspect();
        heard.then(|| Self {
            labels: labels(rule, key, severity),
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
    pub fn new(
        rule: &Rule,
        key: &Key,
        notice: &Notice,
        suspect: Option<Suspect>,
        evidence: &Evidence,
    ) -> Self {
        let (evidence_from_ms, evidence_to_ms) = evidence.span_ms.unwrap_or_default();
        Self {
            key: key.clone(),
            notice: notice.clone(),
            suspect,
            worst_nodes: evidence.worst.clone(),
            evidence_from_ms,
            evidence_to_ms,
            labels: labels(rule, key, severity(rule, notice)),
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

/// Of what is said: a suspicion has one of its own.
fn severity<'a>(rule: &'a Rule, notice: &Notice) -> &'a str {
    match notice.kind.is_suspect() {
        true => SUSPECT_SEVERITY,
        false => &rule.severity,
    }
}

/// The configured ones and those that every alert has, which win.
fn labels(rule: &Rule, key: &Key, severity: &str) -> BTreeMap<String, String> {
    let mut labels = rule.labels.clone();
    let own = [
        ("alertname", alertname(rule.metric)),
        ("rule", key.rule.as_str()),
        ("site", key.site.as_str()),
        ("stream", key.stream.as_str()),
        ("severity", severity),
    ];
    labels.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    labels
}

#[cfg(test)]
mod tests;
