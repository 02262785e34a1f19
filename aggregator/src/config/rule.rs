//! One `[[alert]]`: which streams it watches, what it measures, when it fires and clears.

use glob::Pattern;
use service::config::error::{Findings, Place, Wrong};
use service::config::labels;
use service::config::names::{self, MAX_NAME_BYTES};
use service::config::reader::{Parsed, Section, choice, number, text, type_error, whole};
use toml::de::DeValue;

use super::schedule;
use crate::alert::{Active, Rule, RuleMetric};

/// Evidence below which intervals were never held against the truth, distinct flows.
pub const MIN_FLOWS: u64 = 30;
/// `clear_below` of a rule that sets none, as a share of `above`.
const CLEAR_SHARE: f64 = 0.7;
/// Longest glob, bytes.
const MAX_GLOB_BYTES: usize = 128;
/// Raised by the aggregator itself: always, and when it is asked to.
const OWN: [&str; 2] = ["FlowvitalsWatchdog", "FlowvitalsTest"];

/// Its names in the file.
const METRICS: [(&str, RuleMetric); 6] = {
    let [a, b, c, d, e, f] = RuleMetric::ALL;
    [
        (a.name(), a),
        (b.name(), b),
        (c.name(), c),
        (d.name(), d),
        (e.name(), e),
        (f.name(), f),
    ]
};

/// What the threshold of a metric may be.
const fn threshold_range(metric: RuleMetric) -> (f64, &'static str) {
    match metric {
        RuleMetric::RetransSegs => (1e12, "a number of segments above 0"),
        _ => (
            1.0 - f64::EPSILON,
            "a number above 0 and below 1: a share, 0.02 is 2 %",
        ),
    }
}

/// A rule and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertRule {
    /// What it says.
    pub rule: Rule,
    /// Where it stands; not part of the meaning.
    pub places: RulePlaces,
}

/// Where a rule stands in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulePlaces {
    /// Its `[[alert]]`.
    pub alert: Place,
    /// Its name.
    pub name: Place,
}

impl AlertRule {
    /// Horizon of the measurement when none is given, seconds.
    pub const OVER_S: u32 = 10;
    /// How long it must be crossed when nothing else is said, seconds.
    pub const HOLD_S: u32 = 2;
    /// How long it must be over when nothing else is said, seconds.
    pub const CLEAR_FOR_S: u32 = 30;
    /// Severity when none is given.
    pub const SEVERITY: &str = "page";

    /// Reads one `[[alert]]`. None if something that it cannot be without is missing or wrong.
    pub(super) fn read(mut section: Section<'_>, findings: &mut Findings) -> Option<Self> {
        let place = section.place();
        let name_place = section.place_if_set("name");
        let name = required(&mut section, findings, "name", rule_name);
        let streams = read_streams(&mut section, findings);
        let metric = required(&mut section, findings, "metric", |value| {
            choice(value, &METRICS)
        });
        let over_s = section.or(findings, "over_s", u64::from(Self::OVER_S), |value| {
            whole(value, 1..=300)
        });
        let threshold = read_threshold(&mut section, metric, findings);
        let hold_s = section.or(findings, "hold_s", u64::from(Self::HOLD_S), |value| {
            whole(value, 0..=3_600)
        });
        let clear_for_s = section.or(
            findings,
            "clear_for_s",
            u64::from(Self::CLEAR_FOR_S),
            |value| whole(value, 1..=3_600),
        );
        let min_flows = read_min_flows(&mut section, metric, findings);
        let fast = read_fast(&mut section, metric, findings);
        let active = section.optional(findings, "active", active);
        let severity = section.or(findings, "severity", Self::SEVERITY.to_owned(), |value| {
            names::name(text(value)?, MAX_NAME_BYTES)
        });
        let labels = section
            .table(findings, "labels", "alert.labels")
            .map(|table| labels::labels(table, "rule", findings))
            .unwrap_or_default();
        let annotations = section
            .table(findings, "annotations", "alert.annotations")
            .map(|table| labels::annotations(table, "rule", findings))
            .unwrap_or_default();
        section.end(findings, &[]);
        let (above, clear_below) = threshold?;
        Some(Self {
            rule: Rule {
                name: name?,
                streams: streams?,
                metric: metric?,
                over_s: over_s as u32,
                above,
                hold_ms: hold_s * 1_000,
                clear_below,
                clear_for_ms: clear_for_s * 1_000,
                min_flows,
                fast,
                active,
                severity,
                labels,
                annotations,
            },
            places: RulePlaces {
                name: name_place.unwrap_or_else(|| place.clone()),
                alert: place,
            },
        })
    }
}

/// An option that must be there.
fn required<'a, T>(
    section: &mut Section<'a>,
    findings: &mut Findings,
    key: &'static str,
    parse: impl FnOnce(&DeValue<'a>) -> Parsed<T>,
) -> Option<T> {
    if section.value(key).is_none() {
        let wrong = Wrong::new("is missing", format!("{key} = … in every [[alert]]"));
        findings.error(section.place(), &section.name(key), wrong);
    }
    section.optional(findings, key, parse)
}

fn rule_name(value: &DeValue<'_>) -> Parsed<String> {
    match text(value)? {
        name if OWN.contains(&name) => Err(Wrong::new(
            format!("`{name}` is raised by the aggregator itself"),
            "another name",
        )),
        name => names::name(name, MAX_NAME_BYTES),
    }
}

fn read_streams(section: &mut Section<'_>, findings: &mut Findings) -> Option<Vec<Pattern>> {
    let before = findings.errors.len();
    let globs = section.list(findings, "streams", glob);
    if globs.is_empty() && findings.errors.len() == before {
        let place = section.place_if_set("streams");
        findings.error(
            place.unwrap_or_else(|| section.place()),
            "alert.streams",
            Wrong::new("is missing or empty: the rule watches nothing", GLOB_FORMS),
        );
    }
    let globs: Vec<_> = globs.into_iter().map(|(_, glob)| glob).collect();
    (!globs.is_empty()).then_some(globs)
}

const GLOB_FORMS: &str = "names of streams, with * for any text, ? for any character and [a-c] for one of some, \
     for example [\"sport-*\"]";

fn glob(value: &DeValue<'_>) -> Parsed<Pattern> {
    let text = text(value)?;
    let wrong = |message: String| Wrong::new(message, GLOB_FORMS);
    if text.is_empty() || text.len() > MAX_GLOB_BYTES {
        return Err(wrong(format!(
            "has {} bytes, allowed are 1 to {MAX_GLOB_BYTES}",
            text.len()
        )));
    }
    // No stream's name has any other character: such a glob would never match.
    let good = |c: char| c.is_ascii_alphanumeric() || "._-*?[]!".contains(c);
    if let Some(bad) = text.chars().find(|c| !good(*c)) {
        return Err(wrong(format!(
            "`{text}` has the character {bad:?}, which no stream has"
        )));
    }
    Pattern::new(text).map_err(|error| wrong(format!("`{text}` is not a glob: {}", error.msg)))
}

/// Notes an option that a rule without a value cannot have; whether it is there.
fn refuse_without_value(
    section: &mut Section<'_>,
    findings: &mut Findings,
    key: &'static str,
) -> bool {
    let place = section.place_if_set(key);
    if let Some(place) = &place {
        let wrong = Wrong::new(
            "has no meaning for no_data, which measures nothing",
            "over_s, hold_s and clear_for_s say when it fires and clears",
        );
        findings.error(place.clone(), &section.name(key), wrong);
    }
    place.is_some()
}

/// `above` and `clear_below`; none if they are wrong. A rule without a value has none to read, and no use for them.
fn read_threshold(
    section: &mut Section<'_>,
    metric: Option<RuleMetric>,
    findings: &mut Findings,
) -> Option<(f64, f64)> {
    if metric == Some(RuleMetric::NoData) {
        for key in ["above", "clear_below"] {
            refuse_without_value(section, findings, key);
        }
        return Some((0.0, 0.0));
    }
    // Of a metric that is not known only the sign can be judged.
    let (most, allowed) = metric.map_or((f64::MAX, "a number above 0"), threshold_range);
    let above = required(section, findings, "above", |value| {
        positive(value, most, allowed)
    });
    let clear_below = section.optional(findings, "clear_below", |value| {
        let below = positive(value, most, allowed)?;
        match above {
            Some(above) if below > above => Err(Wrong::new(
                format!(
                    "{below} is more than above = {above}: the rule would clear while it fires"
                ),
                format!("a number above 0 and at most {above}"),
            )),
            _ => Ok(below),
        }
    });
    let above = above?;
    Some((above, clear_below.unwrap_or(above * CLEAR_SHARE)))
}

fn positive(value: &DeValue<'_>, most: f64, allowed: &str) -> Parsed<f64> {
    let number = number(value, allowed)?;
    match number > 0.0 && number <= most {
        true => Ok(number),
        false => Err(Wrong::new(format!("{number} is out of range"), allowed)),
    }
}

fn read_min_flows(
    section: &mut Section<'_>,
    metric: Option<RuleMetric>,
    findings: &mut Findings,
) -> u64 {
    if metric == Some(RuleMetric::NoData) {
        refuse_without_value(section, findings, "min_flows");
        return MIN_FLOWS;
    }
    let min_flows = section.or(findings, "min_flows", MIN_FLOWS, |value| {
        whole(value, 1..=1_000_000)
    });
    if min_flows < MIN_FLOWS
        && let Some(place) = section.place_if_set("min_flows")
    {
        let message = format!(
            "intervals of fewer than {MIN_FLOWS} sampled flows are too narrow: the rule may fire for chance"
        );
        findings.warn(place, "alert.min_flows", message);
    }
    min_flows
}

fn read_fast(
    section: &mut Section<'_>,
    metric: Option<RuleMetric>,
    findings: &mut Findings,
) -> bool {
    let can = metric.is_none_or(RuleMetric::is_in_pulses);
    section.or(findings, "fast", can, |value| match value.as_bool() {
        Some(true) if !can => Err(Wrong::new(
            "pulses do not carry this metric",
            "false, or one of the metrics retrans_segs, retrans_ratio",
        )),
        Some(fast) => Ok(fast),
        None => Err(type_error(value, "true or false")),
    })
}

fn active(value: &DeValue<'_>) -> Parsed<Active> {
    schedule::parse(text(value)?)
}
