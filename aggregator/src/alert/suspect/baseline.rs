//! What is normal: the ratio of a node, and how its counts are spread. Both are exponential means over the time in which there was
//! traffic, so that a night without viewers does not wipe out what is known.

use serde::{Deserialize, Serialize};

use super::Design;
use super::cusum::Step;

/// Classes of traffic, half octaves from a quarter of the mean to four times it.
const CLASSES: usize = 9;
/// What a class has of its own counts like so many retransmits of the general level.
const CLASS_PRIOR: f64 = 20.0;

/// Retransmits per segment sent, learned: once as the detector weighs them, once as they were counted.
///
/// Those that are weighed do not rise in proportion to the traffic: groups count up to a bound, and a full network loses more. How they
/// rise is learned for each class of traffic, since players that fetch at the same moments move a stream up and down by octaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Level {
    observed: f64,
    exposed: f64,
    counted: f64,
    sent: f64,
    /// Time from which it was learned, ms.
    time_ms: f64,
    /// Weighed retransmits and expected ones by the general level, by class.
    classes: [(f64, f64); CLASSES],
}

impl Level {
    /// Learns from a pulse that moves the time on by `passed_ms`.
    pub fn learn(&mut self, step: &Step, passed_ms: u64, design: &Design) {
        let keep = match passed_ms {
            0 => 1.0,
            passed_ms => (-(passed_ms as f64) / design.learn_ms).exp(),
        };
        let expected = self.weighed(design).min(1.0) * step.exposed;
        let class = self.class(step);
        self.observed = self.observed * keep + step.observed;
        self.exposed = self.exposed * keep + step.exposed;
        self.counted = self.counted * keep + step.counted;
        self.sent = self.sent * keep + step.sent;
        self.time_ms = self.time_ms * keep + (step.end_ms - step.start_ms) as f64;
        for (observed, expected) in &mut self.classes {
            *observed *= keep;
            *expected *= keep;
        }
        self.classes[class].0 += step.observed;
        self.classes[class].1 += expected;
    }

    fn class(&self, step: &Step) -> usize {
        let mean = self.exposed / self.time_ms.max(1.0);
        let now = step.exposed / (step.end_ms - step.start_ms).max(1) as f64;
        let middle = (CLASSES / 2) as f64;
        let class = 2.0 * (now / mean.max(f64::MIN_POSITIVE)).log2() + middle;
        class.round().clamp(0.0, (CLASSES - 1) as f64) as usize
    }

    /// What the class of a pulse's traffic has in multiples of the general level.
    pub fn shape(&self, step: &Step) -> f64 {
        let (observed, expected) = self.classes[self.class(step)];
        (observed + CLASS_PRIOR) / (expected + CLASS_PRIOR)
    }

    /// The ratio as it was counted; 0 while nothing was learned.
    pub fn ratio(&self) -> f64 {
        match self.sent > 0.0 {
            true => self.counted / self.sent,
            false => 0.0,
        }
    }

    /// The ratio as the detector weighs it, at least the one below which nothing counts.
    pub fn weighed(&self, design: &Design) -> f64 {
        match self.exposed > 0.0 {
            true => (self.observed / self.exposed).max(design.least_ratio),
            false => 1.0,
        }
    }

    /// That ratio, hardly too low, so that what was learned from few retransmits is no reason for alarm.
    pub fn cautious(&self, dispersion: f64, design: &Design) -> f64 {
        let margin = 2.0 * (dispersion * self.observed).sqrt() + 1.0;
        match self.exposed > 0.0 {
            true => ((self.observed + margin) / self.exposed).max(design.least_ratio),
            false => 1.0,
        }
    }
}

/// Variance of counts by their mean (Fano factor), learned from blocks of time: it holds what pulses in a row have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dispersion {
    squares: f64,
    means: f64,
    /// Time with traffic that it was learned from, ms.
    learned_ms: u64,
    #[serde(default)]
    block: Block,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Block {
    begin_ms: u64,
    observed: f64,
    expected: f64,
}

/// A block counts as at most so many standard deviations off, so that one accident does not blind the detector.
const FARTHEST: f64 = 5.0;

impl Dispersion {
    /// Adds a pulse; a block of `block_ms` that is over is learned from unless `frozen`.
    pub fn add(
        &mut self,
        start_ms: u64,
        (observed, expected): (f64, f64),
        block_ms: u64,
        frozen: bool,
        design: &Design,
    ) {
        let begin_ms = start_ms - start_ms % block_ms;
        if begin_ms > self.block.begin_ms {
            let over = std::mem::take(&mut self.block);
            if !frozen && over.expected > 0.0 {
                self.learn(&over, block_ms, design);
            }
            self.block.begin_ms = begin_ms;
        }
        self.block.observed += observed;
        self.block.expected += expected;
    }

    fn learn(&mut self, over: &Block, block_ms: u64, design: &Design) {
        let keep = (-(block_ms as f64) / design.learn_ms).exp();
        let (off, mean) = (over.observed - over.expected, over.expected);
        let most = FARTHEST.powi(2) * self.factor(design) * mean;
        self.squares = self.squares * keep + (off * off).min(most.max(FARTHEST.powi(2)));
        self.means = self.means * keep + mean;
        self.learned_ms = self.learned_ms.saturating_add(block_ms);
    }

    /// The factor: at least 1, the one of Poisson counts. Before there are retransmits to learn it from it is a guess on the safe side.
    pub fn factor(&self, design: &Design) -> f64 {
        let (guess, weight) = (design.guess, design.guess_retrans);
        let factor = (self.squares + guess * weight) / (self.means + weight);
        factor.max(1.0)
    }

    /// Time with traffic that it was learned from, ms.
    pub const fn learned_ms(&self) -> u64 {
        self.learned_ms
    }

    /// Learns anew; what is known is where it begins.
    pub fn restart(&mut self) {
        self.learned_ms = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(retrans: f64, sent: f64) -> Step {
        Step {
            start_ms: 0,
            end_ms: 100,
            observed: retrans,
            groups: [0.0; sampler_event::GROUPS],
            expected: 0.0,
            exposed: sent,
            counted: retrans,
            sent,
            sampling_rate: 0.1,
        }
    }

    #[test]
    fn the_level_is_learned_and_cautious_while_it_knows_little() {
        let design = Design::default();
        let mut level = Level::default();
        assert_eq!(level.cautious(1.0, &design), 1.0);
        level.learn(&step(4.0, 1_000.0), 100, &design);
        assert!((level.ratio() - 0.004).abs() < 1e-9);
        assert!((level.cautious(1.0, &design) - 0.009).abs() < 1e-9);
        for _ in 0..20_000 {
            level.learn(&step(4.0, 1_000.0), 100, &design);
        }
        assert!(level.cautious(1.0, &design) < 0.0042);
        // After one time constant at another level it is most of the way there.
        for _ in 0..design.learn_ms as u64 / 100 {
            level.learn(&step(8.0, 1_000.0), 100, &design);
        }
        assert!((level.ratio() - (0.008 - 0.004 * (-1f64).exp())).abs() < 2e-4);
    }

    #[test]
    fn the_dispersion_of_clusters_is_their_size() {
        let design = Design::default();
        let mut dispersion = Dispersion::default();
        assert_eq!(dispersion.factor(&design), design.guess);
        // Blocks that are alternately 4 above and 4 below a mean of 4: variance by mean is 4.
        for block in 0..2_000u64 {
            let observed = if block % 2 == 0 { 8.0 } else { 0.0 };
            dispersion.add(block * 1_000, (observed, 4.0), 1_000, false, &design);
        }
        assert!((dispersion.factor(&design) - 4.0).abs() < 0.1);
        assert_eq!(dispersion.learned_ms(), 1_999_000);
        // One accident moves it a little, a frozen one not at all.
        let before = dispersion.factor(&design);
        dispersion.add(2_000_000, (10_000.0, 4.0), 1_000, false, &design);
        let mut frozen = dispersion;
        frozen.add(2_001_000, (0.0, 4.0), 1_000, true, &design);
        assert!((frozen.factor(&design) - before).abs() < 0.01 * before);
        dispersion.add(2_001_000, (0.0, 4.0), 1_000, false, &design);
        assert!(dispersion.factor(&design) > before);
        assert!(dispersion.factor(&design) < 1.1 * before);
    }
}
