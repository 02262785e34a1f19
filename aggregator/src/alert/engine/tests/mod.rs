//! Whole runs of an engine: a site of three nodes, pulse by pulse and window by window.

mod owners;
mod rules;
mod suspects;

use sampler_event::{LifeCycle, NodeHeartbeat, StreamPulse, StreamState, StreamWindow};
use serde_json::Value;

use super::*;
use crate::alert::rule::tests::rule;
use crate::alert::rule::{Active, RuleMetric};
use crate::alert::{Ended, FiredBy, Kind};
use crate::input::Topic;
use crate::merge::LiveOptions;

const S: u64 = 1_000;
const BEGIN_MS: u64 = 1_795_000_000_000;
const STREAM: &str = "sport-1";
const NODES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];
/// Retransmits of a group of 100 segments in a second.
const LOW: u32 = 0;
const HIGH: u32 = 5;

fn short() -> Rule {
    Rule {
        over_s: 5,
        hold_ms: S,
        clear_for_ms: 2 * S,
        annotations: [("runbook_url".to_owned(), "https://wiki/loss".to_owned())].into(),
        ..rule()
    }
}

fn window(node: &str, start_ms: u64, sequence: u64, retrans: u32) -> StreamWindow {
    StreamWindow {
        node: node.to_owned(),
        site: "ams1".to_owned(),
        stream: STREAM.to_owned(),
        instance: 7,
        sequence,
        window_start_ms: start_ms,
        window_ms: 1_000,
        observed_ms: 1_000,
        sampling_rate: 0.5,
        rate_epoch: 1,
        flows_seen: 4,
        flows_active: 40,
        flows_active_10s: 40,
        flows_open: 40,
        flows_retransmitting: 20,
        retrans_segs: u64::from(retrans) * 16,
        data_segs_out: 1_600,
        g_retrans_segs: vec![retrans; 16],
        g_data_segs_out: vec![100; 16],
        ..StreamWindow::default()
    }
}

fn heartbeat(node: &str, start_ms: u64, next_sequence: u64, life: LifeCycle) -> NodeHeartbeat {
    NodeHeartbeat {
        node: node.to_owned(),
        site: "ams1".to_owned(),
        instance: 7,
        sequence: next_sequence,
        window_start_ms: start_ms,
        window_ms: 1_000,
        life_cycle: life.into(),
        streams: vec![StreamState {
            stream: STREAM.to_owned(),
            sampling_rate: 0.5,
            next_sequence,
            labels: [("customer".to_owned(), "acme".to_owned())].into(),
            ..StreamState::default()
        }],
        ..NodeHeartbeat::default()
    }
}

/// A site of three nodes, and one owner of all of it.
struct Run {
    live: Live,
    engine: Engine,
    nodes: Vec<&'static str>,
    now_ms: u64,
    sequence: u64,
    out: Vec<Out>,
}

impl Run {
    fn new(rules: Vec<Rule>) -> Self {
        let mut run = Self::idle(rules);
        run.engine.assign(0, &[], [], run.now_ms);
        run
    }

    /// Owns nothing.
    fn idle(rules: Vec<Rule>) -> Self {
        let rules = rules.into_iter().map(Arc::new).collect();
        Self {
            live: Live::new(LiveOptions::default()),
            engine: Engine::new("ams1", rules, Options::default()),
            nodes: NODES.to_vec(),
            now_ms: BEGIN_MS,
            sequence: 0,
            out: Vec::new(),
        }
    }

    fn window(&mut self, window: &StreamWindow) {
        self.engine.saw(STREAM, 0);
        self.live.add(window, self.now_ms);
    }

    fn heartbeat(&mut self, heartbeat: &NodeHeartbeat) {
        self.live.hear(heartbeat, self.now_ms);
        self.engine.heartbeat(heartbeat);
    }

    fn evaluate(&mut self) {
        self.engine.evaluate(&self.live, self.now_ms);
        self.out.extend(self.engine.take());
    }

    fn tick(&mut self) {
        self.engine.tick(&self.live, self.now_ms, true);
        self.out.extend(self.engine.take());
    }

    /// What the nodes did in the next second, heard at its end.
    fn second(&mut self, retrans: u32) {
        let start_ms = self.now_ms;
        self.now_ms += S;
        for node in self.nodes.clone() {
            self.window(&window(node, start_ms, self.sequence, retrans));
            self.heartbeat(&heartbeat(
                node,
                start_ms,
                self.sequence + 1,
                LifeCycle::Run,
            ));
        }
        self.sequence += 1;
        self.evaluate();
        self.tick();
    }

    /// Seconds of windows with something about them.
    fn windows(&mut self, count: u64, about: &dyn Fn(&mut StreamWindow)) -> &mut Self {
        for _ in 0..count {
            let start_ms = self.now_ms;
            self.now_ms += S;
            for node in self.nodes.clone() {
                let mut window = window(node, start_ms, self.sequence, LOW);
                window.g_busy_ms = vec![1_000; 16];
                window.rtt_source = 1;
                window.rtt_count = 800;
                window.rtt_counts = vec![200, 800];
                window.g_rtt_count = vec![50; 16];
                about(&mut window);
                self.window(&window);
                let next = self.sequence + 1;
                self.heartbeat(&heartbeat(node, start_ms, next, LifeCycle::Run));
            }
            self.sequence += 1;
            self.evaluate();
            self.tick();
        }
        self
    }

    fn seconds(&mut self, count: u64, retrans: u32) -> &mut Self {
        (0..count).for_each(|_| self.second(retrans));
        self
    }

    fn pulse(&mut self, node: &str, number: u64, retrans: u32) {
        let each = retrans / 16;
        let pulse = StreamPulse {
            node: node.to_owned(),
            stream: STREAM.to_owned(),
            instance: 7,
            pulse_start_ms: BEGIN_MS + number * 100,
            pulse_ms: 100,
            observed_ms: 100,
            sampling_rate: 0.1,
            retrans_segs: retrans.into(),
            data_segs_out: 4_000,
            flows_active: 60,
            g_retrans_segs: (0..16)
                .map(|g| each + u32::from(g < retrans % 16))
                .collect(),
            ..StreamPulse::default()
        };
        self.now_ms = pulse.pulse_start_ms + 110;
        self.engine.pulse(&pulse, 0, &self.live, self.now_ms);
        self.out.extend(self.engine.take());
    }

    /// Pulses of 0.5 % from nodes, for as long as it takes to know them.
    fn learn(&mut self, nodes: &[&str]) -> u64 {
        for number in 0..1_000 {
            for node in nodes {
                self.pulse(node, number, 16 + (number * 7 % 9) as u32);
            }
        }
        assert_eq!(self.kinds(), []);
        1_000
    }

    fn said(&self) -> Vec<&Said> {
        let said = self.out.iter().filter_map(|out| match out {
            Out::Say(said) => Some(&**said),
            _ => None,
        });
        said.collect()
    }

    /// What was said, repetitions left out.
    fn kinds(&self) -> Vec<Kind> {
        let repeated = [
            Kind::Repeated,
            Kind::ResolvedRepeated,
            Kind::SuspectRepeated,
        ];
        let kinds = self.said().into_iter().map(|s| s.record.notice.kind);
        kinds.filter(|kind| !repeated.contains(kind)).collect()
    }

    fn first(&self, kind: Kind) -> &Said {
        let said = self.said().into_iter();
        let mut said = said.filter(|said| said.record.notice.kind == kind);
        said.next()
            .unwrap_or_else(|| panic!("no {kind:?} in {:?}", self.kinds()))
    }

    /// The state topic as another owner finds it.
    fn state(&self) -> Vec<(String, Vec<u8>)> {
        let saved = self.out.iter().filter_map(|out| match out {
            Out::Save { key, value, .. } => Some((key.clone(), value.clone()?.into_bytes())),
            _ => None,
        });
        saved.collect()
    }

    /// Another owner that begins where this one is, and reads its history.
    fn successor(&mut self, rules: Vec<Rule>) -> Self {
        let mut next = Self::idle(rules);
        next.live = std::mem::replace(&mut self.live, Live::new(LiveOptions::default()));
        next.now_ms = self.now_ms;
        next.sequence = self.sequence;
        let state = self.state();
        next.engine.assign(0, &state, [Topic::Window], next.now_ms);
        next.tick();
        assert_eq!(
            next.kinds(),
            [],
            "nothing is said before the history is read"
        );
        next.engine.saw(STREAM, 0);
        next.engine
            .caught_up(Topic::Window, 0, &next.live, next.now_ms);
        next.out.extend(next.engine.take());
        next
    }
}
