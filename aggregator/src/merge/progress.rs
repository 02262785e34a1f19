//! Which windows of one stream of one node are here.
//!
//! Input: the sequences of windows as they come, and what heartbeats say: the sequence of the next window. Output: whether all windows
//! up to a moment are here. A window that was named and did not come is missing as of the window's end that named it; one that is
//! older than the lateness is lost, and is waited for no more. Reading begins anywhere: what lies before the first thing seen is not missed.
//! Limits: [`MAX_MISSING`] missing windows; of more the oldest are lost. Sequences of a life that is over are not looked at.

/// Missing windows that are remembered.
pub const MAX_MISSING: usize = 8;

/// The state of one stream of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Life of the daemon whose sequences these are, and the one before.
    instance: Option<u64>,
    before: Option<u64>,
    /// Sequences below it are here, or missing, or lost.
    known: u64,
    /// Missing sequences, each with the end of the window that named it, Unix ms.
    missing: Vec<(u64, u64)>,
}

impl Progress {
    /// A heartbeat for a window that ended at `end_ms` names the next sequence; `silent` says that none was sent in it.
    pub fn heard(&mut self, instance: u64, next_sequence: u64, silent: bool, end_ms: u64) {
        if self.instance != Some(instance) {
            // One window at least was sent for this moment. Those before it lie before us, or come before it.
            let first = next_sequence.saturating_sub(u64::from(!silent));
            self.begin(instance, first);
        }
        self.name(next_sequence, end_ms);
    }

    /// A window is here.
    pub fn saw(&mut self, instance: u64, sequence: u64, end_ms: u64) {
        if self.before == Some(instance) {
            return;
        }
        if self.instance != Some(instance) {
            self.begin(instance, sequence);
        }
        match sequence < self.known {
            true => self.missing.retain(|(missing, _)| *missing != sequence),
            false => {
                self.name(sequence, end_ms);
                self.known = sequence.saturating_add(1);
            }
        }
    }

    fn begin(&mut self, instance: u64, known: u64) {
        *self = Self {
            instance: Some(instance),
            before: self.instance,
            known,
            missing: Vec::new(),
        };
    }

    /// All sequences below `next` exist.
    fn name(&mut self, next: u64, end_ms: u64) {
        let first = next.saturating_sub(MAX_MISSING as u64).max(self.known);
        self.missing
            .extend((first..next).map(|sequence| (sequence, end_ms)));
        let over = self.missing.len().saturating_sub(MAX_MISSING);
        self.missing.drain(..over);
        self.known = self.known.max(next);
    }

    /// Whether everything up to a moment is here, but for what is lost.
    pub fn is_complete(&self, to_ms: u64, lateness_ms: u64) -> bool {
        let counts = |end_ms: u64| end_ms <= to_ms && to_ms < end_ms.saturating_add(lateness_ms);
        self.instance.is_some() && !self.missing.iter().any(|(_, end_ms)| counts(*end_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_bounded_and_the_oldest_are_lost() {
        let mut progress = Progress::default();
        assert!(!progress.is_complete(1_000, 2_000), "nothing is known");
        progress.saw(1, 7, 1_000);
        assert!(progress.is_complete(1_000, 2_000));
        progress.heard(1, u64::MAX, false, 2_000);
        assert_eq!(progress.missing.len(), MAX_MISSING);
        assert!(!progress.is_complete(2_000, 2_000));
        progress.saw(1, u64::MAX, 3_000);
        assert_eq!(progress.missing.len(), MAX_MISSING);
        assert!(progress.is_complete(4_000, 2_000), "lost");
        progress.saw(1, u64::MAX, 3_000);
    }
}
