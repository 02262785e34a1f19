//! Random numbers that are cheap enough for billions of pulses.

use rand::Rng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Poisson, StandardNormal};

/// Above this mean a count is drawn by rejection; below, by inversion, which is faster there.
const INVERSION_BELOW: f64 = 12.0;

/// A Poisson count.
pub fn poisson(mean: f64, random: &mut SmallRng) -> u32 {
    if !(mean > 0.0 && mean.is_finite()) {
        return 0;
    }
    if mean >= INVERSION_BELOW {
        return Poisson::new(mean).map_or(0, |poisson| poisson.sample(random) as u32);
    }
    let mut chance = (-mean).exp();
    let mut left: f64 = random.random();
    let mut count = 0;
    while left > chance && count < 100 {
        left -= chance;
        count += 1;
        chance *= mean / f64::from(count);
    }
    count
}

/// A number of a normal distribution.
pub fn normal(random: &mut SmallRng) -> f64 {
    random.sample(StandardNormal)
}

/// A number whose logarithm is normal around `median`'s.
pub fn log_normal(median: f64, deviation: f64, random: &mut SmallRng) -> f64 {
    median * (deviation * normal(random)).exp()
}

/// A logarithm that wanders around 0: an Ornstein-Uhlenbeck process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wander {
    value: f64,
    keep: f64,
    kick: f64,
}

impl Wander {
    /// With a standard deviation and a memory, moved once in a step.
    pub fn new(deviation: f64, memory_ms: f64, step_ms: u64) -> Self {
        let keep = (-(step_ms as f64) / memory_ms).exp();
        Self {
            value: 0.0,
            keep,
            kick: deviation * (1.0 - keep * keep).sqrt(),
        }
    }

    /// A step; the factor that it stands for.
    pub fn step(&mut self, random: &mut SmallRng) -> f64 {
        self.value = self.value * self.keep + self.kick * normal(random);
        self.value.exp()
    }
}
