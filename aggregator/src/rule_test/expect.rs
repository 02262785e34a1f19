//! What a test expects, held against what is on.
//!
//! Input: an [`Expected`] moment, and what rules have said up to it. Output: what differs, in words. Times are milliseconds since the test began.
//! All that is firing, resolving or suspected has to be expected; what is pending may be.

use std::collections::BTreeMap;

use glob::Pattern;
use service::config::Place;

use super::words;
use crate::alert::{Ended, FiredBy, Kind, Record, Rule, RuleMetric, State};
use crate::replay::{Heard, Replay};

/// A moment of a test.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Where it stands.
    pub place: Place,
    /// When.
    pub at_ms: u64,
    /// All that is on.
    pub alerts: Vec<ExpectedAlert>,
}

/// One alert that is on; [`State::Ok`]: that is not.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedAlert {
    /// Where it stands.
    pub place: Place,
    /// Name of its rule.
    pub rule: String,
    /// Name of its stream.
    pub stream: String,
    /// Where it stands.
    pub state: State,
    /// Its label.
    pub severity: Option<String>,
    /// Since when, first and last moment.
    pub since_ms: Option<(u64, u64)>,
    /// Where the rule's estimate lies.
    pub value: Option<(f64, f64)>,
    /// Nodes above the threshold by themselves.
    pub nodes: Option<u64>,
    /// What raised it: true is the nodes' pulses.
    pub by_nodes: Option<bool>,
    /// Some of its labels.
    pub labels: BTreeMap<String, Pattern>,
    /// Some of its annotations.
    pub annotations: BTreeMap<String, Pattern>,
}

/// What is on.
#[derive(Debug, Default)]
pub struct Standing {
    /// Last word of each rule and stream about an episode, and about a suspicion.
    episodes: BTreeMap<(String, String), Record>,
    suspects: BTreeMap<(String, String), Record>,
}

impl Standing {
    /// Takes in what was said.
    pub fn hear(&mut self, heard: &Heard) {
        let (record, kind) = (&heard.record, heard.record.notice.kind);
        let key = (record.key.rule.clone(), record.key.stream.clone());
        let suspect = kind.is_suspect();
        let over = matches!(
            kind,
            Kind::SuspectEnded | Kind::Withdrawn | Kind::Resolved | Kind::ResolvedRepeated
        );
        let of = match suspect {
            true => &mut self.suspects,
            false => &mut self.episodes,
        };
        match over {
            true => drop(of.remove(&key)),
            false => drop(of.insert(key, record.clone())),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Record> {
        self.episodes.values().chain(self.suspects.values())
    }

    fn find(&self, rule: &str, stream: &str, state: State) -> Option<&Record> {
        self.all().find(|record| {
            (&*record.key.rule, &*record.key.stream) == (rule, stream)
                && record.notice.state == state
        })
    }
}

/// A test at one of its moments.
pub struct Moment<'a> {
    /// What is on.
    pub standing: &'a Standing,
    /// What is known.
    pub replay: &'a Replay,
    /// The rules by name.
    pub rules: &'a BTreeMap<String, std::sync::Arc<Rule>>,
    /// When the test began, Unix ms.
    pub begin_ms: u64,
}

/// Something that is not as expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Where the expectation stands.
    pub place: Place,
    /// What is wrong.
    pub message: String,
}

impl Moment<'_> {
    /// What differs.
    pub fn differences(&self, expected: &Expected) -> Vec<Difference> {
        let mut found = Vec::new();
        for alert in &expected.alerts {
            found.extend(self.of_alert(alert).into_iter().map(|message| Difference {
                place: alert.place.clone(),
                message,
            }));
        }
        let known = |record: &&Record| {
            let key = (&record.key.rule, &record.key.stream, record.notice.state);
            let mut alerts = expected.alerts.iter();
            record.notice.state == State::Pending
                // Of a state that is not the expected one it was said already.
                || alerts.any(|a| (&a.rule, &a.stream, a.state) == key || self.is_missed(a, record))
        };
        let others = self.standing.all().filter(|record| !known(record));
        found.extend(others.map(|record| Difference {
            place: expected.place.clone(),
            message: format!("expected nothing of it, got {}", self.describe(record)),
        }));
        found
    }

    /// Whether the record is what an expectation got instead.
    fn is_missed(&self, alert: &ExpectedAlert, record: &Record) -> bool {
        let of_key = (&alert.rule, &alert.stream) == (&record.key.rule, &record.key.stream);
        let stands = self.standing.find(&alert.rule, &alert.stream, alert.state);
        of_key && stands.is_none()
    }

    fn of_alert(&self, alert: &ExpectedAlert) -> Vec<String> {
        let (rule, stream) = (&alert.rule, &alert.stream);
        let name = format!("{rule} on {stream}");
        let stands: Vec<_> = self
            .standing
            .all()
            .filter(|record| (&record.key.rule, &record.key.stream) == (rule, stream))
            .map(|record| self.describe(record))
            .collect();
        let got = match stands.as_slice() {
            [] => "nothing".to_owned(),
            all => all.join(" and "),
        };
        if alert.state == State::Ok {
            return match stands.is_empty() {
                true => Vec::new(),
                false => vec![format!("expected {name} ok, got {got}")],
            };
        }
        let Some(record) = self.standing.find(rule, stream, alert.state) else {
            let state = words::state(alert.state);
            let sees = self.sees(rule, stream);
            return vec![format!("expected {name} {state}, got {got}; {sees}")];
        };
        let differs = [
            self.severity(alert, record),
            self.since(alert, record),
            self.value(alert),
            self.nodes(alert),
            fired_by(alert, record),
        ];
        let labels = texts("label", &alert.labels, &record.labels);
        let annotations = texts("annotation", &alert.annotations, &record.annotations);
        let all = differs
            .into_iter()
            .flatten()
            .chain(labels)
            .chain(annotations);
        all.map(|what| format!("{name}: {what}")).collect()
    }

    fn severity(&self, alert: &ExpectedAlert, record: &Record) -> Option<String> {
        let wanted = alert.severity.as_ref()?;
        let got = record.labels.get("severity").map_or("", String::as_str);
        (wanted != got).then(|| format!("expected severity {wanted}, got {got}"))
    }

    fn since(&self, alert: &ExpectedAlert, record: &Record) -> Option<String> {
        let (first_ms, last_ms) = alert.since_ms?;
        let since_ms = record.notice.starts_at_ms.saturating_sub(self.begin_ms);
        let good = (first_ms..=last_ms).contains(&since_ms);
        (!good).then(|| {
            let wanted = words::range(words::seconds(first_ms), words::seconds(last_ms));
            format!(
                "expected since {wanted}, got since {}",
                words::seconds(since_ms)
            )
        })
    }

    fn value(&self, alert: &ExpectedAlert) -> Option<String> {
        let (least, most) = alert.value?;
        let rule = self.rules.get(&alert.rule)?;
        let number = |value| words::number(rule.metric, value);
        let wanted = words::range(number(least), number(most));
        match self.replay.evidence(rule, &alert.stream).estimate {
            None => Some(format!("expected a value of {wanted}, there is none")),
            Some(found) if (least..=most).contains(&found.value) => None,
            Some(found) => Some(format!(
                "expected a value of {wanted}, got {} ({} to {})",
                number(found.value),
                number(found.low),
                number(found.high)
            )),
        }
    }

    fn nodes(&self, alert: &ExpectedAlert) -> Option<String> {
        let wanted = alert.nodes?;
        let rule = self.rules.get(&alert.rule)?;
        let got = self.replay.evidence(rule, &alert.stream).nodes_touched;
        (wanted != got).then(|| format!("expected {wanted} nodes above the threshold, got {got}"))
    }

    /// What a rule that has not fired sees.
    fn sees(&self, rule: &str, stream: &str) -> String {
        let Some(rule) = self
            .rules
            .get(rule)
            .filter(|r| r.metric != RuleMetric::NoData)
        else {
            return "no such value".to_owned();
        };
        let number = |value| words::number(rule.metric, value);
        let evidence = self.replay.evidence(rule, stream);
        let (reported, expected) = (evidence.nodes_reported, evidence.nodes_expected);
        let threshold = number(rule.threshold());
        match evidence.estimate {
            None => format!("too little evidence from {reported} of {expected} nodes"),
            Some(found) => format!(
                "the value is {} ({} to {}) against {threshold}, from {reported} of {expected} nodes",
                number(found.value),
                number(found.low),
                number(found.high)
            ),
        }
    }

    /// "loss on sport-1 firing since 28 s".
    pub fn describe(&self, record: &Record) -> String {
        let since_ms = record.notice.starts_at_ms.saturating_sub(self.begin_ms);
        let (rule, stream) = (&record.key.rule, &record.key.stream);
        let (state, since) = (words::state(record.notice.state), words::seconds(since_ms));
        format!("{rule} on {stream} {state} since {since}")
    }
}

fn fired_by(alert: &ExpectedAlert, record: &Record) -> Option<String> {
    let wanted = alert.by_nodes?;
    let got = matches!(record.notice.fired_by, Some(FiredBy::Nodes(_)));
    let name = |by_nodes| if by_nodes { "nodes" } else { "rule" };
    (wanted != got).then(|| format!("expected fired_by {}, got {}", name(wanted), name(got)))
}

fn texts(
    what: &str,
    wanted: &BTreeMap<String, Pattern>,
    got: &BTreeMap<String, String>,
) -> Vec<String> {
    let differs = wanted
        .iter()
        .filter_map(|(name, pattern)| match got.get(name) {
            Some(text) if pattern.matches(text) => None,
            Some(text) => Some(format!(
                "expected {what} {name} = {pattern:?}, got {text:?}",
                pattern = pattern.as_str()
            )),
            None => Some(format!(
                "expected {what} {name} = {:?}, there is none",
                pattern.as_str()
            )),
        });
    differs.collect()
}

/// A word about how an episode went on, for the story of a test; none of what is only said again.
pub fn news(record: &Record) -> Option<&'static str> {
    Some(match record.notice.kind {
        Kind::Pending => "pending",
        Kind::Withdrawn => "pending no more",
        Kind::Fired => "fires",
        Kind::Resolving => "resolving",
        Kind::Relapsed => "above again",
        Kind::Resolved => match record.notice.ended {
            Some(Ended::ScheduleOver) => "resolved: the schedule is over",
            _ => "resolved",
        },
        Kind::Suspected => "suspected",
        Kind::SuspectEnded => "suspected no more",
        Kind::Repeated | Kind::ResolvedRepeated | Kind::SuspectRepeated => return None,
    })
}
