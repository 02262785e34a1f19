//! The cumulative sum of evidence for a change upwards.

use sampler_event::GROUPS;
use serde::{Deserialize, Serialize};

use super::Design;

/// A one-sided CUSUM in units of log likelihood.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cusum {
    score: f64,
    /// Begin of the first pulse after the last zero, Unix ms.
    onset_ms: u64,
    alarmed_ms: Option<u64>,
    /// Since the last zero: retransmits and segments counted, and scaled up retransmits, segments, and segments that these may repair.
    counted: f64,
    #[serde(default)]
    counted_sent: f64,
    retrans: f64,
    sent: f64,
    exposed: f64,
    /// Retransmits of each random group since then, bursts cut, and expected ones of all.
    groups: [f64; GROUPS],
    expected: f64,
    newest_ms: u64,
}

/// How far a sum goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// It alarms here.
    pub threshold: f64,
    /// It stops here.
    pub ceiling: f64,
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
    /// The same by random group.
    pub groups: [f64; GROUPS],
    /// Retransmits expected, so cut.
    pub expected: f64,
    /// Segments whose retransmits may be among them.
    pub exposed: f64,
    /// Retransmits as they were counted.
    pub counted: f64,
    /// Segments sent in it.
    pub sent: f64,
    /// Sampling rate of its flows.
    pub sampling_rate: f64,
}

/// What became of a CUSUM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Nothing of note.
    On,
    /// There is evidence enough for an alarm.
    Ready,
    /// It is back at zero.
    Cleared,
}

impl Cusum {
    /// Adds a pulse, given how many times as spread as Poisson counts the retransmits are.
    pub fn add(&mut self, step: &Step, dispersion: f64, bounds: Bounds, design: &Design) -> Moved {
        let threshold = bounds.threshold;
        if self.score <= 0.0 {
            *self = Self {
                onset_ms: step.start_ms,
                ..Self::default()
            };
        }
        self.counted += step.counted;
        self.counted_sent += step.sent;
        self.retrans += step.counted / step.sampling_rate;
        self.sent += step.sent / step.sampling_rate;
        self.exposed += step.exposed / step.sampling_rate;
        let (up, down) = (design.ratio.ln(), (design.ratio - 1.0) * step.expected);
        let rise = (step.observed * up - down) / dispersion;
        let rise = rise.min(threshold * design.most_at_once);
        let passed_ms = step.end_ms.saturating_sub(self.newest_ms) as f64;
        let keep = (-passed_ms / design.breadth_ms).exp();
        self.newest_ms = self.newest_ms.max(step.end_ms);
        for (group, observed) in self.groups.iter_mut().zip(&step.groups) {
            *group = *group * keep + observed;
        }
        self.expected = self.expected * keep + step.expected;
        self.score = (self.score + rise).clamp(0.0, bounds.ceiling);
        if self.score <= 0.0 {
            return match self.alarmed_ms.take() {
                Some(_) => Moved::Cleared,
                None => Moved::On,
            };
        }
        if self.alarmed_ms.is_none() && self.score >= threshold && self.is_broad(threshold, design)
        {
            return Moved::Ready;
        }
        Moved::On
    }

    /// Whether enough is left without the groups that brought most: those of single flows that have their own troubles.
    fn is_broad(&self, threshold: f64, design: &Design) -> bool {
        self.score >= threshold * design.strong || self.has_breadth(design)
    }

    /// Whether it is at `threshold` now, and many groups see it.
    pub fn proves(&self, threshold: f64, design: &Design) -> bool {
        self.score >= threshold && self.has_breadth(design)
    }

    fn has_breadth(&self, design: &Design) -> bool {
        let mut groups = self.groups;
        groups.sort_unstable_by(|a, b| b.total_cmp(a));
        let rest: f64 = groups.iter().skip(design.trim).sum();
        let part = 1.0 - design.trim as f64 / GROUPS as f64;
        rest >= design.trimmed * part * self.expected
    }

    /// It alarms from now on.
    pub const fn alarm(&mut self, at_ms: u64) {
        self.alarmed_ms = Some(at_ms);
    }

    /// Since when it alarms, Unix ms.
    pub const fn alarmed_ms(&self) -> Option<u64> {
        self.alarmed_ms
    }

    /// Estimated time of the change, Unix ms: the last zero.
    pub const fn onset_ms(&self) -> u64 {
        self.onset_ms
    }

    /// The sum.
    pub const fn score(&self) -> f64 {
        self.score
    }

    /// Retransmits and segments of sampled flows since then.
    pub const fn counts(&self) -> (f64, f64) {
        (self.counted, self.counted_sent)
    }

    /// Ratio since the onset with an interval of two standard deviations, of counts that are `dispersion` times as spread as Poisson
    /// counts: value, low, high. The low end also takes the retransmits for those of a burst before, as far as there was one.
    pub fn ratio(&self, dispersion: f64) -> (f64, f64, f64) {
        if self.sent <= 0.0 || self.counted <= 0.0 {
            return (0.0, 0.0, 0.0);
        }
        let value = self.retrans / self.sent;
        let width = 2.0 * (dispersion / self.counted).sqrt();
        let low = self.retrans / self.exposed.max(self.sent);
        (value, low * (-width).exp(), value * width.exp())
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
            groups: [observed / GROUPS as f64; GROUPS],
            expected: 10.0,
            exposed: 1_000.0,
            counted: observed,
            sent: 1_000.0,
            sampling_rate: 0.1,
        }
    }

    #[test]
    fn it_alarms_after_the_evidence_and_knows_the_onset() {
        let design = Design::default();
        let mut cusum = Cusum::default();
        for number in 0..50 {
            assert_eq!(
                cusum.add(&step(number, 10.0), 1.0, design.stream_bounds(100), &design),
                Moved::On
            );
        }
        // A pulse of 30 for 10 is worth 30 ln 3 − 20 = 12.96, but brings at most a part of what is needed.
        assert!((30.0 * 3f64.ln() - 20.0 - 12.96).abs() < 0.01);
        let needed = (1.0 / design.most_at_once).ceil() as u64;
        for number in 50..50 + needed - 1 {
            assert_eq!(
                cusum.add(&step(number, 30.0), 1.0, design.stream_bounds(100), &design),
                Moved::On
            );
        }
        let last = 50 + needed - 1;
        assert_eq!(
            cusum.add(&step(last, 30.0), 1.0, design.stream_bounds(100), &design),
            Moved::Ready
        );
        cusum.alarm(last * 100 + 100);
        assert_eq!(cusum.onset_ms(), 5_000);
        assert_eq!(cusum.alarmed_ms(), Some(last * 100 + 100));
        let (value, low, high) = cusum.ratio(1.0);
        assert!((value - 0.03).abs() < 1e-12 && low < value && value < high);
        let moved: Vec<_> = (last + 1..last + 10)
            .map(|number| cusum.add(&step(number, 10.0), 1.0, design.stream_bounds(100), &design))
            .filter(|moved| *moved != Moved::On)
            .collect();
        assert_eq!(moved, [Moved::Cleared]);
    }

    #[test]
    fn no_single_pulse_alarms() {
        let design = Design::default();
        let mut cusum = Cusum::default();
        assert_eq!(
            cusum.add(&step(1, 1e9), 1.0, design.stream_bounds(100), &design),
            Moved::On
        );
        assert_eq!(
            cusum.add(&step(2, 1e9), 1.0, design.stream_bounds(100), &design),
            Moved::Ready
        );
    }
}
