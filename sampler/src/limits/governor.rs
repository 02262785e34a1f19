//! What follows from a cost above its limit.
//!
//! Input: percent of one core over the last minute, after every window. Output: a [`Verdict`]. Rates go down one halving at a time, and
//! a minute apart: before that the cost of the minute before is not over. They come back one at a time too, once the cost was below
//! `CALM` of the limit for `CALM_US`: so even a cost that doubles with the rate does not lead straight back.

use super::budget::MINUTE_US;
use crate::config::{LimitAction, Limits};

/// Rates are halved at most this often: 1/1024.
pub const MAX_HALVINGS: u32 = 10;
/// Share of the limit below which rates may rise again.
const CALM: f64 = 0.4;
/// How long it must have been so.
const CALM_US: u64 = 2 * MINUTE_US;
/// Share of the limit below which it is no longer said to be above.
const BELOW: f64 = 0.9;

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing new.
    Stay,
    /// The cost came above the limit, and nothing (more) can or may be done.
    Above,
    /// It is below again.
    Below,
    /// Rates of new flows are to be divided by 2 to this power.
    Halvings(u32),
    /// The kernel side is to be taken off.
    Detach,
}

/// Judges the cost.
#[derive(Clone, Debug)]
pub struct Governor {
    percent: f64,
    action: LimitAction,
    halvings: u32,
    changed_us: Option<u64>,
    calm_since_us: Option<u64>,
    above: bool,
}

impl Governor {
    /// With nothing done yet.
    pub fn new(limits: &Limits) -> Self {
        Self {
            percent: limits.cpu_percent,
            action: limits.action,
            halvings: 0,
            changed_us: None,
            calm_since_us: None,
            above: false,
        }
    }

    /// Rates of new flows are divided by 2 to this power.
    pub fn halvings(&self) -> u32 {
        self.halvings
    }

    /// Whether the limit shows: the cost is above it, or rates are low because it was.
    pub fn is_limiting(&self) -> bool {
        self.above || self.halvings != 0
    }

    /// Percent of one core that is allowed.
    pub fn limit_percent(&self) -> f64 {
        self.percent
    }

    /// Judges the last minute.
    pub fn judge(&mut self, now_us: u64, percent: f64) -> Verdict {
        let was_above = self.above;
        self.above = percent > self.percent * if was_above { BELOW } else { 1.0 };
        let said = match (was_above, self.above) {
            (false, true) => Verdict::Above,
            (true, false) => Verdict::Below,
            _ => Verdict::Stay,
        };
        match self.action {
            LimitAction::Log => said,
            LimitAction::Detach if self.above => Verdict::Detach,
            LimitAction::Detach => said,
            LimitAction::Rate => match self.rate(now_us, percent) {
                Some(halvings) => Verdict::Halvings(halvings),
                None if self.halvings == MAX_HALVINGS || said == Verdict::Below => said,
                None => Verdict::Stay,
            },
        }
    }

    fn rate(&mut self, now_us: u64, percent: f64) -> Option<u32> {
        let for_us = |since_us: Option<u64>| since_us.map(|since| now_us.saturating_sub(since));
        if percent >= self.percent * CALM {
            self.calm_since_us = None;
        } else if self.calm_since_us.is_none() {
            self.calm_since_us = Some(now_us);
        }
        let settled = for_us(self.changed_us).is_none_or(|us| us >= MINUTE_US);
        let halvings = if percent > self.percent && settled {
            (self.halvings + 1).min(MAX_HALVINGS)
        } else if for_us(self.calm_since_us).is_some_and(|us| us >= CALM_US) {
            self.halvings.saturating_sub(1)
        } else {
            self.halvings
        };
        if halvings == self.halvings {
            return None;
        }
        self.halvings = halvings;
        self.changed_us = Some(now_us);
        self.calm_since_us = None;
        Some(halvings)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_US: u64 = 1_000_000;

    fn governor(action: LimitAction) -> Governor {
        Governor::new(&Limits {
            action,
            ..Limits::default()
        })
    }

    /// Verdicts other than to stay, by second.
    fn verdicts(
        governor: &mut Governor,
        seconds: std::ops::Range<u64>,
        percent: f64,
    ) -> Vec<(u64, Verdict)> {
        let judged = seconds.map(|s| (s, governor.judge(s * SECOND_US, percent)));
        judged.filter(|(_, v)| *v != Verdict::Stay).collect()
    }

    #[test]
    fn rates_go_down_a_minute_apart_and_come_back_slowly() {
        use Verdict::{Below, Halvings};
        let mut governor = governor(LimitAction::Rate);
        assert_eq!(verdicts(&mut governor, 0..10, 1.0), []);
        let down = verdicts(&mut governor, 10..140, 3.0);
        assert_eq!(
            down,
            [(10, Halvings(1)), (70, Halvings(2)), (130, Halvings(3))]
        );
        // Neither too much nor little: nothing happens.
        assert_eq!(verdicts(&mut governor, 140..1_000, 0.5), [(140, Below)]);
        assert!(governor.is_limiting());
        let up = verdicts(&mut governor, 1_000..1_400, 0.39);
        assert_eq!(
            up,
            [
                (1_120, Halvings(2)),
                (1_241, Halvings(1)),
                (1_362, Halvings(0))
            ]
        );
        assert!(!governor.is_limiting());
        assert_eq!(verdicts(&mut governor, 1_400..2_000, 0.0), []);
    }

    #[test]
    fn a_cost_that_doubles_with_the_rate_does_not_swing() {
        let mut governor = governor(LimitAction::Rate);
        let mut changes = 0;
        for second in 0..7_200 {
            let percent = 1.7 / f64::from(1 << governor.halvings());
            changes += u32::from(matches!(
                governor.judge(second * SECOND_US, percent),
                Verdict::Halvings(_)
            ));
        }
        assert_eq!((changes, governor.halvings()), (1, 1));
    }

    #[test]
    fn what_cannot_be_lowered_is_said_once() {
        let mut governor = governor(LimitAction::Rate);
        let all = verdicts(&mut governor, 0..2_000, 50.0);
        assert_eq!(all.len(), MAX_HALVINGS as usize);
        assert_eq!(all.last(), Some(&(540, Verdict::Halvings(10))));
    }

    #[test]
    fn detach_and_log() {
        let mut governor = governor(LimitAction::Detach);
        assert_eq!(verdicts(&mut governor, 0..5, 1.0), []);
        assert_eq!(verdicts(&mut governor, 5..6, 1.01), [(5, Verdict::Detach)]);
        let mut governor = self::governor(LimitAction::Log);
        assert_eq!(verdicts(&mut governor, 0..9, 2.0), [(0, Verdict::Above)]);
        assert!(governor.is_limiting());
        assert_eq!(verdicts(&mut governor, 9..19, 0.95), []);
        assert_eq!(verdicts(&mut governor, 19..29, 0.8), [(19, Verdict::Below)]);
        assert!(!governor.is_limiting());
    }

    proptest! {
        /// Whatever it costs when: never two changes within a minute, one halving at a time, up only after two calm minutes.
        #[test]
        fn rates_change_slowly(costs in prop::collection::vec((0.0f64..3.0, 1u64..90), 1..300)) {
            let mut governor = governor(LimitAction::Rate);
            let (mut now_us, mut halvings, mut changed_us, mut loud_us) = (0, 0u32, None::<u64>, 0);
            for (percent, seconds) in costs {
                now_us += seconds * SECOND_US;
                if percent >= CALM {
                    loud_us = now_us;
                }
                let verdict = governor.judge(now_us, percent);
                if let Verdict::Halvings(to) = verdict {
                    prop_assert_eq!(to.abs_diff(halvings), 1);
                    if let Some(changed_us) = changed_us {
                        prop_assert!(now_us - changed_us >= MINUTE_US);
                    }
                    if to < halvings {
                        prop_assert!(now_us - loud_us >= CALM_US);
                    } else {
                        prop_assert!(percent > 1.0);
                    }
                    (halvings, changed_us) = (to, Some(now_us));
                }
                prop_assert_eq!(governor.halvings(), halvings);
            }
        }
    }
}
