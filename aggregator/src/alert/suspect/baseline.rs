//! What is normal: the ratio of a node, and how its counts are spread. Both are exponential means over the time in which there was
//! traffic, so that a night without viewers does not wipe out what is known.

use serde::{Deserialize, Serialize};

use super::Design;

/// Retransmits per segment sent, learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Level {
    retrans: f64,
    sent: f64,
}

impl Level {
    /// Learns from a pulse.
    pub fn learn(&mut self, retrans: f64, sent: f64, length_ms: u64, design: &Design) {
        let keep = (-(length_ms as f64) / design.learn_ms).exp();
        self.retrans = self.retrans * keep + retrans;
        self.sent = self.sent * keep + sent;
    }

    /// The ratio; 0 while nothing was learned.
    pub fn ratio(&self) -> f64 {
        match self.sent > 0.0 {
            true => self.retrans / self.sent,
            false => 0.0,
        }
    }

    /// A ratio that is hardly too low, so that what was learned from few retransmits is no reason for alarm.
    pub fn cautious(&self, dispersion: f64, design: &Design) -> f64 {
        let margin = 2.0 * (dispersion * self.retrans).sqrt() + 1.0;
        match self.sent > 0.0 {
            true => ((self.retrans + margin) / self.sent).max(design.least_ratio),
            false => 1.0,
        }
    }
}

/// Variance of counts by their mean (Fano factor), learned from blocks of a second: it holds what pulses in a row have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dispersion {
    squares: f64,
    means: f64,
    blocks: u32,
    #[serde(skip)]
    block: Block,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Block {
    number: u64,
    observed: f64,
    expected: f64,
}

/// Length of a block, ms.
const BLOCK_MS: u64 = 1_000;
/// A block counts as at most so many standard deviations off, so that one accident does not blind the detector.
const FARTHEST: f64 = 5.0;

impl Dispersion {
    /// Adds a pulse; a block that is over is learned from unless `frozen`.
    pub fn add(
        &mut self,
        start_ms: u64,
        observed: f64,
        expected: f64,
        frozen: bool,
        design: &Design,
    ) {
        let number = start_ms / BLOCK_MS;
        if number > self.block.number {
            let over = std::mem::take(&mut self.block);
            if !frozen && over.expected > 0.0 {
                self.learn(over.observed - over.expected, over.expected, design);
            }
            self.block.number = number;
        }
        self.block.observed += observed;
        self.block.expected += expected;
    }

    fn learn(&mut self, off: f64, mean: f64, design: &Design) {
        let keep = (-(BLOCK_MS as f64) / design.learn_ms).exp();
        let most = FARTHEST.powi(2) * self.factor() * mean;
        self.squares = self.squares * keep + (off * off).min(most.max(FARTHEST.powi(2)));
        self.means = self.means * keep + mean;
        self.blocks = self.blocks.saturating_add(1);
    }

    /// The factor: at least 1, the one of Poisson counts.
    pub fn factor(&self) -> f64 {
        match self.means > 0.0 {
            true => (self.squares / self.means).max(1.0),
            false => 1.0,
        }
    }

    /// Blocks with traffic that it was learned from.
    pub const fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Learns anew; what is known is where it begins.
    pub fn restart(&mut self) {
        self.blocks = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_learned_and_cautious_while_it_knows_little() {
        let design = Design::default();
        let mut level = Level::default();
        assert_eq!(level.cautious(1.0, &design), 1.0);
        level.learn(4.0, 1_000.0, 100, &design);
        assert!((level.ratio() - 0.004).abs() < 1e-9);
        assert!((level.cautious(1.0, &design) - 0.009).abs() < 1e-9);
        for _ in 0..20_000 {
            level.learn(4.0, 1_000.0, 100, &design);
        }
        assert!(level.cautious(1.0, &design) < 0.0042);
        // After one time constant at another level it is most of the way there.
        for _ in 0..6_000 {
            level.learn(8.0, 1_000.0, 100, &design);
        }
        assert!((level.ratio() - (0.008 - 0.004 * (-1f64).exp())).abs() < 2e-4);
    }

    #[test]
    fn the_dispersion_of_clusters_is_their_size() {
        let design = Design::default();
        let mut dispersion = Dispersion::default();
        // Blocks that are alternately 4 above and 4 below a mean of 4: variance by mean is 4.
        for block in 0..2_000u64 {
            let observed = if block % 2 == 0 { 8.0 } else { 0.0 };
            dispersion.add(block * 1_000, observed, 4.0, false, &design);
        }
        assert!((dispersion.factor() - 4.0).abs() < 0.05);
        assert_eq!(dispersion.blocks(), 1_999);
        // One accident moves it a little, a frozen one not at all.
        let before = dispersion.factor();
        dispersion.add(2_000_000, 10_000.0, 4.0, false, &design);
        let mut frozen = dispersion;
        frozen.add(2_001_000, 0.0, 4.0, true, &design);
        assert!((frozen.factor() - before).abs() < 1e-9);
        dispersion.add(2_001_000, 0.0, 4.0, false, &design);
        assert!(dispersion.factor() > before && dispersion.factor() < 1.1 * before);
    }
}
