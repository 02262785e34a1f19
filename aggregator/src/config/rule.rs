//! One `[[alert]]`: which streams it watches, what it measures, when it fires and clears.

use std::collections::BTreeMap;
use std::fmt;

use glob::Pattern;
use service::config::error::{Findings, Place, Wrong};
use service::config::labels;
use service::config::names::{self, MAX_NAME_BYTES};
use service::config::reader::{Parsed, Section, choice, number, text, type_error, whole};
use toml::de::DeValue;

use super::schedule::Schedule;

/// Evidence below which intervals were never held against the truth, distinct flows.
pub const MIN_FLOWS: u64 = 30;
/// `clear_below` of a rule that sets none, as a share of `above`.
const CLEAR_SHARE: f64 = 0.7;
/// Longest glob, bytes.
const MAX_GLOB_BYTES: usize = 128;
/// Raised by the aggregator itself: always, and when it is asked to.
const OWN: [&str; 2] = ["FlowvitalsWatchdog", "FlowvitalsTest"];

/// What a rule measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Segments retransmitted in `over_s`, an estimate for all flows.
    RetransSegs,
    /// Segments retransmitted by segments sent.
    RetransRatio,
    /// Stalled by busy time.
    StallRatio,
    /// Round-trip samples above the stream's `rtt_slow_us` by all.
    RttSlowRatio,
    /// Open flows with data waiting and no progress by all that are open.
    FlowsSilentRatio,
    /// No window of the stream arrived for `over_s`.
    NoData,
}

const METRICS: [(&str, Metric); 6] = [
    ("retrans_segs", Metric::RetransSegs),
    ("retrans_ratio", Metric::RetransRatio),
    ("stall_ratio", Metric::StallRatio),
    ("rtt_slow_ratio", Metric::RttSlowRatio),
    ("flows_silent_ratio", Metric::FlowsSilentRatio),
    ("no_data", Metric::NoData),
];

impl Metric {
    /// Whether pulses carry it, so that it can be suspected before the window ends.
    #[must_use]
    pub fn is_in_pulses(self) -> bool {
        matches!(self, Self::RetransSegs | Self::RetransRatio)
    }

    /// What its threshold may be.
    fn threshold_range(self) -> (f64, &'static str) {
        match self {
            Self::RetransSegs => (1e12, "a number of segments above 0"),
            _ => (
                1.0 - f64::EPSILON,
                "a number above 0 and below 1: a share, 0.02 is 2 %",
            ),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = METRICS.iter().find(|(_, metric)| metric == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

/// Names of streams, with wildcards; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Globs(Vec<Pattern>);

impl Globs {
    /// Whether one of them takes a stream.
    #[must_use]
    pub fn take(&self, stream: &str) -> bool {
        self.0.iter().any(|glob| glob.matches(stream))
    }

    /// Each as it is written.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Pattern::as_str)
    }
}

/// Between what values a rule fires and clears; in the metric's unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// The interval's lower bound must be above it.
    pub above: f64,
    /// The value must be below it to clear; at most `above`.
    pub clear_below: f64,
}

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertRule {
    /// Its name: unique, at most 64 bytes.
    pub name: String,
    /// The streams it watches, each on its own.
    pub streams: Globs,
    /// What it measures.
    pub metric: Metric,
    /// Horizon of the measurement.
    pub over_s: u32,
    /// Its limits; none for [`Metric::NoData`], which has no value.
    pub threshold: Option<Threshold>,
    /// How long it must be crossed before it fires.
    pub hold_s: u32,
    /// How long it must be over before it clears.
    pub clear_for_s: u32,
    /// Fewer distinct sampled flows are too little evidence.
    pub min_flows: u64,
    /// Whether pulses are watched for an early suspicion.
    pub fast: bool,
    /// When it is in force; none: always.
    pub active: Option<Schedule>,
    /// The label `severity`.
    pub severity: String,
    /// More labels.
    pub labels: BTreeMap<String, String>,
    /// More annotations.
    pub annotations: BTreeMap<String, String>,
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
        let active = section.optional(findings, "active", schedule);
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
        let metric = metric?;
        if metric != Metric::NoData {
            threshold?;
        }
        Some(Self {
            name: name?,
            streams: streams?,
            metric,
            over_s: over_s as u32,
            threshold,
            hold_s: hold_s as u32,
            clear_for_s: clear_for_s as u32,
            min_flows,
            fast,
            active,
            severity,
            labels,
            annotations,
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

fn read_streams(section: &mut Section<'_>, findings: &mut Findings) -> Option<Globs> {
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
    (!globs.is_empty()).then_some(Globs(globs))
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

/// None if there is none to have, or it is wrong.
fn read_threshold(
    section: &mut Section<'_>,
    metric: Option<Metric>,
    findings: &mut Findings,
) -> Option<Threshold> {
    if metric == Some(Metric::NoData) {
        for key in ["above", "clear_below"] {
            refuse_without_value(section, findings, key);
        }
        return None;
    }
    // Of a metric that is not known only the sign can be judged.
    let (most, allowed) = metric.map_or((f64::MAX, "a number above 0"), Metric::threshold_range);
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
    Some(Threshold {
        above,
        clear_below: clear_below.unwrap_or(above * CLEAR_SHARE),
    })
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
    metric: Option<Metric>,
    findings: &mut Findings,
) -> u64 {
    if metric == Some(Metric::NoData) {
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

fn read_fast(section: &mut Section<'_>, metric: Option<Metric>, findings: &mut Findings) -> bool {
    let can = metric.is_none_or(Metric::is_in_pulses);
    section.or(findings, "fast", can, |value| match value.as_bool() {
        Some(true) if !can => Err(Wrong::new(
            "pulses do not carry this metric",
            "false, or one of the metrics retrans_segs, retrans_ratio",
        )),
        Some(fast) => Ok(fast),
        None => Err(type_error(value, "true or false")),
    })
}

fn schedule(value: &DeValue<'_>) -> Parsed<Schedule> {
    text(value)?.parse()
}
