//! A stream whose pulses go through detectors, and its windows through a rule, as real ones do.
//!
//! Input: a setting with its seed, and the designs to hold against each other. Output: for each of them when it suspected, when nodes agreed,
//! when the alert went out. Nothing in a day is an incident but what is named in [`Cause`].

use std::collections::VecDeque;

use aggregator::alert::{
    Change, Design, Episode, Key, Kind, Observation, Rule, RuleMetric, StreamDetector,
};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sampler_event::{GROUPS, Options, Sample, StreamPulse, ratio};

use super::chance::Wander;
use super::day::{self, DAY_MS, KICK_OFF_MS, RUSH_MS};
use super::node::{Moment, Node};

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Nodes of the stream.
    pub nodes: usize,
    /// Sampled flows of all nodes, at the top of a usual evening.
    pub flows: f64,
    /// Usual ratio of retransmits there, median of the nodes.
    pub ratio: f64,
    /// Standard deviation of the logarithm of flows' loss.
    pub skew: f64,
    /// Part of the time in which a player fetches.
    pub fetching: f64,
    /// Whether there is a tide, a match, drains, restarts, changed routes, overflowing queues.
    pub day: bool,
    /// Whether nodes halve their sampling rate once a day.
    pub rate_changes: bool,
    /// Multiple of the loss in the seconds after the kick-off.
    pub rush: f64,
    /// Rate of sampling.
    pub sampling_rate: f64,
    /// Length of a pulse, ms.
    pub pulse_ms: u64,
    /// The first node's clock is ahead of the true time, ms.
    pub clock_ms: i64,
    /// The first node's pulses arrive later than the others', ms.
    pub late_ms: u64,
    /// A change touches so many nodes, the first ones; 0: all.
    pub bad_nodes: usize,
    /// Part of the pulses that never arrive.
    pub lost: f64,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            nodes: 2,
            flows: 100.0,
            ratio: 0.005,
            skew: 1.0,
            fetching: 0.25,
            day: true,
            rate_changes: true,
            rush: 1.0,
            sampling_rate: 0.1,
            pulse_ms: 100,
            clock_ms: 0,
            late_ms: 0,
            bad_nodes: 0,
            lost: 0.001,
            seed: 1,
        }
    }
}

impl Setting {
    /// Whether a change touches a node.
    const fn is_bad(&self, number: usize) -> bool {
        self.bad_nodes == 0 || number < self.bad_nodes
    }
}

/// What lies behind a suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing: chance.
    None,
    /// The loss of a node really was twice to four times as high, for 100 to 300 ms.
    Brief,
    /// The crowd arrived: loss really was three times as high, for seconds.
    Rush,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Suspicions: when the deciding pulse was there, true time, ms, and cause.
    pub suspects: Vec<(u64, Cause)>,
    /// When nodes agreed, ms.
    pub agreements_ms: Vec<u64>,
    /// When the alert went on, ms.
    pub pages_ms: Vec<u64>,
    /// How many of them were right: the true ratio of the last ten seconds or of the last one was above the rule's bound.
    pub right: usize,
}

/// A detector and an alert that look on.
#[derive(Clone)]
pub struct Watcher {
    /// The detector.
    pub detector: StreamDetector,
    episode: Episode,
    /// What came of it so far.
    pub outcome: Outcome,
}

/// Sums of one node over the last ten seconds, a ring by second, by sampling rate.
#[derive(Clone, Default)]
struct Sums {
    ring: [[Second; 2]; 10],
}

#[derive(Clone, Copy, Default)]
struct Second {
    flows: u64,
    y: [u64; GROUPS],
    x: [u64; GROUPS],
}

/// A stream.
#[derive(Clone)]
pub struct World {
    setting: Setting,
    random: SmallRng,
    nodes: Vec<Node>,
    sums: Vec<Sums>,
    /// The level that all nodes share wanders by σ 0.1 within seconds, σ 0.2 within an hour.
    fast: Wander,
    slow: Wander,
    slow_factor: f64,
    /// Multiple of the loss that is in force; not of usual life.
    pub times: f64,
    /// True time, ms.
    pub now_ms: u64,
    rule: Rule,
    /// Retransmits in the mean, and segments, of the last seconds.
    truth: [[f64; 2]; 10],
    /// Pulses on their way, and when they are there.
    late: VecDeque<(u64, StreamPulse)>,
    /// Who looks on.
    pub watchers: Vec<Watcher>,
}

/// The rule of the shipped configuration.
fn rule() -> Rule {
    Rule {
        name: "retransmissions".to_owned(),
        streams: Vec::new(),
        metric: RuleMetric::RetransRatio,
        over_s: 10,
        above: 0.02,
        hold_ms: 2_000,
        clear_below: 0.014,
        clear_for_ms: 30_000,
        min_flows: 30,
        fast: true,
        active: None,
        severity: "page".to_owned(),
        labels: [].into(),
        annotations: [].into(),
    }
}

impl World {
    /// Begins at a time of the day, ms.
    pub fn new(setting: Setting, designs: &[Design], begin_ms: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(setting.seed);
        // No event may lie at the zero of time.
        let now_ms = DAY_MS + begin_ms;
        let nodes: Vec<_> = (0..setting.nodes)
            .map(|number| Node::new(number, &setting, now_ms, &mut random))
            .collect();
        let rule = rule();
        let key = Key {
            rule: rule.name.clone(),
            site: "ams1".to_owned(),
            stream: "sport-1".to_owned(),
        };
        let watchers = designs.iter().map(|design| Watcher {
            detector: StreamDetector::new(*design),
            episode: Episode::new(key.clone(), 1),
            outcome: Outcome::default(),
        });
        Self {
            setting,
            random,
            sums: vec![Sums::default(); nodes.len()],
            nodes,
            fast: Wander::new(0.1, 5_000.0, setting.pulse_ms),
            slow: Wander::new(0.2, 3_600_000.0, 1_000),
            slow_factor: 1.0,
            times: 1.0,
            now_ms,
            rule,
            truth: [[0.0; 2]; 10],
            late: VecDeque::new(),
            watchers: watchers.collect(),
        }
    }

    /// Other random numbers from here on.
    pub fn reseed(&mut self, seed: u64) {
        self.random = SmallRng::seed_from_u64(seed);
    }

    /// Lets the time pass.
    pub fn run(&mut self, length_ms: u64) {
        for _ in 0..length_ms / self.setting.pulse_ms {
            self.pulse(1.0);
        }
    }

    /// Lets one pulse pass, of which only a part has the loss that is in force, the rest the usual one.
    pub fn pulse(&mut self, part: f64) {
        let (setting, now_ms) = (self.setting, self.now_ms);
        if now_ms.is_multiple_of(1_000) {
            self.second();
        }
        let day_ms = now_ms % DAY_MS;
        let load = if setting.day {
            day::audience(day_ms)
        } else {
            1.0
        };
        let rush = setting.day && (KICK_OFF_MS..KICK_OFF_MS + RUSH_MS).contains(&day_ms);
        let change = 1.0 + part * (self.times - 1.0);
        let level = self.slow_factor * day::tide_of_loss(load);
        let rush = if rush { setting.rush } else { 1.0 };
        let usual = rush * self.fast.step(&mut self.random);
        let serving = |node: &Node| {
            if setting.day {
                node.serving(day_ms)
            } else {
                1.0
            }
        };
        let all: f64 = self.nodes.iter().map(serving).sum();
        let (cause, above) = (self.cause(day_ms), self.is_above());
        let second = (now_ms / 1_000 % 10) as usize;
        let at_ms = now_ms + setting.pulse_ms;
        while let Some((_, pulse)) = self.late.pop_front_if(|(due_ms, _)| *due_ms <= at_ms) {
            for watcher in &mut self.watchers {
                watcher.take(&pulse, cause, &self.rule, at_ms, above);
            }
        }
        // They do not come in the same order every time.
        let first = (now_ms / setting.pulse_ms) as usize;
        for index in 0..self.nodes.len() {
            let index = (first + index) % self.nodes.len();
            let node = &mut self.nodes[index];
            let moment = Moment {
                now_ms,
                flows: load * setting.flows / (setting.fetching + 0.17) * serving(node)
                    / all.max(0.01),
                level,
                times: if setting.is_bad(index) {
                    usual * change
                } else {
                    usual
                },
            };
            let (late, late_ms) = (&mut self.late, if index == 0 { setting.late_ms } else { 0 });
            let (sums, watchers) = (&mut self.sums[index].ring[second], &mut self.watchers);
            let rule = &self.rule;
            node.pulse(&setting, &moment, &mut self.random, |pulse, x| {
                sums[pulse.rate_epoch as usize].add(pulse, x);
                if late_ms > 0 {
                    return late.push_back((at_ms + late_ms, pulse.clone()));
                }
                for watcher in watchers.iter_mut() {
                    watcher.take(pulse, cause, rule, at_ms, above);
                }
            });
            let truth = self.nodes[index].truth();
            (0..2).for_each(|of| self.truth[second][of] += truth[of]);
        }
        self.now_ms += setting.pulse_ms;
    }

    /// Whether the true ratio is above the rule's bound: over ten seconds, or in this one or the one before.
    fn is_above(&self) -> bool {
        let now = (self.now_ms / 1_000 % 10) as usize;
        let ratio = |seconds: &[usize]| {
            let sum = |of: usize| seconds.iter().map(|at| self.truth[*at][of]).sum::<f64>();
            sum(0) / sum(1).max(1.0)
        };
        let last = [now, (now + 9) % 10];
        let all: [usize; 10] = std::array::from_fn(|at| at);
        ratio(&all) > self.rule.above
            || ratio(&last) > self.rule.above
            || ratio(&last[1..]) > self.rule.above
    }

    fn cause(&self, day_ms: u64) -> Cause {
        let rush = day_ms.checked_sub(KICK_OFF_MS);
        if rush.is_some_and(|ms| ms < RUSH_MS + 1_000) {
            return Cause::Rush;
        }
        let brief = self.nodes.iter().any(|node| node.is_brief(self.now_ms));
        if brief { Cause::Brief } else { Cause::None }
    }

    /// The rule sees whole seconds, two seconds later.
    fn second(&mut self) {
        self.slow_factor = self.slow.step(&mut self.random);
        let mut samples = Vec::with_capacity(2 * self.nodes.len());
        for sums in &self.sums {
            for epoch in 0..2 {
                let rate = self.setting.sampling_rate / (1 + epoch) as f64;
                samples.extend(sums.sample(epoch, rate));
            }
        }
        let above = self.is_above();
        let next = (self.now_ms / 1_000 % 10) as usize;
        self.truth[next] = [0.0; 2];
        self.sums
            .iter_mut()
            .for_each(|sums| sums.ring[next] = Default::default());
        let options = Options {
            min_flows: self.rule.min_flows,
            ..Options::default()
        };
        let observation = Observation {
            at_ms: self.now_ms,
            estimate: ratio(&samples, &options),
            provisional: false,
            nodes_expected: self.nodes.len() as u64,
            nodes_reported: self.nodes.len() as u64,
        };
        let now_ms = self.now_ms + 2_000;
        for watcher in &mut self.watchers {
            let notices = watcher.episode.observe(&self.rule, &observation, now_ms);
            let fired = notices.iter().filter(|notice| notice.kind == Kind::Fired);
            let pages = &mut watcher.outcome.pages_ms;
            let before = pages.len();
            pages.extend(fired.map(|notice| notice.said_ms));
            watcher.outcome.right += if above { pages.len() - before } else { 0 };
        }
    }
}

impl Second {
    fn add(&mut self, pulse: &StreamPulse, x: &[u32; GROUPS]) {
        self.flows = self.flows.max(pulse.flows_active);
        for (sum, x) in self.x.iter_mut().zip(x) {
            *sum += u64::from(*x);
        }
        for (sum, y) in self.y.iter_mut().zip(&pulse.g_retrans_segs) {
            *sum += u64::from(*y);
        }
    }
}

impl Sums {
    fn sample(&self, epoch: usize, sampling_rate: f64) -> Option<Sample> {
        let mut sample = Sample {
            sampling_rate,
            flows: 0,
            y: [0; GROUPS],
            x: [0; GROUPS],
        };
        for second in self.ring.iter().map(|epochs| &epochs[epoch]) {
            sample.flows = sample.flows.max(second.flows);
            for group in 0..GROUPS {
                sample.y[group] += second.y[group];
                sample.x[group] += second.x[group];
            }
        }
        (sample.flows > 0).then_some(sample)
    }
}

impl Watcher {
    /// Takes in a pulse that is there at `at_ms`; an alert goes out a little later.
    fn take(&mut self, pulse: &StreamPulse, cause: Cause, rule: &Rule, at_ms: u64, above: bool) {
        for change in self.detector.take(pulse) {
            match change {
                Change::Began(_) => self.outcome.suspects.push((at_ms, cause)),
                Change::Agreed(found) => {
                    self.outcome.agreements_ms.push(at_ms);
                    let fired = self.episode.agree(rule, &found, at_ms + 50);
                    let said = fired.map(|fired| fired.said_ms);
                    self.outcome.right += usize::from(said.is_some() && above);
                    self.outcome.pages_ms.extend(said);
                }
                Change::Ended { .. } => {}
            }
        }
    }
}
