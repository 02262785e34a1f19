//! How long something takes, again and again.
//!
//! Input: durations. Output: quantiles, sum and count. Limits: two significant digits up to an hour; longer counts as an
//! hour. Units: µs inside.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest time told apart: an hour, in µs.
const LONGEST_US: u64 = 3_600_000_000;

/// A distribution of durations since the daemon's start.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
    sum_us: u64,
}

impl Default for Latency {
    fn default() -> Self {
        let histogram =
            Histogram::new_with_bounds(1, LONGEST_US, 2).expect("constant bounds are valid");
        Self {
            histogram,
            sum_us: 0,
        }
    }
}

impl Latency {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(duration_us);
        self.sum_us = self.sum_us.saturating_add(duration_us);
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Their sum, s.
    pub fn sum_s(&self) -> f64 {
        self.sum_us as f64 / 1e6
    }

    /// The quantile `q` of 0 to 1, s; none when there is nothing.
    pub fn quantile_s(&self, q: f64) -> Option<f64> {
        (self.count() > 0).then(|| self.histogram.value_at_quantile(q) as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_sum_count_and_quantiles() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile_s(0.5), None);
        for duration_ms in 1..=100 {
            latency.record(Duration::from_millis(duration_ms));
        }
        latency.record(Duration::from_secs(7200));
        assert_eq!(latency.count(), 101);
        assert!((latency.sum_s() - 7205.05).abs() < 1e-9);
        let median_s = latency.quantile_s(0.5).expect("median");
        assert!((0.0505..=0.0515).contains(&median_s), "{median_s}");
    }
}
