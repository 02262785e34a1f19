//! CPU time over the last minute.
//!
//! Input: cumulative cost, as often as a window is closed. Output: percent of one core. Until a minute has passed, what was spent is
//! held against the whole minute all the same: the limit is a budget of CPU time a minute, and a short run cannot exceed it by a burst.
//! After a pause longer than a minute it is the mean of that time. Limits: `READINGS` readings.

use std::collections::VecDeque;

use super::cost::Cost;

/// The time that is looked back.
pub const MINUTE_US: u64 = 60_000_000;
/// Most readings kept; readings closer together than this allows are passed by.
const READINGS: usize = 128;
const STEP_US: u64 = MINUTE_US / (READINGS as u64 - 2);

/// The readings of the last minute.
#[derive(Clone, Debug, Default)]
pub struct Budget(VecDeque<(u64, Cost)>);

impl Budget {
    /// Takes in the cost so far, at this time; percent of one core that daemon and kernel programs used over the last minute.
    pub fn spend(&mut self, now_us: u64, cost: Cost) -> f64 {
        // The oldest that is kept is the newest that is a minute old.
        while self
            .0
            .get(1)
            .is_some_and(|(at, _)| now_us.saturating_sub(*at) >= MINUTE_US)
        {
            self.0.pop_front();
        }
        let (since_us, before) = self.0.front().copied().unwrap_or((now_us, cost));
        let last = self.0.back().map(|(at, _)| now_us.saturating_sub(*at));
        if last.is_none_or(|us| us >= STEP_US) {
            self.0.push_back((now_us, cost));
        }
        let spent_us = cost.daemon_us.saturating_sub(before.daemon_us)
            + cost.kernel_us.saturating_sub(before.kernel_us);
        let span_us = now_us.saturating_sub(since_us).max(MINUTE_US);
        spent_us as f64 * 100.0 / span_us as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_US: u64 = 1_000_000;

    fn cost(us: u64) -> Cost {
        Cost {
            daemon_us: us,
            kernel_us: us,
        }
    }

    #[test]
    fn one_percent_is_six_hundred_ms_a_minute() {
        let mut budget = Budget::default();
        // 20 ms a second, of which half is the kernel's: 2 %.
        let percents: Vec<_> = (0..=200)
            .map(|s| budget.spend(s * SECOND_US, cost(s * 10_000)))
            .collect();
        assert_eq!(percents[0], 0.0);
        // 600 ms are spent after half a minute.
        assert!((percents[30] - 1.0).abs() < 1e-9);
        for percent in &percents[60..] {
            assert!((percent - 2.0).abs() < 1e-9, "{percent}");
        }
    }

    #[test]
    fn what_is_a_minute_ago_is_forgotten() {
        let mut budget = Budget::default();
        budget.spend(0, cost(0));
        let burst = budget.spend(SECOND_US, cost(300_000));
        assert!((burst - 1.0).abs() < 1e-9);
        let after = (2..=100).map(|s| budget.spend(s * SECOND_US, cost(300_000)));
        let percents: Vec<_> = after.collect();
        assert!((percents[57] - 1.0).abs() < 0.02);
        assert!(percents[60] == 0.0, "{}", percents[60]);
    }

    #[test]
    fn after_a_long_pause_it_is_the_mean_of_it() {
        let mut budget = Budget::default();
        budget.spend(0, cost(0));
        let percent = budget.spend(600 * SECOND_US, cost(3_000_000));
        assert!((percent - 1.0).abs() < 1e-9);
    }

    proptest! {
        /// Whatever comes when: never more than all that was spent, held against a minute, never less than nothing, in bounded memory.
        #[test]
        fn it_is_bounded(steps in prop::collection::vec((0u64..3_000_000, 0u64..100_000), 1..400)) {
            let mut budget = Budget::default();
            let (mut now_us, mut spent_us) = (0, 0);
            for (step, spend) in steps {
                now_us += step;
                spent_us += spend;
                let percent = budget.spend(now_us, cost(spent_us));
                let all = 2.0 * spent_us as f64 * 100.0 / MINUTE_US as f64;
                prop_assert!((0.0..=all + 1e-9).contains(&percent));
                prop_assert!(budget.0.len() <= READINGS);
            }
        }
    }
}
