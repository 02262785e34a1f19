//! How fast the backlog is sent again, beside live events.
//!
//! Input: the rate, the room that live events leave, the time. Output: questions to the spool, one at a time, and its answers.
//! Limits: [`AT_ONCE`] events a question; the rate is kept over [`BURST`].

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::spool::{Replayed, Spool};

/// Events of one question.
const AT_ONCE: usize = 500;
/// What was not used of the rate is kept for so long.
const BURST: Duration = Duration::from_millis(250);

/// A throttle. Pure: time is an argument.
#[derive(Debug, Default)]
struct Throttle {
    per_s: f64,
    tokens: f64,
    at: Option<Instant>,
}

impl Throttle {
    /// Events that may go now.
    fn allowed(&mut self, now: Instant) -> usize {
        let passed = self
            .at
            .map_or(BURST, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        let most = (self.per_s * BURST.as_secs_f64()).max(1.0);
        self.tokens = (self.tokens + self.per_s * passed.as_secs_f64()).min(most);
        self.tokens as usize
    }

    fn take(&mut self, events: usize) {
        self.tokens -= events as f64;
    }
}

/// The replay.
#[derive(Debug, Default)]
pub struct Replay {
    throttle: Throttle,
    asked: Option<oneshot::Receiver<Vec<Replayed>>>,
}

impl Replay {
    /// At most so many events a second.
    pub fn new(events_per_s: u32) -> Self {
        Self {
            throttle: Throttle {
                per_s: events_per_s.into(),
                ..Throttle::default()
            },
            asked: None,
        }
    }

    /// Asks the spool for as many events as may go, unless it was asked already.
    pub fn ask(&mut self, spool: &Spool, room: usize, now: Instant) {
        if self.asked.is_some() || room == 0 {
            return;
        }
        let count = self.throttle.allowed(now).min(room).min(AT_ONCE);
        if count > 0 {
            self.throttle.take(count);
            self.asked = Some(spool.next(count));
        }
    }

    /// The answer, once there is one; waits for ever when nothing was asked. Safe to cancel.
    pub async fn arrival(&mut self) -> Vec<Replayed> {
        let Some(asked) = &mut self.asked else {
            return std::future::pending().await;
        };
        let answer = asked.await;
        self.asked = None;
        // No answer: the spool has stopped, and so has the replay.
        answer.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_rate_and_no_long_burst() {
        let mut throttle = Throttle {
            per_s: 1000.0,
            ..Throttle::default()
        };
        let start = Instant::now();
        let mut sent = 0;
        for step in 0..=1000 {
            let events = throttle.allowed(start + Duration::from_millis(step * 10));
            throttle.take(events);
            sent += events;
        }
        assert!((10_000..=10_250).contains(&sent), "{sent}");
        let after_a_pause = throttle.allowed(start + Duration::from_secs(100));
        assert!(after_a_pause <= 250, "{after_a_pause}");
        let mut slow = Throttle {
            per_s: 1.0,
            ..Throttle::default()
        };
        let one = (0..40).map(|step| {
            let events = slow.allowed(start + Duration::from_millis(step * 250));
            slow.take(events);
            events
        });
        assert!((9..=11).contains(&one.sum::<usize>()));
    }
}
