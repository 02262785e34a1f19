//! Totals and ratios over all flows, estimated from sampled ones by random groups.
//!
//! Input: per stratum the sampling rate p and the sums of 16 random groups over the horizon. Output: an estimate with its interval,
//! or that there is too little evidence. Every flow is in the sample with probability p by itself, and in one of the groups:
//! the spread of the groups' sums measures the spread of the flows, however skewed they are, and however their counters hang
//! together over time. A stratum with p = 1 is a count and adds no variance. Units: those of what was summed; ratios have none.
//!
//! Where no sampled flow had any retransmit (or whatever is summed), the groups say nothing about the spread: the low end is what was
//! counted, the high end a Poisson bound times the Fano factor (variance by mean) that the caller has learned for flows' sums.

use statrs::distribution::{ContinuousCDF, StudentsT};
use thiserror::Error;

use crate::GROUPS;

/// Sums of one stratum over a horizon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Probability with which its flows were selected; a stratum of rate 0 holds nothing and is left out.
    pub sampling_rate: f64,
    /// Distinct sampled flows behind the sums, at least.
    pub flows: u64,
    /// Per group: what is to be estimated, or the numerator of the ratio.
    pub y: [u64; GROUPS],
    /// Per group: the denominator of the ratio; totals do not read it.
    pub x: [u64; GROUPS],
}

/// How to estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Probability with which the interval should hold the true value.
    pub confidence: f64,
    /// Fewer distinct sampled flows than these are too little evidence.
    pub min_flows: u64,
    /// Learned variance by mean of a flow's sum, for the bound where nothing was seen; below 1 counts as 1.
    pub fano: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            confidence: 0.95,
            min_flows: 30,
            fano: 1.0,
        }
    }
}

/// An estimated value with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Lower end of the interval; an alert's rule is held against it.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Probability with which the interval should hold the true value.
    pub confidence: f64,
    /// Distinct sampled flows, at least.
    pub flows_sampled: u64,
    /// Every flow was counted: the value is no estimate, and the interval has no width.
    pub exact: bool,
}

/// Why there is no estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Insufficient {
    /// Too few distinct sampled flows.
    #[error("insufficient: {flows} sampled flows of {needed}")]
    Flows {
        /// Flows there are.
        flows: u64,
        /// Flows needed.
        needed: u64,
    },
    /// The denominator of the ratio is 0.
    #[error("insufficient: nothing to divide by")]
    Denominator,
}

/// What widens the upper end, as multiples of the squared width. Simulated with log-normal flows of variation 2, 300 of them in a
/// sample of 0.1 and 0.5: with 0 the upper end is too low for 5 % of the totals, with 0.5 for 3.6 %; for the ratio with 0.5 for
/// 5.1 to 5.7 %, with 1.5 for 3.6 to 4.5 %.
const TOTAL_SKEW: f64 = 0.5;
const RATIO_SKEW: f64 = 1.5;

/// Estimates the total of `y` over all flows, sampled or not.
///
/// # Errors
/// If there is too little evidence.
pub fn total(samples: &[Sample], options: &Options) -> Result<Estimate, Insufficient> {
    let scope = Scope::of(samples, options)?;
    let value = scope.scaled(|sample| &sample.y);
    let spread = scope.spread(|sample, group| sample.y[group] as f64);
    let counted: f64 = scope.samples().map(|sample| sum(&sample.y)).sum();
    // A total hangs on how many flows the sample happens to have, and a sample just above the least number rather has too many:
    // with 30 flows expected, the plain lower end is too high for 3.5 % of the estimates, the stretched one for 2.4 %.
    let stretch = 1.0 + 3.0 / scope.flows.max(1) as f64;
    let (low, high) = spread.interval(value, stretch, TOTAL_SKEW, options);
    Ok(scope.estimate(
        value,
        low.max(counted),
        high.max(value + scope.unseen_bound(options)),
        options,
    ))
}

/// Estimates the ratio of the totals of `y` and `x`.
///
/// # Errors
/// If there is too little evidence.
pub fn ratio(samples: &[Sample], options: &Options) -> Result<Estimate, Insufficient> {
    let scope = Scope::of(samples, options)?;
    let denominator = scope.scaled(|sample| &sample.x);
    if denominator <= 0.0 {
        return Err(Insufficient::Denominator);
    }
    let numerator = scope.scaled(|sample| &sample.y);
    let value = numerator / denominator;
    // A group with much of the denominator pulls the ratio towards itself, and so hides how far off it is: its residual is
    // enlarged as if the ratio had been taken without it (the jackknife over groups does the same).
    let spread = scope.spread(|sample, group| {
        let x = sample.x[group] as f64;
        let share = |x: f64| (x / sample.sampling_rate / denominator).min(0.5);
        let leverage = (1.0 - share(sum(&sample.x) / GROUPS as f64)) / (1.0 - share(x));
        (sample.y[group] as f64 - value * x) / denominator * leverage
    });
    let (low, high) = spread.interval(value, 1.0, RATIO_SKEW, options);
    let bound = (numerator + scope.unseen_bound(options)) / denominator;
    Ok(scope.estimate(value, low, high.max(bound), options))
}

fn sum(groups: &[u64; GROUPS]) -> f64 {
    groups.iter().map(|group| *group as f64).sum()
}

/// The strata of one estimate, with what they have in common.
struct Scope<'a> {
    samples: &'a [Sample],
    flows: u64,
    exact: bool,
}

impl<'a> Scope<'a> {
    fn of(samples: &'a [Sample], options: &Options) -> Result<Self, Insufficient> {
        let scope = Self {
            samples,
            flows: 0,
            exact: false,
        };
        let flows = scope
            .samples()
            .fold(0u64, |flows, sample| flows.saturating_add(sample.flows));
        let exact = scope.samples().next().is_some()
            && scope.samples().all(|sample| sample.sampling_rate >= 1.0);
        if !exact && flows < options.min_flows.max(1) {
            return Err(Insufficient::Flows {
                flows,
                needed: options.min_flows.max(1),
            });
        }
        Ok(Self {
            samples,
            flows,
            exact,
        })
    }

    fn samples(&self) -> impl Iterator<Item = &'a Sample> + use<'a> {
        self.samples
            .iter()
            .filter(|sample| sample.sampling_rate > 0.0)
    }

    fn scaled(&self, groups: impl Fn(&Sample) -> &[u64; GROUPS]) -> f64 {
        self.samples()
            .map(|sample| sum(groups(sample)) / sample.sampling_rate)
            .sum()
    }

    /// Variance over the strata of the scaled sum of a number that each group has.
    fn spread(&self, number: impl Fn(&Sample, usize) -> f64) -> Spread {
        let groups = GROUPS as f64;
        self.samples()
            .filter(|sample| sample.sampling_rate < 1.0)
            .fold(Spread::default(), |spread, sample| {
                let rate = sample.sampling_rate;
                let mean = (0..GROUPS).map(|group| number(sample, group)).sum::<f64>() / groups;
                let squares: f64 = (0..GROUPS)
                    .map(|group| (number(sample, group) - mean).powi(2))
                    .sum();
                let variance = (1.0 - rate) / rate.powi(2) * groups / (groups - 1.0) * squares;
                Spread {
                    variance: spread.variance + variance,
                    by_freedom: spread.by_freedom + variance.powi(2) / (groups - 1.0),
                }
            })
    }

    /// Upper bound of what flows outside the sample can hold although no sampled flow holds anything; 0 if one does.
    fn unseen_bound(&self, options: &Options) -> f64 {
        let sampled = || self.samples().filter(|sample| sample.sampling_rate < 1.0);
        if sampled().any(|sample| sample.y.iter().any(|group| *group > 0)) {
            return 0.0;
        }
        let events = -((1.0 - options.confidence) / 2.0).ln() * options.fano.max(1.0);
        sampled()
            .map(|sample| events / sample.sampling_rate)
            .fold(0.0, f64::max)
    }

    fn estimate(&self, value: f64, low: f64, high: f64, options: &Options) -> Estimate {
        let confidence = options.confidence;
        Estimate {
            value,
            low,
            high,
            confidence,
            flows_sampled: self.flows,
            exact: self.exact,
        }
    }
}

/// A variance with the sum of V²/ν of its parts, from which its own degrees of freedom follow (Welch, Satterthwaite).
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    variance: f64,
    by_freedom: f64,
}

impl Spread {
    /// Student's t at the upper end of a two-sided interval.
    fn quantile(&self, confidence: f64) -> f64 {
        let freedom = self.variance.powi(2) / self.by_freedom;
        StudentsT::new(0.0, 1.0, freedom)
            .map_or(f64::INFINITY, |t| t.inverse_cdf(0.5 + confidence / 2.0))
    }

    /// Interval on the scale of logarithms, since sums of skewed flows are skewed themselves; the ends stay above 0. The upper end
    /// goes out by `skew` times the square of the width more: a sample that missed the few heavy flows has a low value and a low
    /// variance at once. The lower end is not concerned.
    fn interval(&self, value: f64, stretch: f64, skew: f64, options: &Options) -> (f64, f64) {
        if value <= 0.0 || self.variance <= 0.0 {
            return (value, value);
        }
        let width = stretch * self.quantile(options.confidence) * self.variance.sqrt() / value;
        (
            value * (-width).exp(),
            value * (width + skew * width.powi(2)).exp(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Estimate, Insufficient, Options, Sample, ratio, total};
    use crate::GROUPS;

    /// A stratum of 40 flows; the first groups are given, the others have nothing.
    fn sample(sampling_rate: f64, y: &[u64], x: u64) -> Sample {
        let mut groups = [0; GROUPS];
        groups[..y.len()].copy_from_slice(y);
        Sample {
            sampling_rate,
            flows: 40,
            y: groups,
            x: [x; GROUPS],
        }
    }

    fn near(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() <= 1e-6 * expected.abs(),
            "{found} for {expected}"
        );
    }

    fn check(found: Result<Estimate, Insufficient>, value: f64, low: f64, high: f64) {
        let found = found.expect("enough evidence");
        near(found.value, value);
        near(found.low, low);
        near(found.high, high);
    }

    #[test]
    fn total_and_ratio_by_hand() {
        // Groups 16 and fifteen times 0, rate 0.5: mean 1, squares 225 + 15 = 240, V = 0.5/0.25 · 16/15 · 240 = 512.
        // Total 32, t(15) = 2.131449546, width = t·√512/32; 16 were counted, which is the low end; 40 flows stretch it.
        let plain = 2.131_449_546 * 512f64.sqrt() / 32.0;
        let width = plain * (1.0 + 3.0 / 40.0);
        let samples = [sample(0.5, &[16], 1000)];
        check(
            total(&samples, &Options::default()),
            32.0,
            16.0,
            32.0 * (width + width * width / 2.0).exp(),
        );
        // R = 16/16000; all x are equal, so that d has the spread of y, no group is enlarged and the width is the same, but for
        // the stretch.
        let (value, width) = (0.001, plain);
        let (low, high) = (
            value * (-width).exp(),
            value * (width + 1.5 * width * width).exp(),
        );
        check(ratio(&samples, &Options::default()), value, low, high);
    }

    #[test]
    fn degrees_of_freedom_add_up_over_strata() {
        // Two equal strata: V doubles, ν = 30, t = 2.042272456; scaled total 64.
        let samples = [sample(0.5, &[16], 1); 2];
        let width = 2.042_272_456 * 1024f64.sqrt() / 64.0 * (1.0 + 3.0 / 80.0);
        check(
            total(&samples, &Options::default()),
            64.0,
            32.0,
            64.0 * (width + width * width / 2.0).exp(),
        );
    }

    #[test]
    fn a_stratum_of_rate_one_is_a_count() {
        let whole = sample(1.0, &[900, 3, 5], 1);
        check(total(&[whole], &Options::default()), 908.0, 908.0, 908.0);
        let few = Sample { flows: 1, ..whole };
        assert!(total(&[few], &Options::default()).expect("counts").exact);
        // It adds its value to an estimate and no width of its own: √V stays 512 as above.
        let width = 2.131_449_546 * 512f64.sqrt() / 940.0 * (1.0 + 3.0 / 80.0);
        let high = 940.0 * (width + width * width / 2.0).exp();
        let low = (940.0 * (-width).exp()).max(924.0);
        check(
            total(&[sample(0.5, &[16], 1), whole], &Options::default()),
            940.0,
            low,
            high,
        );
    }

    #[test]
    fn nothing_seen_is_not_nothing_there() {
        // −ln(0.025) = 3.688879454 events in a sample of 0.1, three times with a Fano factor of 3.
        let samples = [sample(0.1, &[], 100)];
        check(
            total(&samples, &Options::default()),
            0.0,
            0.0,
            36.888_794_54,
        );
        let options = Options {
            fano: 3.0,
            ..Options::default()
        };
        check(
            ratio(&samples, &options),
            0.0,
            0.0,
            3.0 * 36.888_794_54 / 16_000.0,
        );
        // What a full count saw does not hide that the sampled part is unknown.
        let mixed = [sample(0.1, &[], 0), sample(1.0, &[50], 0)];
        check(
            total(&mixed, &Options::default()),
            50.0,
            50.0,
            50.0 + 36.888_794_54,
        );
        // A full count of nothing is nothing.
        check(
            total(&[sample(1.0, &[], 0)], &Options::default()),
            0.0,
            0.0,
            0.0,
        );
    }

    #[test]
    fn too_little_evidence_is_said() {
        let few = Sample {
            flows: 29,
            ..sample(0.1, &[5], 7)
        };
        let error = total(&[few], &Options::default()).expect_err("29 flows");
        assert_eq!(
            error,
            Insufficient::Flows {
                flows: 29,
                needed: 30
            }
        );
        assert_eq!(error.to_string(), "insufficient: 29 sampled flows of 30");
        for none in [&[][..], &[sample(0.0, &[], 0)]] {
            assert!(matches!(
                total(none, &Options::default()),
                Err(Insufficient::Flows { flows: 0, .. })
            ));
        }
        for rate in [0.1, 1.0] {
            assert_eq!(
                ratio(&[sample(rate, &[5], 0)], &Options::default()),
                Err(Insufficient::Denominator)
            );
        }
    }

    #[test]
    fn ends_are_numbers_for_extreme_input() {
        for y in [1, u64::MAX] {
            for rate in [1e-9, 0.1, 0.999_999] {
                for estimate in [
                    total(&[sample(rate, &[y], 1)], &Options::default()),
                    ratio(&[sample(rate, &[y], 1)], &Options::default()),
                ] {
                    let estimate = estimate.expect("enough flows");
                    assert!(
                        estimate.low <= estimate.value && estimate.value <= estimate.high,
                        "{estimate:?}"
                    );
                }
            }
        }
    }
}
