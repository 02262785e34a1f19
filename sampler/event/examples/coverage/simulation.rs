//! Simulated populations of flows, sampled and estimated as real ones are, whose true totals are known.
//!
//! Input: a setting. Output: how often the ends of the interval missed. Each flow is selected by itself and put in one of 16 groups,
//! as the keyed hash does it; samples with too few flows give no estimate and are counted apart.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Gamma, LogNormal};
use sampler_event::{Estimate, GROUPS, Insufficient, Options, Sample, ratio, total};

/// How the sums y of flows are spread, with a coefficient of variation of 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Gamma, flows of one size x.
    Light,
    /// Log-normal, flows of log-normal size x: few flows hold most of the sum.
    Heavy,
}

/// Setting of a simulation.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Spread of the flows.
    pub tail: Tail,
    /// Populations drawn.
    pub populations: u32,
    /// Flows expected in each sample.
    pub flows: u32,
    /// Sampling rate.
    pub rate: f64,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// How the intervals did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coverage {
    /// Populations with an estimate.
    pub estimated: u32,
    /// Populations with too little evidence.
    pub insufficient: u32,
    /// Estimates whose lower end was above the truth.
    pub low_missed: u32,
    /// Estimates whose upper end was below the truth.
    pub high_missed: u32,
}

impl Coverage {
    fn count(&mut self, estimate: Result<Estimate, Insufficient>, truth: f64) {
        match estimate {
            Err(_) => self.insufficient += 1,
            Ok(estimate) => {
                self.estimated += 1;
                self.low_missed += u32::from(estimate.low > truth);
                self.high_missed += u32::from(estimate.high < truth);
            }
        }
    }

    /// Share of estimates whose lower end was above the truth.
    pub fn low_missed_share(&self) -> f64 {
        f64::from(self.low_missed) / f64::from(self.estimated)
    }

    /// Share of estimates whose interval held the truth.
    pub fn covered_share(&self) -> f64 {
        1.0 - f64::from(self.low_missed + self.high_missed) / f64::from(self.estimated)
    }
}

/// Coverage of the total of y and of the ratio of y to x, on the same populations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Intervals of the total.
    pub total: Coverage,
    /// Intervals of the ratio.
    pub ratio: Coverage,
}

/// Draws populations, samples and estimates them.
pub fn run(setting: Setting) -> Outcome {
    let mut random = StdRng::seed_from_u64(setting.seed);
    let mut outcome = Outcome::default();
    for _ in 0..setting.populations {
        let (sample, all_y, all_x) = draw(&setting, &mut random);
        let options = Options::default();
        outcome.total.count(total(&[sample], &options), all_y);
        outcome
            .ratio
            .count(ratio(&[sample], &options), all_y / all_x);
    }
    outcome
}

/// Log-normal with mean 1 and the given square of the coefficient of variation.
fn log_normal(squared_variation: f64) -> LogNormal<f64> {
    let variance = squared_variation.ln_1p();
    LogNormal::new(-variance / 2.0, variance.sqrt()).expect("finite")
}

/// Draws the size and the sum of flows, as multiples of their means.
fn flows(tail: Tail) -> impl Fn(&mut StdRng) -> (f64, f64) {
    // The sum is the size times a number: 1 + CV² multiplies, (1 + 1)(1 + 1.5) = 1 + 2².
    let (size, per_size) = (log_normal(1.0), log_normal(1.5));
    let sum = Gamma::new(0.25, 4.0).expect("positive");
    move |random| match tail {
        Tail::Light => (1.0, sum.sample(random)),
        Tail::Heavy => {
            let size = size.sample(random);
            (size, size * per_size.sample(random))
        }
    }
}

fn draw(setting: &Setting, random: &mut StdRng) -> (Sample, f64, f64) {
    let flow = flows(setting.tail);
    let population = (f64::from(setting.flows) / setting.rate).round() as u64;
    let mut sample = Sample {
        sampling_rate: setting.rate,
        flows: 0,
        y: [0; GROUPS],
        x: [0; GROUPS],
    };
    let (mut all_y, mut all_x) = (0, 0);
    for _ in 0..population {
        let (size, sum) = flow(random);
        let (x, y) = (
            (size * 10_000.0).round() as u64,
            (sum * 1_000.0).round() as u64,
        );
        (all_y, all_x) = (all_y + y, all_x + x);
        if random.random_bool(setting.rate) {
            let group = random.random_range(0..GROUPS);
            sample.flows += 1;
            sample.y[group] += y;
            sample.x[group] += x;
        }
    }
    (sample, all_y as f64, all_x as f64)
}
