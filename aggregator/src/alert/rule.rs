//! What is watched, and what one observation says about it.
//!
//! Input: a rule, as the configuration has it, and an estimate. Output: a verdict. Ratios have no unit, totals are segments.

use std::collections::BTreeMap;
use std::fmt;

use glob::Pattern;
use sampler_event::{Estimate, Insufficient, Metric};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Share of the expected nodes without data above which a stream counts as having none.
pub const NO_DATA_ABOVE: f64 = 0.5;

/// Of the expected nodes at least this share must have reported, or the data are too incomplete to decide. All of them, on a
/// site with fewer than ten: a node that is gone is not expected for long.
pub const QUORUM: f64 = 0.9;

/// A quantity that a rule can watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleMetric {
    /// Segments retransmitted by all flows, total over the span.
    RetransSegs,
    /// Segments retransmitted by segments sent.
    RetransRatio,
    /// Stalled time by busy time.
    StallRatio,
    /// Round-trip samples above the stream's limit by all.
    RttSlowRatio,
    /// Open flows without progress by open flows.
    FlowsSilentRatio,
    /// Expected nodes without data by expected nodes; `above` and `clear_below` are not read, see [`NO_DATA_ABOVE`].
    NoData,
}

impl RuleMetric {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::RetransSegs,
        Self::RetransRatio,
        Self::StallRatio,
        Self::RttSlowRatio,
        Self::FlowsSilentRatio,
        Self::NoData,
    ];

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RetransSegs => "retrans_segs",
            Self::RetransRatio => "retrans_ratio",
            Self::StallRatio => "stall_ratio",
            Self::RttSlowRatio => "rtt_slow_ratio",
            Self::FlowsSilentRatio => "flows_silent_ratio",
            Self::NoData => "no_data",
        }
    }

    /// The metric of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// As the estimators know it, round trips of one source; none for what is not estimated by random groups.
    #[must_use]
    pub const fn estimated(self, rtt_source: i32) -> Option<Metric> {
        match self {
            Self::RetransSegs => Some(Metric::RetransSegs),
            Self::RetransRatio => Some(Metric::RetransRatio),
            Self::StallRatio => Some(Metric::StallRatio),
            Self::RttSlowRatio => Some(Metric::RttSlowRatio(rtt_source)),
            Self::FlowsSilentRatio | Self::NoData => None,
        }
    }

    /// Whether pulses carry it, so that it can be suspected before the window ends.
    #[must_use]
    pub const fn is_in_pulses(self) -> bool {
        matches!(self, Self::RetransSegs | Self::RetransRatio)
    }

    /// Whether it is a share, which reads best in percent.
    #[must_use]
    pub const fn is_share(self) -> bool {
        !matches!(self, Self::RetransSegs)
    }
}

impl fmt::Display for RuleMetric {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

/// When a rule is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// First moment, Unix ms.
    pub begin_ms: u64,
    /// First moment after it, Unix ms.
    pub end_ms: u64,
}

/// A rule, checked by who read it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name, unique.
    pub name: String,
    /// Streams that it watches; any of them may match.
    pub streams: Vec<Pattern>,
    /// What it watches.
    pub metric: RuleMetric,
    /// Length of the span that is estimated.
    pub over_s: u32,
    /// The interval's lower end must be above it.
    pub above: f64,
    /// For so long.
    pub hold_ms: u64,
    /// The value must be below it to clear.
    pub clear_below: f64,
    /// For so long.
    pub clear_for_ms: u64,
    /// Fewer sampled flows than these are too little evidence.
    pub min_flows: u64,
    /// Two nodes whose pulses agree may raise it before the rule confirms; retransmit ratio only.
    pub fast: bool,
    /// When it is in force; none: always.
    pub active: Option<Active>,
    /// Label of the alert.
    pub severity: String,
    /// Further labels of the alert.
    pub labels: BTreeMap<String, String>,
    /// Further annotations of the alert.
    pub annotations: BTreeMap<String, String>,
}

/// What an observation says about a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Even the lower end is above the threshold.
    Above,
    /// Neither.
    Between,
    /// The value is low enough to clear.
    Below,
    /// Nothing: too little evidence.
    Unknown,
}

impl Rule {
    /// Whether it watches a stream.
    #[must_use]
    pub fn watches(&self, stream: &str) -> bool {
        self.streams.iter().any(|pattern| pattern.matches(stream))
    }

    /// Whether it is in force.
    #[must_use]
    pub fn is_active(&self, at_ms: u64) -> bool {
        self.active
            .is_none_or(|active| (active.begin_ms..active.end_ms).contains(&at_ms))
    }

    /// Whether its schedule is over.
    #[must_use]
    pub fn is_over(&self, at_ms: u64) -> bool {
        self.active.is_some_and(|active| at_ms >= active.end_ms)
    }

    /// Length of the span that is estimated, ms.
    #[must_use]
    pub fn over_ms(&self) -> u64 {
        u64::from(self.over_s) * 1_000
    }

    /// The threshold in force.
    #[must_use]
    pub const fn threshold(&self) -> f64 {
        match self.metric {
            RuleMetric::NoData => NO_DATA_ABOVE,
            _ => self.above,
        }
    }

    /// Judges an estimate. A number that is none is no evidence.
    #[must_use]
    pub fn judge(&self, estimate: &Result<Estimate, Insufficient>) -> Verdict {
        let Ok(estimate) = estimate else {
            return Verdict::Unknown;
        };
        let (value, low) = (estimate.value, estimate.low);
        if !value.is_finite() || !low.is_finite() {
            return Verdict::Unknown;
        }
        if low > self.threshold() {
            return Verdict::Above;
        }
        let clear = match self.metric {
            RuleMetric::NoData => value <= NO_DATA_ABOVE,
            _ => value < self.clear_below,
        };
        match clear {
            true => Verdict::Below,
            false => Verdict::Between,
        }
    }
}

/// What an alert is about: the key in the topics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// Name of the rule.
    pub rule: String,
    /// Name of the edge site.
    pub site: String,
    /// Name of the stream.
    pub stream: String,
}

impl fmt::Display for Key {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}|{}|{}", self.rule, self.site, self.stream)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The rule of the documentation.
    pub fn rule() -> Rule {
        Rule {
            name: "retransmissions".to_owned(),
            streams: vec![Pattern::new("sport-*").expect("a pattern")],
            metric: RuleMetric::RetransRatio,
            over_s: 10,
            above: 0.02,
            hold_ms: 2_000,
            clear_below: 0.014,
            clear_for_ms: 30_000,
            min_flows: 30,
            fast: true,
            active: None,
            severity: "page".to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    pub fn estimate(value: f64, low: f64) -> Estimate {
        Estimate {
            value,
            low,
            high: value * 2.0 - low,
            confidence: 0.95,
            flows_sampled: 300,
            exact: false,
        }
    }

    #[test]
    fn the_lower_end_raises_and_the_value_clears() {
        let rule = rule();
        let judge = |value, low| rule.judge(&Ok(estimate(value, low)));
        assert_eq!(judge(0.03, 0.021), Verdict::Above);
        assert_eq!(judge(0.03, 0.02), Verdict::Between);
        assert_eq!(judge(0.014, 0.01), Verdict::Between);
        assert_eq!(judge(0.013_9, 0.01), Verdict::Below);
        assert_eq!(judge(f64::NAN, 0.5), Verdict::Unknown);
        assert_eq!(judge(f64::INFINITY, 0.5), Verdict::Unknown);
        assert_eq!(
            rule.judge(&Err(Insufficient::Denominator)),
            Verdict::Unknown
        );
    }

    #[test]
    fn no_data_has_a_threshold_of_its_own() {
        let rule = Rule {
            metric: RuleMetric::NoData,
            above: 0.0,
            clear_below: 0.0,
            ..rule()
        };
        assert_eq!(rule.judge(&Ok(estimate(0.51, 0.51))), Verdict::Above);
        assert_eq!(rule.judge(&Ok(estimate(0.5, 0.5))), Verdict::Below);
    }

    #[test]
    fn names_globs_and_schedules() {
        for metric in RuleMetric::ALL {
            assert_eq!(RuleMetric::named(metric.name()), Some(metric));
            let json = serde_json::to_value(metric).expect("JSON");
            assert_eq!(json, metric.name());
        }
        let rule = Rule {
            active: Some(Active {
                begin_ms: 10,
                end_ms: 20,
            }),
            ..rule()
        };
        assert!(rule.watches("sport-1") && !rule.watches("news"));
        let active = [9, 10, 19, 20].map(|at_ms| rule.is_active(at_ms));
        assert_eq!(active, [false, true, true, false]);
        assert!(!rule.is_over(19) && rule.is_over(20));
    }
}
