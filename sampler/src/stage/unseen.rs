//! Flows that ended unseen: another sock_ops program had taken their callbacks, the close too.
//!
//! To the kernel side they stay open, and fill its table. The walk meets only those that are
//! there. Each alone proves nothing, since flows come and go between the two counts and the walk
//! may miss some; what the kernel side claims too much window after window is gone.

/// Windows in a row that must show it.
pub const WINDOWS: u8 = 10;

/// Open flows by both counts over the last windows.
#[derive(Clone, Debug, Default)]
pub struct Unseen {
    windows: u8,
    /// Least excess in them.
    excess: u64,
}

impl Unseen {
    /// One window: flows open to the kernel side, and flows that the walk met. Answers how many
    /// have ended unseen: a tenth less than it looks, so that those that are there can still be
    /// counted off when they close.
    pub fn observe(&mut self, open: u64, met: u64) -> u64 {
        let margin = 8 + met / 10;
        let excess = open.saturating_sub(met.saturating_add(margin));
        if excess == 0 {
            self.windows = 0;
            return 0;
        }
        self.excess = match self.windows {
            0 => excess,
            _ => self.excess.min(excess),
        };
        self.windows += 1;
        if self.windows < WINDOWS {
            return 0;
        }
        self.windows = 0;
        self.excess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(counts: impl IntoIterator<Item = (u64, u64)>) -> Vec<u64> {
        let mut unseen = Unseen::default();
        counts
            .into_iter()
            .map(|(open, met)| unseen.observe(open, met))
            .filter(|gone| *gone != 0)
            .collect()
    }

    #[test]
    fn what_is_claimed_window_after_window_is_gone() {
        assert_eq!(gone((0..10).map(|_| (50, 0))), [42]);
        assert!(gone((0..9).map(|_| (50, 0))).is_empty());
        // The least excess, less a tenth of those that are there.
        assert_eq!(gone((0..10).map(|i| (2_000 + i, 1_000))), [892]);
    }

    #[test]
    fn coming_and_going_is_no_proof() {
        assert!(gone((0..100).map(|i| (1_000 + i, 950 + i))).is_empty());
        let burst = |i: u64| {
            if i.is_multiple_of(7) {
                (500, 500)
            } else {
                (900, 500)
            }
        };
        assert!(gone((0..100).map(burst)).is_empty());
    }
}
