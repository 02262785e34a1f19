//! The sampled flows of one node: what they send, lose and send again.
//!
//! Input: how many flows there are to be and the level of loss, pulse by pulse. Output: segments and retransmits of the pulse, by random
//! group and sampling rate. Each choice, and why it is plausible:
//!
//! * A player fetches a segment of 4 s at 6 Mbit/s every 4 s, in about a second (its line has some 24 Mbit/s), and is silent for the
//!   rest. Live segments come into being at one moment for all; players find them by polling, soon after it or up to 4 s later. So the
//!   traffic of a stream swings between a third and twice its mean.
//! * Flows are unequal: the loss of a flow is log-normal around that of its node (σ = 1: half of the loss is in a sixth of the flows;
//!   σ = 1.5: in a fifteenth). What few flows lose together comes and goes with their fetches. The estimators' random groups exist
//!   for the same reason.
//! * Losses come in clusters of one flow, as a full queue drops neighbours: 2.5 segments in the mean, and one cluster in a hundred is a
//!   whole window of 10 to 60. Retransmits come a round trip later (30 to 150 ms), one in eight after a timer (200 to 600 ms).
//! * The first fetch of a connection loses twice as much: its slow start overshoots.
//! * A viewer stays 20 minutes. A lower sampling rate is for new flows only, so for a while a node has two pulses.
//! * About once in ten minutes and node a flow loses most of what it sends, for half a second to two.

use std::array;

use rand::Rng;
use rand::rngs::SmallRng;
use sampler_event::GROUPS;

use super::Setting;
use super::chance::{log_normal, poisson};

/// Time between two segments of a player, ms.
pub const SEGMENT_MS: u64 = 4_000;
/// TCP segments of one of them: 4 s of 6 Mbit/s in 1,400 bytes.
const TCP_SEGMENTS: f64 = 2_140.0;
/// Weights of flows and segments are whole numbers, so that what is added and taken away again leaves nothing: parts of one.
const UNIT: f64 = 1e6;
/// Mean retransmits of one loss, clusters and whole windows together.
const CLUSTER: f64 = 2.825;
/// How long a viewer stays, ms.
const STAY_MS: f64 = 1_200_000.0;
/// Delays of retransmits, ms, equally likely.
const DELAYS_MS: [f64; 16] = [
    30.0, 30.0, 30.0, 40.0, 40.0, 50.0, 50.0, 60.0, 70.0, 80.0, 100.0, 100.0, 120.0, 150.0, 250.0,
    500.0,
];
/// Pulses ahead for which fetches and retransmits can be planned.
const AHEAD: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    group: u8,
    epoch: u8,
    /// Delay of its fetches behind the segment's birth, pulses.
    poll: u8,
    fresh: bool,
    /// Its loss, in multiples of the node's.
    weight: f64,
    /// While it fetches: segments per pulse and expected loss, parts of [`UNIT`].
    sends: u64,
    loses: u64,
}

/// Sums over the flows of one sampling rate.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// Segments per pulse now, parts of [`UNIT`].
    sends: [u64; GROUPS],
    loses: [u64; GROUPS],
    alive: usize,
    fetching: u64,
    /// Flows that sent in this second, so far.
    pub active: u64,
    /// Segments of the pulse.
    pub x: [u32; GROUPS],
    /// Retransmits of the pulse.
    pub y: [u32; GROUPS],
}

/// Flows of a node.
#[derive(Clone, Debug)]
pub struct Flows {
    pulse_ms: u64,
    skew: f64,
    fetching: f64,
    flows: Vec<Flow>,
    free: Vec<u16>,
    /// Flows that begin (even) or end (odd) a fetch, by pulse.
    plan: Vec<Vec<u32>>,
    due: [[[u32; GROUPS]; AHEAD]; 2],
    /// By sampling rate.
    pub cells: [Cell; 2],
    /// The rate that new flows get.
    epoch: usize,
    wrong: Option<(usize, u64)>,
    number: u64,
    /// Retransmits to come in the mean, by pulse.
    due_mean: [f64; AHEAD],
    /// Retransmits of this pulse in the mean, of what was sent in it and before.
    pub expected: f64,
}

impl Flows {
    /// None yet.
    pub fn new(setting: &Setting, now_ms: u64) -> Self {
        let pulse_ms = setting.pulse_ms;
        Self {
            pulse_ms,
            skew: setting.skew,
            fetching: setting.fetching,
            flows: Vec::new(),
            free: Vec::new(),
            plan: vec![Vec::new(); AHEAD],
            due: [[[0; GROUPS]; AHEAD]; 2],
            cells: Default::default(),
            epoch: 0,
            wrong: None,
            number: now_ms / pulse_ms,
            due_mean: [0.0; AHEAD],
            expected: 0.0,
        }
    }

    /// Flows now.
    pub fn alive(&self) -> usize {
        self.cells.iter().map(|cell| cell.alive).sum()
    }

    /// Traffic of the moment in multiples of its mean.
    pub fn load(&self) -> f64 {
        let cells = self.cells.iter();
        let now: u64 = cells.map(|cell| cell.sends.iter().sum::<u64>()).sum();
        let mean = TCP_SEGMENTS * (self.pulse_ms as f64 / SEGMENT_MS as f64);
        match self.alive() {
            0 => 1.0,
            alive => now as f64 / UNIT / (alive as f64 * mean),
        }
    }

    /// New flows get the other rate from here on.
    pub fn turn_rate(&mut self) {
        self.epoch = 1;
    }

    /// All of them are lost from sight.
    pub fn forget(&mut self) {
        self.flows.clear();
        self.free.clear();
        self.plan.iter_mut().for_each(Vec::clear);
        self.cells = Default::default();
    }

    /// The next pulse, with so many flows and expected retransmits per segment.
    pub fn pulse(&mut self, target: f64, ratio: f64, random: &mut SmallRng) {
        let bucket = self.number as usize % AHEAD;
        let second = 1_000 / self.pulse_ms;
        if self.number.is_multiple_of(second) {
            for cell in &mut self.cells {
                cell.active = cell.fetching;
            }
        }
        let mut planned = std::mem::take(&mut self.plan[bucket]);
        for &entry in &planned {
            let slot = entry as usize / 2;
            self.end_fetch(slot);
            if entry % 2 == 0 {
                self.begin_or_leave(slot, target, random);
            }
        }
        planned.clear();
        self.plan[bucket] = planned;
        let missing = target - self.alive() as f64;
        if missing > 0.0 {
            let some =
                missing.floor() as u32 + u32::from(random.random_bool(missing.fract() * 0.1));
            // A tide comes in slowly, a crowd within seconds.
            for _ in 0..some.min(1 + (missing * 0.2) as u32) {
                self.join(random);
            }
        }
        self.lose(ratio, random);
        self.number += 1;
    }

    fn join(&mut self, random: &mut SmallRng) {
        let slot = self.free.pop().map_or_else(
            || {
                self.flows.push(Flow::default());
                self.flows.len() - 1
            },
            usize::from,
        );
        let mean = (self.skew * self.skew / 2.0).exp();
        let weight = log_normal(1.0 / mean, self.skew, random).min(20.0);
        let late: f64 = match random.random() {
            true => random.random(),
            false => random.random::<f64>().min(random.random()),
        };
        self.flows[slot] = Flow {
            group: random.random_range(0..GROUPS as u8),
            epoch: self.epoch as u8,
            poll: (late * (SEGMENT_MS / self.pulse_ms) as f64) as u8,
            fresh: true,
            weight,
            sends: 0,
            loses: 0,
        };
        self.cells[self.epoch].alive += 1;
        self.begin(slot, random);
    }

    fn begin_or_leave(&mut self, slot: usize, target: f64, random: &mut SmallRng) {
        let leaves =
            self.alive() as f64 > target + 1.0 || random.random_bool(SEGMENT_MS as f64 / STAY_MS);
        if leaves {
            self.cells[usize::from(self.flows[slot].epoch)].alive -= 1;
            self.free.push(slot as u16);
            return;
        }
        self.flows[slot].fresh = false;
        self.begin(slot, random);
    }

    /// Begins a fetch, and plans its end and the next one.
    fn begin(&mut self, slot: usize, random: &mut SmallRng) {
        let period = (SEGMENT_MS / self.pulse_ms) as f64;
        let pulses = log_normal(self.fetching * period, 0.5, random)
            .clamp(1.0, 0.95 * period)
            .round();
        let flow = &mut self.flows[slot];
        let sends = TCP_SEGMENTS / pulses;
        let weight = if flow.fresh { 2.0 } else { 1.0 } * flow.weight;
        flow.sends = (sends * UNIT) as u64;
        flow.loses = (sends * weight * UNIT) as u64;
        let cell = &mut self.cells[usize::from(flow.epoch)];
        cell.sends[usize::from(flow.group)] += flow.sends;
        cell.loses[usize::from(flow.group)] += flow.loses;
        cell.fetching += 1;
        cell.active += 1;
        let period = SEGMENT_MS / self.pulse_ms;
        let wobble = random.random_range(0..=100 / self.pulse_ms.min(100));
        let birth = (self.number / period + 1) * period;
        let next = (birth + u64::from(flow.poll) + wobble).max(self.number + pulses as u64 + 1);
        let next = next.min(self.number + AHEAD as u64 - 1);
        self.plan[(self.number as usize + pulses as usize) % AHEAD].push(slot as u32 * 2 + 1);
        self.plan[next as usize % AHEAD].push(slot as u32 * 2);
    }

    fn end_fetch(&mut self, slot: usize) {
        let flow = &mut self.flows[slot];
        if flow.sends == 0 {
            return;
        }
        let cell = &mut self.cells[usize::from(flow.epoch)];
        cell.sends[usize::from(flow.group)] -= flow.sends;
        cell.loses[usize::from(flow.group)] -= flow.loses;
        cell.fetching -= 1;
        flow.sends = 0;
        flow.loses = 0;
    }

    fn lose(&mut self, ratio: f64, random: &mut SmallRng) {
        let now = self.number as usize % AHEAD;
        let mut mean = 0.0;
        for epoch in 0..2 {
            let cell = &mut self.cells[epoch];
            if cell.alive > 0 {
                let all: u64 = cell.loses.iter().sum();
                let expected = all as f64 / UNIT * ratio;
                mean += expected;
                let losses = poisson(expected / CLUSTER, random);
                for _ in 0..losses {
                    let bits: u64 = random.random();
                    // The sum is too large for 64 bits times 32.
                    let mut at = ((u128::from(bits >> 32) * u128::from(all)) >> 32) as u64;
                    let group = cell.loses.iter().position(|loses| {
                        let here = at < *loses;
                        at = at.wrapping_sub(*loses);
                        here
                    });
                    let delay_ms = DELAYS_MS[bits as usize % 16];
                    let phase = f64::from((bits >> 4) as u16 & 0xff) / 256.0;
                    let delay = (phase + delay_ms / self.pulse_ms as f64) as usize;
                    let segments = cluster((bits >> 12) as u32 & 0xf_ffff, random);
                    self.due[epoch][(now + delay) % AHEAD][group.unwrap_or(0)] += segments;
                }
            }
        }
        self.expect(now, mean);
        self.expected = std::mem::take(&mut self.due_mean[now]);
        self.go_wrong(now, random);
        for epoch in 0..2 {
            let cell = &mut self.cells[epoch];
            cell.y = std::mem::take(&mut self.due[epoch][now]);
            let y = cell.y;
            cell.x = array::from_fn(|group| (cell.sends[group] / UNIT as u64) as u32 + y[group]);
        }
    }

    /// Lets so many retransmits come in the mean, with the delays of the real ones: begin and phase within a pulse are alike likely.
    fn expect(&mut self, now: usize, retrans: f64) {
        let each = retrans / DELAYS_MS.len() as f64;
        for delay_ms in DELAYS_MS {
            let pulses = delay_ms / self.pulse_ms as f64;
            let (whole, rest) = (now + pulses as usize, pulses.fract());
            self.due_mean[whole % AHEAD] += each * (1.0 - rest);
            self.due_mean[(whole + 1) % AHEAD] += each * rest;
        }
    }

    fn go_wrong(&mut self, now: usize, random: &mut SmallRng) {
        let pulse_ms = self.pulse_ms;
        if self.wrong.is_none() && self.alive() > 0 && random.random_bool(pulse_ms as f64 / 6e5) {
            let pulses = random.random_range(500..2_000) / pulse_ms;
            self.wrong = Some((random.random_range(0..GROUPS), pulses));
        }
        if let Some((group, left)) = self.wrong {
            self.due[self.epoch][now][group] += random.random_range(5..40) * pulse_ms as u32 / 100;
            self.wrong = (left > 1).then_some((group, left - 1));
        }
    }
}

/// Retransmits of one loss: geometric of mean 2.5, one in a hundred a whole window; by 20 random bits.
fn cluster(bits: u32, random: &mut SmallRng) -> u32 {
    if bits < 10_486 {
        return random.random_range(10..=60);
    }
    let (mut segments, mut more) = (1, 2_458);
    // Of 4,096 six tenths have more, of those again six tenths, and so on.
    while bits % 4_096 < more {
        segments += 1;
        more = more * 6 / 10;
    }
    segments
}
