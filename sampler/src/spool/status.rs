//! How the spool is doing, for the heartbeat, the metrics and a person.
//!
//! Input: what the spool's threads note. Output: [`SpoolStatus`]. Units: bytes, events, s.

use std::time::Duration;

use service::latency::Latency;

/// The rate is a mean over about so long.
const MEMORY: Duration = Duration::from_secs(60);

/// State of the spool.
#[derive(Clone, Debug, Default)]
pub struct SpoolStatus {
    /// Bytes in use, acks included.
    pub bytes: u64,
    /// Their bound.
    pub max_bytes: u64,
    /// Events that are not confirmed.
    pub records: u64,
    /// Of those: on disk only, of this life.
    pub pending: u64,
    /// Of those: on disk only, of earlier lives.
    pub pending_earlier: u64,
    /// End of the window of about the oldest of them, Unix time; none: there is none.
    pub oldest_end_ms: Option<u64>,
    /// Bytes that are written a second, a mean over about a minute.
    pub bytes_per_s: f64,
    /// Bytes cut off at start.
    pub torn_bytes: u64,
    /// Segments set aside at start.
    pub aside: u64,
    /// Times that a sync took.
    pub sync: Latency,
    /// Events written down as dead letters.
    pub dead_letters: u64,
    /// Dead letters that are not written down yet.
    pub letters_waiting: usize,
    /// Writing fails, for this reason.
    pub write_trouble: Option<String>,
    /// Syncing fails or is slow, for this reason.
    pub sync_trouble: Option<String>,
    /// The disk does not answer in time.
    pub stuck: bool,
}

impl SpoolStatus {
    /// Why events are less safe than they should be, if they are.
    pub fn trouble(&self) -> Option<String> {
        if let Some(reason) = &self.write_trouble {
            return Some(format!("spool: {reason}; events wait in memory only"));
        }
        if self.stuck {
            let text = "spool: the disk does not answer in time; events wait in memory only";
            return Some(text.to_owned());
        }
        let reason = self.sync_trouble.as_ref()?;
        Some(format!("spool: {reason}; a power loss would cost more"))
    }

    /// How long the bound lasts at the present rate, s, if anything is written.
    pub fn room_s(&self) -> Option<f64> {
        (self.bytes_per_s > 0.0).then(|| self.max_bytes as f64 / self.bytes_per_s)
    }

    /// Age of about the oldest event that is not confirmed, s.
    pub fn age_s(&self, now_ms: u64) -> f64 {
        self.oldest_end_ms
            .map_or(0.0, |end_ms| now_ms.saturating_sub(end_ms) as f64 / 1e3)
    }
}

/// A mean rate. Pure: time is an argument.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    per_s: f64,
    bytes: u64,
    since: Duration,
    seen: Duration,
}

impl Rate {
    /// Takes in bytes, and time that passed since the start; the mean at the end of every whole second.
    pub fn add(&mut self, bytes: u64, now: Duration) -> f64 {
        self.bytes += bytes;
        let passed = now.saturating_sub(self.since).as_secs_f64();
        if passed >= 1.0 {
            self.seen = self.seen.saturating_add(now.saturating_sub(self.since));
            // In the first minute a plain mean, so that it does not begin at nothing.
            let memory_s = self.seen.min(MEMORY).as_secs_f64();
            let weight = (passed / memory_s).min(1.0);
            self.per_s += (self.bytes as f64 / passed - self.per_s) * weight;
            (self.bytes, self.since) = (0, now);
        }
        self.per_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_and_forgets() {
        let mut rate = Rate::default();
        let at = |second: u64| Duration::from_secs(second);
        assert_eq!(rate.add(500, at(0)), 0.0);
        assert_eq!(rate.add(500, at(1)), 1000.0);
        let steady = (2..100).map(|second| rate.add(1000, at(second))).last();
        assert!((steady.expect("a rate") - 1000.0).abs() < 1e-6);
        let later = (100..800).map(|second| rate.add(0, at(second))).last();
        assert!(later.expect("a rate") < 1.0);
    }

    #[test]
    fn says_what_is_wrong_and_how_long_the_room_lasts() {
        let mut status = SpoolStatus {
            max_bytes: 60_000,
            bytes_per_s: 100.0,
            oldest_end_ms: Some(4000),
            ..SpoolStatus::default()
        };
        assert_eq!(status.trouble(), None);
        assert_eq!(status.room_s(), Some(600.0));
        assert_eq!((status.age_s(6500), status.age_s(0)), (2.5, 0.0));
        status.sync_trouble = Some("a sync took 500 ms".to_owned());
        assert!(status.trouble().expect("said").contains("500 ms"));
        status.write_trouble = Some("no space left on device".to_owned());
        assert!(status.trouble().expect("said").contains("no space"));
    }
}
