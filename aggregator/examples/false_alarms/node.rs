//! A simulated node: its flows, the wandering of its loss, and what happens to it.
//!
//! Input: time, load and the level of loss that all nodes share. Output: pulses (two while its sampling rate changes), and sums for the rule.
//!
//! * Usual loss: log-normal around the stream's (σ 0.3), as paths differ.
//! * It wanders: by σ 0.15 within seconds, by σ 0.25 within half an hour.
//! * Once a day its route changes for good: half as much again, or back.
//! * Twice an hour a queue on its way overflows for 100 to 300 ms: 2 to 4 times the loss of that moment. That is real, and over before
//!   anybody could look.
//! * Segments' births swing the load, and the loss with it: a quarter of it goes with the load of the moment.

use rand::Rng;
use rand::rngs::SmallRng;
use sampler_event::{GROUPS, StreamPulse};

use super::Setting;
use super::chance::{Wander, log_normal};
use super::day::{self, DAY_MS, HOUR_MS};
use super::flows::Flows;

/// The level of hours stays below so many times the stream's: a rule has its threshold above what usual life brings.
const MOST_USUAL: f64 = 2.0;

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    instance: u64,
    ratio: f64,
    flows: Flows,
    fast: Wander,
    slow: Wander,
    slow_factor: f64,
    /// Its clock is ahead of the true time by so much, ms.
    clock_ms: i64,
    /// Times of the day, ms.
    drain_ms: u64,
    restart_ms: u64,
    route_ms: u64,
    rate_ms: u64,
    route: f64,
    /// The overflowing queue: factor, and until when.
    brief: (f64, u64),
    pulse: StreamPulse,
}

/// What one moment has in store for all nodes.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// True time, Unix ms.
    pub now_ms: u64,
    /// Flows that this node is to have.
    pub flows: f64,
    /// Loss in multiples of the usual one, of hours.
    pub level: f64,
    /// Loss in multiples of that, of the moment.
    pub times: f64,
}

impl Node {
    /// By its number.
    pub fn new(number: usize, setting: &Setting, now_ms: u64, random: &mut SmallRng) -> Self {
        let mut time = || random.random_range(2 * HOUR_MS..23 * HOUR_MS);
        let (drain_ms, restart_ms, route_ms, rate_ms) = (time(), time(), time(), time());
        Self {
            instance: random.random(),
            ratio: log_normal(setting.ratio, 0.3, random).min(2.0 * setting.ratio),
            flows: Flows::new(setting, now_ms),
            fast: Wander::new(0.15, 3_000.0, setting.pulse_ms),
            slow: Wander::new(0.25, 1_800_000.0, 1_000),
            slow_factor: 1.0,
            clock_ms: if number == 0 { setting.clock_ms } else { 0 },
            drain_ms,
            restart_ms,
            route_ms,
            rate_ms,
            route: 1.0,
            brief: (1.0, 0),
            pulse: StreamPulse {
                node: format!("edge-{number}"),
                pulse_ms: setting.pulse_ms as u32,
                observed_ms: setting.pulse_ms as u32,
                ..StreamPulse::default()
            },
        }
    }

    /// Part of the usual share of viewers that it takes.
    pub fn serving(&self, day_ms: u64) -> f64 {
        let since = day_ms.checked_sub(self.drain_ms);
        since.map_or(1.0, |ms| day::drained(ms as f64))
    }

    /// Part of its flows that its daemon sees.
    fn seen(&self, day_ms: u64) -> f64 {
        let since = day_ms.checked_sub(self.restart_ms);
        since.map_or(1.0, |ms| day::seen_again(ms as f64))
    }

    fn happen(&mut self, day_ms: u64, setting: &Setting, random: &mut SmallRng) {
        if day_ms == self.restart_ms / 1_000 * 1_000 {
            self.instance = random.random();
            self.flows.forget();
        }
        if day_ms == self.route_ms / 1_000 * 1_000 {
            self.route = if random.random() { 1.5 } else { 0.67 };
        }
        if day_ms == self.rate_ms / 1_000 * 1_000 && setting.rate_changes {
            self.flows.turn_rate();
        }
    }

    /// Retransmits of the pulse in the mean, and its traffic: a retransmit counts when it is sent, as the rule counts it.
    pub fn truth(&self) -> [f64; 2] {
        let sent = self.flows.cells.iter().flat_map(|cell| &cell.x);
        [self.flows.expected, f64::from(sent.sum::<u32>())]
    }

    /// Whether a queue on its way overflows, or did within the second before.
    pub fn is_brief(&self, now_ms: u64) -> bool {
        now_ms < self.brief.1 + 1_000
    }

    /// Lives through a pulse and hands over what it says.
    pub fn pulse(
        &mut self,
        setting: &Setting,
        moment: &Moment,
        random: &mut SmallRng,
        mut say: impl FnMut(&StreamPulse, &[u32; GROUPS]),
    ) {
        let now_ms = moment.now_ms;
        let mut target = moment.flows;
        if setting.day {
            let day_ms = now_ms % DAY_MS;
            if day_ms.is_multiple_of(1_000) {
                self.happen(day_ms, setting, random);
            }
            target *= self.seen(day_ms);
            if random.random_bool(setting.pulse_ms as f64 / (HOUR_MS / 2) as f64) {
                let length_ms = random.random_range(100..=300);
                self.brief = (random.random_range(2.0..4.0), now_ms + length_ms);
            }
        }
        if now_ms.is_multiple_of(1_000) {
            self.slow_factor = self.slow.step(random);
        }
        let brief = if now_ms < self.brief.1 {
            self.brief.0
        } else {
            1.0
        };
        let load = self.flows.load();
        let usual = self.ratio * moment.level * self.route * self.slow_factor;
        let usual = usual.min(MOST_USUAL * setting.ratio);
        let times = moment.times * brief * self.fast.step(random) * (0.75 + 0.25 * load);
        self.flows.pulse(target, usual * times, random);
        for epoch in 0..2 {
            let cell = &self.flows.cells[epoch];
            let (retrans, sent) = (cell.y.iter().sum::<u32>(), cell.x.iter().sum::<u32>());
            // Who has nothing to say says nothing.
            if retrans + sent == 0 || random.random_bool(setting.lost) {
                continue;
            }
            let pulse = &mut self.pulse;
            pulse.instance = self.instance;
            pulse.pulse_start_ms = now_ms.saturating_add_signed(self.clock_ms);
            pulse.sampling_rate = setting.sampling_rate / (1 + epoch) as f64;
            pulse.rate_epoch = epoch as u32;
            pulse.retrans_segs = retrans.into();
            pulse.data_segs_out = sent.into();
            pulse.flows_active = cell.active;
            pulse.g_retrans_segs.clear();
            if retrans > 0 {
                pulse.g_retrans_segs.extend(cell.y);
            }
            say(pulse, &cell.x);
        }
    }
}
