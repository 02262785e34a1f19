//! How many of all open flows make no progress.
//!
//! Input: the sum of a stream's windows and the end of the span. Output: an estimate with its interval, from the gauges at that end: what is open
//! now, not what was counted over time, so there are no random groups. Every flow was selected by itself, so the sampled silent ones
//! are a binomial count: Wilson's interval, with the flows of different rates reduced to an effective number (Kish). No unit.

use sampler_event::{Estimate, Insufficient, WindowSum};

/// Probability with which the interval should hold the truth, and the deviations that go with it.
const CONFIDENCE: f64 = 0.95;
const DEVIATIONS: f64 = 1.96;

/// Estimates the share of silent flows at `end_ms`, from what was heard at that moment or later.
///
/// # Errors
/// If fewer than `min_flows` sampled flows are open.
pub fn ratio(sum: &WindowSum, end_ms: u64, min_flows: u64) -> Result<Estimate, Insufficient> {
    let mut found = Found::default();
    for (_, stratum) in sum.strata() {
        let (rate, gauges) = (stratum.sampling_rate, &stratum.gauges);
        if rate > 0.0 && gauges.end_ms >= end_ms {
            found.add(rate, gauges.flows_open, gauges.flows_silent);
        }
    }
    if found.flows < min_flows {
        return Err(Insufficient::Flows {
            flows: found.flows,
            needed: min_flows,
        });
    }
    if found.open <= 0.0 {
        return Err(Insufficient::Denominator);
    }
    Ok(found.estimate())
}

#[derive(Default)]
struct Found {
    flows: u64,
    /// Flows of the population: open, silent; and the sum of the squared weights of the sampled ones.
    open: f64,
    silent: f64,
    squares: f64,
    sampled: bool,
}

impl Found {
    fn add(&mut self, rate: f64, open: u64, silent: u64) {
        self.flows = self.flows.saturating_add(open);
        self.open += open as f64 / rate;
        self.silent += silent.min(open) as f64 / rate;
        self.squares += open as f64 / (rate * rate);
        self.sampled |= rate < 1.0;
    }

    fn estimate(&self) -> Estimate {
        let value = self.silent / self.open;
        let (low, high) = match self.sampled {
            true => wilson(value, self.open * self.open / self.squares),
            false => (value, value),
        };
        Estimate {
            value,
            low,
            high,
            confidence: CONFIDENCE,
            flows_sampled: self.flows,
            exact: !self.sampled,
        }
    }
}

fn wilson(share: f64, flows: f64) -> (f64, f64) {
    let z2 = DEVIATIONS * DEVIATIONS;
    let middle = (share + z2 / (2.0 * flows)) / (1.0 + z2 / flows);
    let spread = share * (1.0 - share) / flows + z2 / (4.0 * flows * flows);
    let half = DEVIATIONS / (1.0 + z2 / flows) * spread.sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use sampler_event::StreamWindow;

    use super::*;

    fn sum(nodes: &[(f64, u64, u64)]) -> WindowSum {
        let mut sum = WindowSum::new("s");
        for (number, (sampling_rate, flows_open, flows_silent)) in nodes.iter().enumerate() {
            let window = StreamWindow {
                node: format!("edge-{number}"),
                stream: "s".to_owned(),
                window_start_ms: 9_000,
                window_ms: 1_000,
                observed_ms: 1_000,
                sampling_rate: *sampling_rate,
                flows_open: *flows_open,
                flows_silent: *flows_silent,
                ..StreamWindow::default()
            };
            sum.add(&window).expect("a window");
        }
        sum
    }

    #[test]
    fn rates_are_weighed_and_the_interval_is_wilsons() {
        let found = ratio(&sum(&[(0.1, 100, 10)]), 10_000, 30).expect("enough");
        // Wilson, n = 100, k = 10: 0.0552 to 0.1744 (Newcombe 1998 gives the formula).
        assert!((found.low - 0.0552).abs() < 1e-4 && (found.high - 0.1744).abs() < 1e-4);
        let two = ratio(&sum(&[(0.1, 100, 10), (0.5, 100, 0)]), 10_000, 30).expect("enough");
        assert!((two.value - 100.0 / 1_200.0).abs() < 1e-12);
        assert!(two.low < two.value && two.value < two.high);
        let exact = ratio(&sum(&[(1.0, 50, 5)]), 10_000, 30).expect("enough");
        assert_eq!((exact.low, exact.value, exact.high), (0.1, 0.1, 0.1));
    }

    #[test]
    fn too_few_flows_and_old_news_are_no_evidence() {
        let nodes = sum(&[(0.1, 29, 29)]);
        let few = Insufficient::Flows {
            flows: 29,
            needed: 30,
        };
        assert_eq!(ratio(&nodes, 10_000, 30), Err(few));
        assert!(ratio(&nodes, 10_001, 1).is_err());
        assert_eq!(ratio(&sum(&[]), 0, 0), Err(Insufficient::Denominator));
    }
}
