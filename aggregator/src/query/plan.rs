//! Which rows a question needs.
//!
//! Input: a span, a step, the site's time. Output: the rows' length and the span in whole rows; or why there is no answer. Pure.
//! Units: ms, Unix time.

use crate::store::{MINUTES_KEPT_MS, SECONDS_KEPT_MS};

/// Length of a row of `stream_second`.
pub const SECOND_MS: u64 = 1_000;
/// Length of a row of `stream_minute`.
pub const MINUTE_MS: u64 = 60_000;
/// Longest span that is answered from seconds: 21,600 rows and their late parts.
pub const MOST_SECONDS_MS: u64 = 6 * 3_600_000;
/// Longest span that is answered from minutes: 44,640 rows and their late parts.
pub const MOST_MINUTES_MS: u64 = 31 * 86_400_000;

/// Whole rows that hold a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Begin of the span.
    pub from_ms: u64,
    /// Its end.
    pub to_ms: u64,
    /// Length of a step; for a total that of the span.
    pub step_ms: u64,
    /// Length of the rows: [`SECOND_MS`] or [`MINUTE_MS`].
    pub row_ms: u64,
}

/// Why a question has no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    /// Its end is not after its begin.
    #[error("to_ms is not after from_ms")]
    Empty,
    /// Seconds are not kept for so long.
    #[error("seconds are kept for 48 hours: ask for whole minutes further back")]
    Forgotten,
    /// Nothing is kept for so long.
    #[error("the span begins before the 90 days that are kept")]
    TooOld,
    /// Too many rows.
    #[error("the span is too long: 6 hours of seconds, or 31 days of whole minutes")]
    TooLong,
}

impl Plan {
    /// Rows of a total: of seconds up to an hour, of minutes beyond it and where seconds are kept no more. Of minutes the span ends
    /// with a whole one.
    ///
    /// # Errors
    /// If nothing that is kept can answer.
    pub fn total(at_ms: u64, over_ms: u64, now_ms: u64) -> Result<Self, NoPlan> {
        let begins_ms = at_ms.saturating_sub(over_ms);
        let old = now_ms.saturating_sub(begins_ms) > SECONDS_KEPT_MS;
        let whole = over_ms.is_multiple_of(MINUTE_MS);
        let row_ms = match old || over_ms > 3_600_000 {
            true if whole => MINUTE_MS,
            true if old => return Err(NoPlan::Forgotten),
            _ => SECOND_MS,
        };
        let to_ms = at_ms - at_ms % row_ms;
        let plan = Self {
            from_ms: to_ms.saturating_sub(over_ms),
            to_ms,
            step_ms: over_ms,
            row_ms,
        };
        plan.checked(now_ms)
    }

    /// Rows of a series: of minutes where its steps are whole ones. It begins with a whole row; what is over at its end is no step.
    ///
    /// # Errors
    /// If nothing that is kept can answer.
    pub fn series(from_ms: u64, to_ms: u64, step_ms: u64, now_ms: u64) -> Result<Self, NoPlan> {
        let row_ms = match step_ms.is_multiple_of(MINUTE_MS) {
            true => MINUTE_MS,
            false => SECOND_MS,
        };
        let plan = Self {
            from_ms: from_ms - from_ms % row_ms,
            to_ms,
            step_ms,
            row_ms,
        };
        plan.checked(now_ms)
    }

    fn checked(self, now_ms: u64) -> Result<Self, NoPlan> {
        let age_ms = now_ms.saturating_sub(self.from_ms);
        let length_ms = self.to_ms.saturating_sub(self.from_ms);
        let (most_ms, kept_ms, gone) = match self.row_ms {
            MINUTE_MS => (MOST_MINUTES_MS, MINUTES_KEPT_MS, NoPlan::TooOld),
            _ => (MOST_SECONDS_MS, SECONDS_KEPT_MS, NoPlan::Forgotten),
        };
        match () {
            () if length_ms == 0 => Err(NoPlan::Empty),
            () if length_ms > most_ms => Err(NoPlan::TooLong),
            // A row that is just being dropped is no reason to refuse.
            () if age_ms > kept_ms + self.row_ms => Err(gone),
            () => Ok(self),
        }
    }

    /// Ends of the steps.
    pub fn ends_ms(&self) -> impl Iterator<Item = u64> + use<> {
        let Self {
            from_ms,
            to_ms,
            step_ms,
            ..
        } = *self;
        (1..)
            .map(move |step| from_ms.saturating_add(step * step_ms))
            .take_while(move |end_ms| *end_ms <= to_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_007_300;
    const HOUR_MS: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR_MS;

    fn total(at_ms: u64, over_ms: u64, expected: Result<(u64, u64, u64), NoPlan>) {
        let plan = Plan::total(at_ms, over_ms, NOW_MS);
        let found = plan.map(|plan| (plan.from_ms, plan.to_ms, plan.row_ms));
        assert_eq!(found, expected, "{at_ms} {over_ms}");
    }

    fn series(span: (u64, u64), step_ms: u64, expected: Result<(u64, u64, usize), NoPlan>) {
        let plan = Plan::series(span.0, span.1, step_ms, NOW_MS);
        let found = plan.map(|plan| (plan.from_ms, plan.row_ms, plan.ends_ms().count()));
        assert_eq!(found, expected, "{span:?} {step_ms}");
    }

    #[test]
    fn totals_end_with_a_whole_row() {
        let second = 1_700_000_007_000;
        total(NOW_MS, 10_000, Ok((second - 10_000, second, SECOND_MS)));
        total(NOW_MS, HOUR_MS, Ok((second - HOUR_MS, second, SECOND_MS)));
        // 1,700,000,007 s is 27 s after a full minute.
        let minute = second - 27_000;
        total(
            NOW_MS,
            2 * HOUR_MS,
            Ok((minute - 2 * HOUR_MS, minute, MINUTE_MS)),
        );
        let long = 5_000_000;
        total(NOW_MS, long, Ok((second - long, second, SECOND_MS)));
        let old = NOW_MS - 3 * DAY_MS;
        total(
            old,
            60_000,
            Ok((minute - 3 * DAY_MS - 60_000, minute - 3 * DAY_MS, MINUTE_MS)),
        );
        total(old, 10_000, Err(NoPlan::Forgotten));
        total(NOW_MS, 7 * HOUR_MS + 1_000, Err(NoPlan::TooLong));
        total(NOW_MS, 32 * DAY_MS, Err(NoPlan::TooLong));
        total(NOW_MS - 91 * DAY_MS, 60_000, Err(NoPlan::TooOld));
        total(500, 10_000, Err(NoPlan::Forgotten));
    }

    #[test]
    fn series_are_of_minutes_where_their_steps_are() {
        let second = 1_700_000_007_000;
        let minute = second - 27_000;
        series(
            (NOW_MS - 60_000, NOW_MS),
            1_000,
            Ok((second - 60_000, SECOND_MS, 60)),
        );
        series(
            (NOW_MS - HOUR_MS, NOW_MS),
            60_000,
            Ok((minute - HOUR_MS, MINUTE_MS, 60)),
        );
        series((NOW_MS, NOW_MS - 5_000), 1_000, Err(NoPlan::Empty));
        series((NOW_MS - 7 * HOUR_MS, NOW_MS), 59_000, Err(NoPlan::TooLong));
        series(
            (NOW_MS - 50 * HOUR_MS, NOW_MS - 49 * HOUR_MS),
            59_000,
            Err(NoPlan::Forgotten),
        );
        series(
            (NOW_MS - 91 * DAY_MS, NOW_MS - 90 * DAY_MS),
            300_000,
            Err(NoPlan::TooOld),
        );
    }
}
