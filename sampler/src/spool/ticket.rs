//! Who has a batch that is on its way to the disk: the spool, or an outlet that waited long enough. Pure but for the atomic.
//!
//! Input: the outlet's patience ends, the spool has written. Output: exactly one of the two sends the events on.

use std::sync::atomic::{AtomicU8, Ordering};

use super::segments::SpoolId;

/// What became of a batch that is on its way to the disk.
#[derive(Debug, Default)]
pub struct Ticket(AtomicU8);

const WAITING: u8 = 0;
const WRITTEN: u8 = 1;
const ABANDONED: u8 = 2;
const SETTLED: u8 = 3;

impl Ticket {
    /// The outlet waits no longer. False: too late, it is written, and the answer is there.
    pub fn abandon(&self) -> bool {
        self.0
            .compare_exchange(WAITING, ABANDONED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The spool has done with an abandoned batch: it answers again.
    pub fn is_settled(&self) -> bool {
        self.0.load(Ordering::Acquire) == SETTLED
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.0.load(Ordering::Acquire) == ABANDONED
    }

    pub(super) fn written(&self) -> bool {
        self.0
            .compare_exchange(WAITING, WRITTEN, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    pub(super) fn settle(&self) {
        self.0.store(SETTLED, Ordering::Release);
    }
}

/// Answer to a batch: its first place, or why it is not on the disk.
pub type Written = Result<SpoolId, String>;
