//! A simulated stream whose pulses and windows go through the detector and a rule as real ones do.
//!
//! Input: a setting and a seed. Output: suspicions, agreements and pages. Players fetch segments in bursts every four seconds; losses come
//! in clusters of one flow, their retransmits one to five pulses later; the level of each node wanders, also together with the
//! others'; now and then one flow goes wrong by itself. A day has its tide of viewers, a match that ends, nodes that drain and
//! daemons that begin anew. Nothing in it is an incident but what is asked for.

use std::collections::VecDeque;

use aggregator::alert::{
    Change, Design, Episode, Key, Kind, Observation, Rule, RuleMetric, StreamDetector,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, LogNormal, Poisson, StandardNormal};
use sampler_event::{GROUPS, Options, Sample, StreamPulse, ratio};

/// Length of a pulse, ms.
pub const PULSE_MS: u64 = 100;
/// Length of a day, ms.
pub const DAY_MS: u64 = 86_400_000;
const HOUR_MS: u64 = 3_600_000;
/// Begin and end of the match, ms of the day.
const KICK_OFF_MS: u64 = 20 * HOUR_MS - 900_000;
const WHISTLE_MS: u64 = 22 * HOUR_MS - 900_000;
/// Segments of a flow in a pulse: 6 Mbit/s of 1,400 bytes.
const SEGMENTS: f64 = 53.5;
/// Mean retransmits of one loss event.
const CLUSTER: f64 = 2.5;
const SAMPLING_RATE: f64 = 0.1;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Nodes of the stream.
    pub nodes: usize,
    /// Sampled flows of all nodes, at the top of a usual day.
    pub flows: f64,
    /// Usual ratio of retransmits, median of the nodes.
    pub ratio: f64,
    /// Whether there is a tide, a match, drains and restarts.
    pub day: bool,
    /// Seed of the random numbers.
    pub seed: u64,
}

#[derive(Clone)]
struct Node {
    name: String,
    instance: u64,
    ratio: f64,
    phase_ms: u64,
    /// Share of the flows that each group has.
    shares: [f64; GROUPS],
    /// Wandering logarithm of its level.
    wander: f64,
    /// Retransmits that are due in this and the next pulses.
    due: VecDeque<[u32; GROUPS]>,
    /// The flow that goes wrong: its group and the pulses it has left.
    wrong: Option<(usize, u32)>,
    /// Drain and restart of the day, ms of the day.
    drain_ms: u64,
    restart_ms: u64,
}

/// Sums of one second of one node.
#[derive(Clone, Copy, Default)]
struct Second {
    flows: u64,
    y: [u64; GROUPS],
    x: [u64; GROUPS],
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// End of the pulse at which each suspicion began, ms.
    pub suspects_ms: Vec<u64>,
    /// When nodes agreed, ms.
    pub agreements_ms: Vec<u64>,
    /// When the alert went on, ms.
    pub pages_ms: Vec<u64>,
}

/// A stream with its detector and its alert.
#[derive(Clone)]
pub struct Simulation {
    setting: Setting,
    random: StdRng,
    nodes: Vec<Node>,
    /// Wandering logarithm of the level of all nodes.
    wander: f64,
    /// Multiple of the level that is in force.
    pub times: f64,
    /// The time, ms.
    pub now_ms: u64,
    detector: StreamDetector,
    rule: Rule,
    episode: Episode,
    seconds: VecDeque<Vec<Second>>,
    /// What came of it so far.
    pub outcome: Outcome,
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

impl Node {
    fn new(number: usize, setting: &Setting, random: &mut StdRng) -> Self {
        let level = LogNormal::new(setting.ratio.ln(), 0.3).expect("a distribution");
        let size = LogNormal::new(0.0, 0.4).expect("a distribution");
        let sizes: [f64; GROUPS] = std::array::from_fn(|_| size.sample(random));
        let all: f64 = sizes.iter().sum();
        Self {
            name: format!("edge-{number}"),
            instance: random.random(),
            ratio: level.sample(random).min(2.0 * setting.ratio),
            phase_ms: random.random_range(0..4_000),
            shares: sizes.map(|size| size / all),
            wander: 0.0,
            due: VecDeque::from([[0; GROUPS]; 6]),
            wrong: None,
            drain_ms: random.random_range(2 * HOUR_MS..23 * HOUR_MS),
            restart_ms: random.random_range(2 * HOUR_MS..23 * HOUR_MS),
        }
    }

    /// Part of its usual flows that it has: it drains in half a minute, and is back after ten.
    fn serving(&self, day_ms: u64) -> f64 {
        let since_ms = |moment_ms: u64| day_ms.checked_sub(moment_ms).map(|ms| ms as f64);
        let drained = since_ms(self.drain_ms).map_or(1.0, |ms| match ms {
            ms if ms < 600_000.0 => (1.0 - ms / 30_000.0).max(0.0),
            ms => ((ms - 600_000.0) / 30_000.0).min(1.0),
        });
        // After a restart only new connections are sampled.
        let sampled = since_ms(self.restart_ms).map_or(1.0, |ms| 1.0 - (-ms / 180_000.0).exp());
        drained * sampled
    }

    /// Multiple of the mean traffic: a burst after each segment is there, and the rest.
    fn burst(&self, now_ms: u64) -> f64 {
        match (now_ms + self.phase_ms / 8) % 4_000 {
            0..1_600 => 1.75,
            _ => 0.5,
        }
    }
}

/// Viewers by the time of day; 1 at the top of a usual evening.
fn audience(day_ms: u64) -> f64 {
    let tide = 0.55 - 0.45 * (day_ms as f64 / DAY_MS as f64 * std::f64::consts::TAU + 0.8).cos();
    let come = (day_ms.saturating_sub(KICK_OFF_MS) as f64 / 300_000.0).min(1.0);
    let gone = day_ms.saturating_sub(WHISTLE_MS) as f64;
    let left = if gone > 0.0 {
        (-gone / 20_000.0).exp()
    } else {
        1.0
    };
    // What stays behind is a twentieth, and the usual tide comes back within the hour.
    let back = (gone / HOUR_MS as f64).min(1.0);
    let base = if gone > 0.0 {
        tide * (0.05 + 0.95 * back)
    } else {
        tide
    };
    base.max(tide * left) + 2.0 * come * left
}

impl Simulation {
    /// Begins at a time of the day, ms.
    pub fn new(setting: Setting, begin_ms: u64) -> Self {
        let mut random = StdRng::seed_from_u64(setting.seed);
        let nodes = (0..setting.nodes)
            .map(|number| Node::new(number, &setting, &mut random))
            .collect();
        let rule = rule();
        let key = Key {
            rule: rule.name.clone(),
            site: "ams1".to_owned(),
            stream: "sport-1".to_owned(),
        };
        Self {
            setting,
            random,
            nodes,
            wander: 0.0,
            times: 1.0,
            // No event may lie at the zero of time.
            now_ms: DAY_MS + begin_ms,
            detector: StreamDetector::new(Design::default()),
            rule,
            episode: Episode::new(key, 1),
            seconds: VecDeque::new(),
            outcome: Outcome::default(),
        }
    }

    /// Other random numbers from here on.
    pub fn reseed(&mut self, seed: u64) {
        self.random = StdRng::seed_from_u64(seed);
    }

    /// Lets the time pass.
    pub fn run(&mut self, length_ms: u64) {
        for _ in 0..length_ms / PULSE_MS {
            self.pulse();
        }
    }

    fn pulse(&mut self) {
        let day_ms = self.now_ms % DAY_MS;
        let load = if self.setting.day {
            audience(day_ms)
        } else {
            1.0
        };
        let flows = load * self.setting.flows / self.setting.nodes as f64;
        self.wander = wander(self.wander, 0.1, 5_000.0, &mut self.random);
        let whole_second = self.now_ms.is_multiple_of(1_000);
        if whole_second {
            self.rule_step();
            let nodes = self.nodes.len();
            self.seconds.push_back(vec![Second::default(); nodes]);
            if self.seconds.len() > 10 {
                self.seconds.pop_front();
            }
        }
        // Busy networks lose more.
        let level = self.times * self.wander.exp() * (0.8 + 0.2 * load.min(3.0));
        for index in 0..self.nodes.len() {
            let pulse = self.node_pulse(index, flows, level);
            let Some(pulse) = pulse else { continue };
            let now_ms = self.now_ms + PULSE_MS + 50;
            for change in self.detector.take(&pulse) {
                match change {
                    Change::Began(found) => self.outcome.suspects_ms.push(found.at_ms),
                    Change::Agreed(found) => {
                        self.outcome.agreements_ms.push(found.suspicion.at_ms);
                        let fired = self.episode.agree(&self.rule, &found, now_ms);
                        self.outcome
                            .pages_ms
                            .extend(fired.map(|fired| fired.said_ms));
                    }
                    Change::Ended { .. } => {}
                }
            }
        }
        self.now_ms += PULSE_MS;
    }

    fn node_pulse(&mut self, index: usize, flows: f64, level: f64) -> Option<StreamPulse> {
        let (now_ms, random) = (self.now_ms, &mut self.random);
        let node = &mut self.nodes[index];
        node.wander = wander(node.wander, 0.15, 3_000.0, random);
        let mut flows = flows;
        if self.setting.day {
            let day_ms = now_ms % DAY_MS;
            flows *= node.serving(day_ms);
            if day_ms.abs_diff(node.restart_ms) < PULSE_MS / 2 {
                node.instance = random.random();
            }
        }
        let jitter: f64 = random.sample(StandardNormal);
        let sent = flows * SEGMENTS * node.burst(now_ms) * (0.1 * jitter).exp();
        let lost = node.ratio * level * node.wander.exp();
        let mut x = [0u64; GROUPS];
        for (group, x) in x.iter_mut().enumerate() {
            let segments = poisson(sent * node.shares[group], random);
            *x = segments;
            let events = poisson(segments as f64 * lost / CLUSTER, random);
            for _ in 0..events {
                let retrans = cluster(random);
                let delay = match random.random_range(0..20) {
                    0..3 => 0,
                    3..12 => 1,
                    12..17 => 2,
                    17..19 => 3,
                    _ => 5,
                };
                node.due[delay][group] += retrans;
            }
        }
        // About once in ten minutes a flow loses most of what it sends, for a second or two.
        if node.wrong.is_none() && flows > 1.0 && random.random_bool(1.0 / 6_000.0) {
            node.wrong = Some((random.random_range(0..GROUPS), random.random_range(5..20)));
        }
        if let Some((group, left)) = node.wrong {
            node.due[0][group] += random.random_range(5..40);
            node.wrong = (left > 1).then_some((group, left - 1));
        }
        let due = node.due.pop_front().unwrap_or_default();
        node.due.push_back([0; GROUPS]);
        for group in 0..GROUPS {
            x[group] += u64::from(due[group]);
        }
        let y = due.map(u64::from);
        if let Some(second) = self.seconds.back_mut() {
            let second = &mut second[index];
            second.flows = second.flows.max(flows as u64);
            for group in 0..GROUPS {
                second.y[group] += y[group];
                second.x[group] += x[group];
            }
        }
        let pulse = StreamPulse {
            node: node.name.clone(),
            instance: node.instance,
            pulse_start_ms: now_ms,
            pulse_ms: PULSE_MS as u32,
            observed_ms: PULSE_MS as u32,
            sampling_rate: SAMPLING_RATE,
            retrans_segs: y.iter().sum(),
            data_segs_out: x.iter().sum(),
            flows_active: flows as u64,
            g_retrans_segs: due.to_vec(),
            ..StreamPulse::default()
        };
        // Who has nothing to say says nothing.
        (pulse.data_segs_out > 0).then_some(pulse)
    }

    /// The rule sees whole seconds, two seconds later.
    fn rule_step(&mut self) {
        let nodes = self.nodes.len();
        let samples: Vec<_> = (0..nodes)
            .map(|index| {
                let mut sample = Sample {
                    sampling_rate: SAMPLING_RATE,
                    flows: 0,
                    y: [0; GROUPS],
                    x: [0; GROUPS],
                };
                for second in self.seconds.iter().map(|nodes| &nodes[index]) {
                    sample.flows = sample.flows.max(second.flows);
                    for group in 0..GROUPS {
                        sample.y[group] += second.y[group];
                        sample.x[group] += second.x[group];
                    }
                }
                sample
            })
            .collect();
        let options = Options {
            min_flows: self.rule.min_flows,
            ..Options::default()
        };
        let observation = Observation {
            at_ms: self.now_ms,
            estimate: ratio(&samples, &options),
            provisional: false,
            nodes_expected: nodes as u64,
            nodes_reported: nodes as u64,
        };
        let now_ms = self.now_ms + 2_000;
        let notices = self.episode.observe(&self.rule, &observation, now_ms);
        let fired = notices.iter().filter(|notice| notice.kind == Kind::Fired);
        self.outcome
            .pages_ms
            .extend(fired.map(|notice| notice.said_ms));
    }
}

/// An autoregressive walk of a logarithm with a standard deviation and a memory, ms.
fn wander(now: f64, deviation: f64, memory_ms: f64, random: &mut StdRng) -> f64 {
    let keep = (-(PULSE_MS as f64) / memory_ms).exp();
    let step: f64 = random.sample(StandardNormal);
    now * keep + step * deviation * (1.0 - keep * keep).sqrt()
}

fn poisson(mean: f64, random: &mut StdRng) -> u64 {
    match Poisson::new(mean) {
        Ok(poisson) => poisson.sample(random) as u64,
        Err(_) => 0,
    }
}

/// Retransmits of one loss event: geometric.
fn cluster(random: &mut StdRng) -> u32 {
    let mut retrans = 1;
    while retrans < 30 && random.random_bool(1.0 - 1.0 / CLUSTER) {
        retrans += 1;
    }
    retrans
}

/// Delays of one kind, ms from the change; what did not come within the time is missing.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    /// Sorted.
    pub ms: Vec<u64>,
    /// Trials.
    pub trials: usize,
}

impl Delays {
    /// Nearest rank over all trials; none if it falls on one in which it did not come.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let rank = (q * self.trials as f64).ceil().max(1.0) as usize;
        self.ms.get(rank - 1).copied()
    }
}

/// Delays of suspicion, agreement and page when the level goes to `times` what it was, and how often there was a suspicion before.
pub fn delays(setting: Setting, times: f64, trials: usize) -> ([Delays; 3], usize) {
    let mut learned = Simulation::new(setting, 12 * HOUR_MS);
    learned.run(300_000);
    let mut found: [Delays; 3] = Default::default();
    let mut early = 0;
    for trial in 0..trials {
        let mut simulation = learned.clone();
        simulation.reseed(setting.seed + 1 + trial as u64);
        let lead_ms = 2_000 + simulation.random.random_range(0..100) * PULSE_MS;
        simulation.outcome = Outcome::default();
        simulation.run(lead_ms);
        if !simulation.outcome.suspects_ms.is_empty() {
            early += 1;
            continue;
        }
        let change_ms = simulation.now_ms;
        simulation.times = times;
        simulation.run(20_000);
        let outcome = &simulation.outcome;
        let firsts = [
            &outcome.suspects_ms,
            &outcome.agreements_ms,
            &outcome.pages_ms,
        ];
        for (delays, first) in found.iter_mut().zip(firsts) {
            delays.trials += 1;
            delays
                .ms
                .extend(first.first().map(|at_ms| at_ms - change_ms));
        }
    }
    found
        .iter_mut()
        .for_each(|delays| delays.ms.sort_unstable());
    (found, early)
}
