//! How soon a change is seen.

use aggregator::alert::Design;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::day::HOUR_MS;
use super::world::{Outcome, Setting, World};

/// Delays of one kind, ms from the change; what did not come within the time is missing.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    /// Sorted in the end.
    ms: Vec<u64>,
    trials: usize,
}

impl Delays {
    fn add(&mut self, first_ms: Option<u64>, change_ms: u64) {
        self.trials += 1;
        self.ms
            .extend(first_ms.map(|at_ms| at_ms.saturating_sub(change_ms)));
    }

    /// Nearest rank over all trials; none if it falls on one in which it did not come.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let rank = (q * self.trials as f64).ceil().max(1.0) as usize;
        self.ms.get(rank - 1).copied()
    }
}

/// What one design took.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// To the end of the pulse with which it suspects.
    pub suspected: Delays,
    /// To the end of the pulse with which nodes agree.
    pub agreed: Delays,
    /// To the moment at which the alert is sent.
    pub page: Delays,
    /// Trials in which it suspected before there was anything.
    pub early: usize,
}

/// The longest that is waited, ms.
const WAIT_MS: u64 = 20_000;

/// Lets the loss go to `times` what it was, again and again, at a random moment of a random pulse, after 15 minutes of usual life.
pub fn delays(setting: Setting, designs: &[Design], times: f64, trials: usize) -> Vec<Found> {
    let mut all = vec![Found::default(); designs.len()];
    let mut learned = None;
    for trial in 0..trials {
        // Other nodes and flows now and then, since no two streams are the same.
        if trial % 50 == 0 {
            let seed = setting.seed + trial as u64;
            let mut world = World::new(Setting { seed, ..setting }, designs, 12 * HOUR_MS);
            world.run(900_000);
            learned = Some(world);
        }
        let Some(mut world) = learned.clone() else {
            break;
        };
        let seed = (setting.seed << 32) + trial as u64;
        world.reseed(seed);
        let mut random = SmallRng::seed_from_u64(!seed);
        world.run(2_000 + random.random_range(0..10_000) / setting.pulse_ms * setting.pulse_ms);
        let early: Vec<_> = world
            .watchers
            .iter_mut()
            .map(|watcher| {
                watcher.outcome = Outcome::default();
                watcher.detector.suspected().is_some()
            })
            .collect();
        let part: f64 = random.random();
        let change_ms = world.now_ms + ((1.0 - part) * setting.pulse_ms as f64) as u64;
        world.times = times;
        world.pulse(part);
        while world.now_ms < change_ms + WAIT_MS && !world.watchers.iter().all(done) {
            world.pulse(1.0);
        }
        for ((found, watcher), early) in all.iter_mut().zip(&world.watchers).zip(early) {
            if early {
                found.early += 1;
                continue;
            }
            let outcome = &watcher.outcome;
            let first = outcome.suspects.first().map(|(at_ms, _)| *at_ms);
            found.suspected.add(first, change_ms);
            found
                .agreed
                .add(outcome.agreements_ms.first().copied(), change_ms);
            found.page.add(outcome.pages_ms.first().copied(), change_ms);
        }
    }
    for found in &mut all {
        for delays in [&mut found.suspected, &mut found.agreed, &mut found.page] {
            delays.ms.sort_unstable();
        }
    }
    all
}

fn done(watcher: &super::world::Watcher) -> bool {
    let outcome = &watcher.outcome;
    !(outcome.suspects.is_empty()
        || outcome.agreements_ms.is_empty()
        || outcome.pages_ms.is_empty())
}
