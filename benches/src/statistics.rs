//! Medians, and how far they can be trusted.

use rand::{Rng, SeedableRng, rngs::StdRng};

/// Resamples behind an interval.
const RESAMPLES: usize = 2_000;

/// What was measured, one value a round.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a value.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// In the order of the rounds.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// The value below which this share of them lies, by nearest rank; NaN of nothing.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        let last = sorted.len().saturating_sub(1);
        sorted
            .get(rank.saturating_sub(1).min(last))
            .copied()
            .unwrap_or(f64::NAN)
    }

    /// Half of them lie below.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// 95 % interval of the median, by bootstrap; the seed is fixed, so that the same values
    /// give the same interval.
    pub fn median_interval(&self) -> (f64, f64) {
        let mut random = StdRng::seed_from_u64(1);
        let mut medians = Self::default();
        for _ in 0..RESAMPLES {
            let draw = |_| self.0[random.random_range(0..self.0.len())];
            medians.push(Self((0..self.0.len()).map(draw).collect()).median());
        }
        (medians.quantile(0.025), medians.quantile(0.975))
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let samples: Samples = [5.0, 1.0, 4.0, 2.0, 3.0].into_iter().collect();
        assert_eq!(samples.median(), 3.0);
        assert_eq!((samples.quantile(0.0), samples.quantile(1.0)), (1.0, 5.0));
        assert!(Samples::default().median().is_nan());
        let (low, high) = samples.median_interval();
        assert!(low < 3.0 && high > 3.0, "{low} to {high}");
    }
}
