//! For how long something has been proven without a gap.

use serde::{Deserialize, Serialize};

/// A condition under observation. Time counts only between two observations that both prove it and whose spans touch: what nobody
/// looked at proves nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Streak {
    /// First proof, Unix ms.
    pub since_ms: u64,
    proven_ms: u64,
    last_ms: Option<u64>,
}

impl Streak {
    /// Begins with its first proof.
    pub const fn new(at_ms: u64) -> Self {
        Self {
            since_ms: at_ms,
            proven_ms: 0,
            last_ms: Some(at_ms),
        }
    }

    /// One more proof, which reaches back over `reach_ms`.
    pub fn extend(&mut self, at_ms: u64, reach_ms: u64) {
        let gap_ms = self.last_ms.map(|last_ms| at_ms.saturating_sub(last_ms));
        self.proven_ms += gap_ms.filter(|gap_ms| *gap_ms <= reach_ms).unwrap_or(0);
        self.last_ms = Some(at_ms);
    }

    /// An observation that says nothing: what was proven stays, the time until the next proof does not count.
    pub const fn interrupt(&mut self) {
        self.last_ms = None;
    }

    /// Whether it has lasted.
    pub const fn has_lasted(&self, long_ms: u64) -> bool {
        self.proven_ms >= long_ms
    }

    /// Nothing is proven any more: who proved it is somebody else.
    pub const fn restart(&mut self) {
        self.proven_ms = 0;
        self.last_ms = None;
    }
}

#[cfg(test)]
mod tests {
    use super::Streak;

    #[test]
    fn only_time_between_proofs_counts() {
        let mut streak = Streak::new(1_000);
        assert!(streak.has_lasted(0) && !streak.has_lasted(1));
        streak.extend(2_000, 10_000);
        assert!(streak.has_lasted(1_000) && !streak.has_lasted(1_001));
        streak.interrupt();
        streak.extend(4_000, 10_000);
        assert!(!streak.has_lasted(1_001), "nothing was known in between");
        streak.extend(14_001, 10_000);
        assert!(!streak.has_lasted(1_001), "nobody looked in between");
        streak.extend(24_001, 10_000);
        assert!(streak.has_lasted(11_000));
        streak.restart();
        assert!(!streak.has_lasted(1));
        assert_eq!(streak.since_ms, 1_000);
    }
}
