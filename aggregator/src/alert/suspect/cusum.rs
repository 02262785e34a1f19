//! The cumulative sum of evidence for a change upwards.

use super::Design;

/// A one-sided CUSUM in units of log likelihood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cusum {
    score: f64,
    /// Begin of the first pulse after the last zero, Unix ms.
    onset_ms: u64,
    alarmed_ms: Option<u64>,
    /// Since the last zero: retransmits counted, and scaled up retransmits and segments.
    counted: f64,
    retrans: f64,
    sent: f64,
}

/// What one pulse adds.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Begin of the pulse, Unix ms.
    pub start_ms: u64,
    /// Its end, Unix ms.
    pub end_ms: u64,
    /// Retransmits, single flows' bursts cut.
    pub observed: f64,
    /// Retransmits expected.
    pub expected: f64,
    /// Retransmits as they were counted.
    pub counted: f64,
    /// Sampling rate of its flows.
    pub sampling_rate: f64,
    /// Segments sent, those in the recent past included whose retransmits may still come.
    pub sent: f64,
}

/// What became of a CUSUM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Nothing of note.
    On,
    /// It alarms from now on.
    Alarmed,
    /// It is back at zero.
    Cleared,
}

impl Cusum {
    /// Adds a pulse, given how many times as spread as Poisson counts the retransmits are.
    pub fn add(&mut self, step: &Step, dispersion: f64, design: &Design) -> Moved {
        if self.score <= 0.0 {
            *self = Self {
                onset_ms: step.start_ms,
                ..Self::default()
            };
        }
        self.counted += step.counted;
        self.retrans += step.counted / step.sampling_rate;
        self.sent += step.sent / step.sampling_rate;
        let rise = step.observed * design.ratio.ln() - (design.ratio - 1.0) * step.expected;
        let rise = (rise / dispersion).min(design.threshold * design.most_at_once);
        self.score = (self.score + rise).clamp(0.0, design.threshold * design.ceiling);
        if self.score <= 0.0 {
            return match self.alarmed_ms.take() {
                Some(_) => Moved::Cleared,
                None => Moved::On,
            };
        }
        if self.alarmed_ms.is_none() && self.score >= design.threshold {
            self.alarmed_ms = Some(step.end_ms);
            return Moved::Alarmed;
        }
        Moved::On
    }

    /// Since when it alarms, Unix ms.
    pub const fn alarmed_ms(&self) -> Option<u64> {
        self.alarmed_ms
    }

    /// Estimated time of the change, Unix ms: the last zero.
    pub const fn onset_ms(&self) -> u64 {
        self.onset_ms
    }

    /// Ratio since the onset with an interval of two standard deviations, of counts that are `dispersion` times as spread as Poisson
    /// counts: value, low, high.
    pub fn ratio(&self, dispersion: f64) -> (f64, f64, f64) {
        if self.sent <= 0.0 || self.counted <= 0.0 {
            return (0.0, 0.0, 0.0);
        }
        let value = self.retrans / self.sent;
        let width = 2.0 * (dispersion / self.counted).sqrt();
        (value, value * (-width).exp(), value * width.exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: u64, observed: f64) -> Step {
        Step {
            start_ms: number * 100,
            end_ms: number * 100 + 100,
            observed,
            expected: 10.0,
            counted: observed,
            sampling_rate: 0.1,
            sent: 1_000.0,
        }
    }

    #[test]
    fn it_alarms_after_the_evidence_and_knows_the_onset() {
        let design = Design::default();
        let mut cusum = Cusum::default();
        for number in 0..50 {
            assert_eq!(cusum.add(&step(number, 10.0), 1.0, &design), Moved::On);
        }
        // Each pulse of 30 for 10 is worth 30 ln 3 − 20 = 12.96.
        assert!((30.0 * 3f64.ln() - 20.0 - 12.96).abs() < 0.01);
        let needed = (design.threshold / 12.96).ceil() as u64;
        for number in 50..50 + needed - 1 {
            assert_eq!(cusum.add(&step(number, 30.0), 1.0, &design), Moved::On);
        }
        let last = 50 + needed - 1;
        assert_eq!(cusum.add(&step(last, 30.0), 1.0, &design), Moved::Alarmed);
        assert_eq!(cusum.onset_ms(), 5_000);
        assert_eq!(cusum.alarmed_ms(), Some(last * 100 + 100));
        let (value, low, high) = cusum.ratio(1.0);
        assert!((value - 0.03).abs() < 1e-12 && low < value && value < high);
        let moved: Vec<_> = (last + 1..last + 10)
            .map(|number| cusum.add(&step(number, 10.0), 1.0, &design))
            .filter(|moved| *moved != Moved::On)
            .collect();
        assert_eq!(moved, [Moved::Cleared]);
    }

    #[test]
    fn no_single_pulse_alarms() {
        let design = Design::default();
        let mut cusum = Cusum::default();
        assert_eq!(cusum.add(&step(1, 1e9), 1.0, &design), Moved::On);
        assert_eq!(cusum.add(&step(2, 1e9), 1.0, &design), Moved::Alarmed);
    }
}
