use sampler_event::{StreamState, StreamWindow};
use serde_json::Value;

use super::*;
use crate::alert::rule::Active;
use crate::alert::rule::tests::rule;
use crate::alert::{Ended, FiredBy, Kind};
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

#[test]
fn rising_loss_fires_with_its_evidence_and_resolves() {
    let mut run = Run::new(vec![short()]);
    run.seconds(8, LOW).seconds(8, HIGH);
    assert_eq!(run.kinds(), [Kind::Pending, Kind::Fired]);
    run.seconds(10, LOW);
    assert_eq!(
        run.kinds(),
        [Kind::Pending, Kind::Fired, Kind::Resolving, Kind::Resolved]
    );
    let fired = run.first(Kind::Fired);
    let json: Value = serde_json::to_value(&fired.record).expect("JSON");
    for (name, value) in [
        ("kind", "fired"),
        ("state", "firing"),
        ("stream", STREAM),
        ("fired_by", "rule"),
    ] {
        assert_eq!(json[name], value, "{name}");
    }
    assert_eq!(json["worst_nodes"].as_array().map(Vec::len), Some(3));
    let annotations = &fired.record.annotations;
    for name in [
        "summary",
        "estimate",
        "onset",
        "completeness",
        "worst_nodes",
        "runbook_url",
    ] {
        assert!(annotations.contains_key(name), "{name}: {annotations:?}");
    }
    let all = format!("{annotations:?}");
    assert!(all.contains("acme"), "{all}");
    let alert = fired.alert.as_ref().expect("heard by Alertmanager");
    assert_eq!(alert.labels["severity"], "page");
    let resolved = run.first(Kind::Resolved);
    let (was, is) = (&fired.record.notice, &resolved.record.notice);
    assert_eq!(
        (&was.episode_id, was.starts_at_ms),
        (&is.episode_id, is.starts_at_ms)
    );
    assert_eq!(is.ended, Some(Ended::Cleared));
    assert!(is.duration_ms.is_some_and(|ms| ms >= 5 * S));
    assert!(is.peak.is_some_and(|peak| peak.value > 0.04));
    assert!(resolved.record.annotations.contains_key("duration"));
    let again = resolved.alert.as_ref().expect("heard by Alertmanager");
    assert_eq!(
        (&again.labels, &again.starts_at),
        (&alert.labels, &alert.starts_at)
    );
}

#[test]
fn a_second_is_judged_with_its_last_word_or_at_the_watermark() {
    let mut run = Run::new(vec![short()]);
    run.seconds(8, LOW);
    let begin = run.engine.counts().evaluations;
    let start_ms = run.now_ms;
    run.now_ms += S;
    let mut judged = Vec::new();
    for node in NODES {
        // The heartbeat overtakes the window that it names.
        run.heartbeat(&heartbeat(node, start_ms, run.sequence + 1, LifeCycle::Run));
        run.evaluate();
        judged.push(run.engine.counts().evaluations - begin);
    }
    assert_eq!(judged, [0, 0, 0], "windows are on their way");
    for node in NODES {
        run.window(&window(node, start_ms, run.sequence, LOW));
        run.evaluate();
        judged.push(run.engine.counts().evaluations - begin);
    }
    assert_eq!(judged[3..], [0, 0, 1]);
    run.sequence += 1;
    // One node hangs: its second waits for the watermark, two seconds behind the newest event, and no longer.
    run.nodes.pop();
    run.seconds(2, LOW);
    assert_eq!(run.engine.counts().evaluations - begin, 1);
    run.second(LOW);
    assert_eq!(run.engine.counts().evaluations - begin, 2);
}

#[test]
fn a_lost_window_delays_and_does_not_block() {
    let mut run = Run::new(vec![short()]);
    run.seconds(8, LOW);
    let begin = run.engine.counts().evaluations;
    // A sequence that never comes.
    run.sequence += 1;
    run.seconds(8, HIGH);
    assert!(run.engine.counts().evaluations - begin >= 6);
    assert_eq!(run.kinds(), [Kind::Pending, Kind::Fired]);
}

#[test]
fn flapping_is_one_episode() {
    let mut run = Run::new(vec![Rule {
        clear_for_ms: 20 * S,
        ..short()
    }]);
    run.seconds(8, LOW);
    for _ in 0..6 {
        run.seconds(6, HIGH).seconds(9, LOW);
    }
    run.seconds(30, LOW);
    let count = |wanted| {
        run.kinds()
            .into_iter()
            .filter(|kind| *kind == wanted)
            .count()
    };
    assert_eq!((count(Kind::Fired), count(Kind::Resolved)), (1, 1));
    assert!(count(Kind::Relapsed) >= 4, "{:?}", run.kinds());
}

#[test]
fn what_pulses_show_is_suspected_and_pages_nobody() {
    let mut run = Run::new(vec![Rule {
        fast: true,
        ..short()
    }]);
    let known = run.learn(&["edge-1"]);
    for number in known..known + 12 {
        run.pulse("edge-1", number, 120);
    }
    assert_eq!(run.kinds(), [Kind::Suspected]);
    assert_eq!(
        (run.engine.counts().suspects, run.engine.states().suspect),
        (1, 1)
    );
    let suspected = run.first(Kind::Suspected);
    let json: Value = serde_json::to_value(&suspected.record).expect("JSON");
    assert_eq!(
        (&json["kind"], &json["state"]),
        (&"suspected".into(), &"suspect".into())
    );
    let alert = suspected.alert.as_ref().expect("shown by Alertmanager");
    assert_eq!(alert.labels["severity"], "suspect");
    assert_eq!(alert.labels, suspected.record.labels);
    let onset_ms = suspected.record.notice.onset_ms;
    assert_eq!(onset_ms, BEGIN_MS + known * 100);
    for number in known + 12..known + 60 {
        run.pulse("edge-1", number, 18);
    }
    assert_eq!(run.kinds(), [Kind::Suspected, Kind::SuspectEnded]);
    assert_eq!(run.engine.states().suspect, 0);
}

#[test]
fn two_nodes_that_agree_fire() {
    let mut run = Run::new(vec![Rule {
        fast: true,
        ..short()
    }]);
    let known = run.learn(&["edge-1", "edge-2"]);
    for number in known..known + 10 {
        run.pulse("edge-1", number, 90);
        run.pulse("edge-2", number, 90);
    }
    assert_eq!(
        run.kinds(),
        [Kind::Suspected, Kind::SuspectEnded, Kind::Fired]
    );
    let fired = &run.first(Kind::Fired).record.notice;
    assert_eq!(fired.fired_by, Some(FiredBy::Nodes(2)));
    assert_eq!(fired.onset_ms, BEGIN_MS + known * 100);
    assert_eq!(run.engine.states().firing, 1);
}

#[test]
fn who_sends_nothing_is_missed_and_who_left_is_not() {
    let no_data = Rule {
        metric: RuleMetric::NoData,
        fast: false,
        ..short()
    };
    let mut run = Run::new(vec![no_data]);
    run.seconds(8, LOW);
    // One leaves on purpose: two are left, and one of them alone is no majority.
    let bye = heartbeat("edge-3", run.now_ms, run.sequence + 1, LifeCycle::Stopping);
    run.heartbeat(&bye);
    run.nodes = vec!["edge-1", "edge-2"];
    run.seconds(12, LOW);
    assert_eq!(run.kinds(), []);
    run.nodes.clear();
    run.seconds(12, LOW);
    assert_eq!(run.kinds(), [Kind::Pending, Kind::Fired]);
    let fired = run.first(Kind::Fired);
    let words = fired.record.annotations["worst_nodes"].as_str();
    assert_eq!(words, "edge-1 no data; edge-2 no data");
    run.nodes = vec!["edge-1", "edge-2"];
    run.seconds(12, LOW);
    assert_eq!(run.kinds().last(), Some(&Kind::Resolved));
}

#[test]
fn who_is_cut_off_misses_nobody() {
    let no_data = Rule {
        metric: RuleMetric::NoData,
        ..short()
    };
    let mut run = Run::new(vec![no_data]);
    run.seconds(8, LOW);
    for _ in 0..20 {
        run.now_ms += S;
        run.engine.tick(&run.live, run.now_ms, false);
        run.out.extend(run.engine.take());
    }
    assert_eq!(run.kinds(), []);
}

#[test]
fn a_rule_is_in_force_as_long_as_its_schedule() {
    let active = Active {
        begin_ms: BEGIN_MS + 20 * S,
        end_ms: BEGIN_MS + 40 * S,
    };
    let mut run = Run::new(vec![Rule {
        active: Some(active),
        ..short()
    }]);
    run.seconds(18, HIGH);
    assert_eq!(run.kinds(), []);
    run.seconds(12, HIGH);
    assert_eq!(run.kinds(), [Kind::Pending, Kind::Fired]);
    run.seconds(15, HIGH);
    assert_eq!(run.kinds().last(), Some(&Kind::Resolved));
    let ended = run.first(Kind::Resolved).record.notice.ended;
    assert_eq!(ended, Some(Ended::ScheduleOver));
}

#[test]
fn a_node_that_stops_is_not_waited_for() {
    let mut run = Run::new(vec![short()]);
    run.seconds(8, LOW);
    let bye = heartbeat("edge-3", run.now_ms, run.sequence, LifeCycle::Stopping);
    run.heartbeat(&bye);
    run.nodes.pop();
    let begin = run.engine.counts().evaluations;
    run.seconds(4, HIGH);
    assert!(run.engine.counts().evaluations - begin >= 3);
    run.seconds(6, HIGH);
    let fired = run.first(Kind::Fired);
    let words = &fired.record.annotations["completeness"];
    assert!(words.contains('2'), "{words}");
}

#[test]
fn flows_of_two_rates_weigh_what_they_stand_for() {
    let mut run = Run::new(vec![Rule {
        metric: RuleMetric::RetransSegs,
        above: 500.0,
        clear_below: 100.0,
        ..short()
    }]);
    run.seconds(8, LOW);
    for _ in 0..8 {
        let start_ms = run.now_ms;
        run.now_ms += S;
        for node in NODES {
            let first = window(node, start_ms, run.sequence, 1);
            let second = StreamWindow {
                sequence: run.sequence + 1,
                sampling_rate: 0.25,
                rate_epoch: 2,
                ..first.clone()
            };
            run.window(&first);
            run.window(&second);
            run.heartbeat(&heartbeat(node, start_ms, run.sequence + 2, LifeCycle::Run));
        }
        run.sequence += 2;
        run.evaluate();
        run.tick();
    }
    // 16 segments of one in two flows and 16 of one in four, three nodes, five seconds.
    let all = (16.0 / 0.5 + 16.0 / 0.25) * 3.0 * 5.0;
    run.seconds(10, LOW);
    let peak = run
        .first(Kind::Resolved)
        .record
        .notice
        .peak
        .expect("a peak");
    assert!((peak.value - all).abs() < 1e-6, "{peak:?}");
}

#[test]
fn who_does_not_own_it_says_nothing() {
    let mut run = Run::idle(vec![short()]);
    run.seconds(8, LOW).seconds(8, HIGH);
    assert_eq!(run.out, []);
    let mut run = Run::new(vec![short()]);
    run.seconds(8, LOW).seconds(8, HIGH);
    let said = run.said().len();
    // Our own claim, another site's, and then a later owner's.
    run.engine.hear_owner(0, "|ams1|", br#"{"owner_epoch":1}"#);
    run.engine.hear_owner(0, "|fra2|", br#"{"owner_epoch":9}"#);
    run.second(HIGH);
    assert_eq!(run.engine.states().firing, 1);
    run.engine.hear_owner(0, "|ams1|", br#"{"owner_epoch":2}"#);
    run.seconds(40, HIGH).seconds(20, LOW);
    assert_eq!(run.said().len(), said, "a zombie spoke");
    assert_eq!(run.engine.counts().superseded, 1);
    run.engine.revoke(0);
    assert_eq!(run.engine.take(), []);
}

#[test]
fn the_next_owner_goes_on_with_the_same_episode() {
    let mut run = Run::new(vec![short()]);
    run.seconds(8, LOW).seconds(8, HIGH);
    let fired = run.first(Kind::Fired).record.notice.clone();
    let mut next = run.successor(vec![short()]);
    next.seconds(20, HIGH);
    assert_eq!(next.kinds(), [], "it is on already");
    let repeated = next.first(Kind::Repeated).record.notice.clone();
    assert_eq!(repeated.owner_epoch, fired.owner_epoch + 1);
    assert_eq!(
        (&repeated.episode_id, repeated.starts_at_ms),
        (&fired.episode_id, fired.starts_at_ms)
    );
    next.seconds(10, LOW);
    assert_eq!(next.kinds(), [Kind::Resolving, Kind::Resolved]);
    assert_eq!(
        next.first(Kind::Resolved).record.notice.episode_id,
        fired.episode_id
    );
}

#[test]
fn what_was_not_fired_yet_is_fired_by_the_next_owner() {
    let mut run = Run::new(vec![Rule {
        hold_ms: 6 * S,
        ..short()
    }]);
    run.seconds(8, LOW).seconds(6, HIGH);
    assert_eq!(run.kinds(), [Kind::Pending]);
    let mut next = run.successor(vec![Rule {
        hold_ms: 6 * S,
        ..short()
    }]);
    next.seconds(6, HIGH);
    assert_eq!(next.kinds().last(), Some(&Kind::Fired));
}

#[test]
fn an_episode_whose_rule_is_gone_is_ended_by_the_next_owner() {
    let mut run = Run::new(vec![short()]);
    run.seconds(8, LOW).seconds(8, HIGH);
    let mut next = run.successor(Vec::new());
    next.seconds(3, HIGH);
    let resolved = &next.first(Kind::Resolved).record.notice;
    assert_eq!(resolved.ended, Some(Ended::RuleGone));
    assert_eq!(
        resolved.episode_id,
        run.first(Kind::Fired).record.notice.episode_id
    );
}

#[test]
fn baselines_are_saved_and_go_on() {
    let mut run = Run::new(vec![Rule {
        fast: true,
        ..short()
    }]);
    let known = run.learn(&["edge-1", "edge-2"]);
    run.engine.save_all();
    run.out.extend(run.engine.take());
    let mut next = run.successor(vec![Rule {
        fast: true,
        ..short()
    }]);
    for number in known..known + 10 {
        next.pulse("edge-1", number, 90);
        next.pulse("edge-2", number, 90);
    }
    assert_eq!(
        next.kinds().first(),
        Some(&Kind::Suspected),
        "learned before"
    );
}

#[test]
fn with_an_episode_the_rest_of_its_stream_goes_on_too() {
    let rules = || {
        let fast = Rule {
            fast: true,
            above: 0.2,
            name: "fast".to_owned(),
            ..short()
        };
        vec![
            Rule {
                fast: false,
                ..short()
            },
            fast,
        ]
    };
    let mut run = Run::new(rules());
    let known = run.learn(&["edge-1", "edge-2"]);
    run.now_ms = run.now_ms / S * S + S;
    run.seconds(8, HIGH);
    assert_eq!(run.kinds(), [Kind::Pending, Kind::Fired]);
    run.engine.save_all();
    run.out.extend(run.engine.take());
    let mut next = run.successor(rules());
    for number in known + 100..known + 110 {
        next.pulse("edge-1", number, 90);
        next.pulse("edge-2", number, 90);
    }
    assert_eq!(next.kinds().first(), Some(&Kind::Suspected));
    assert_eq!(next.first(Kind::Suspected).record.key.rule, "fast");
}

#[test]
fn a_rule_of_another_metric_takes_its_place() {
    let mut run = Run::new(vec![short()]);
    run.seconds(8, LOW).seconds(8, HIGH);
    let other = Rule {
        metric: RuleMetric::RetransSegs,
        above: 100.0,
        ..short()
    };
    run.engine
        .reload(vec![Arc::new(other)], &run.live, run.now_ms);
    run.seconds(8, HIGH);
    let fired = run
        .said()
        .into_iter()
        .rev()
        .find(|s| s.record.notice.kind == Kind::Fired);
    let name = fired.map(|said| said.record.labels["alertname"].as_str());
    assert_eq!(name, Some("FlowvitalsRetransSegs"), "{:?}", run.kinds());
}

#[test]
fn what_waits_is_dropped_with_its_partition() {
    let mut run = Run::new(vec![short()]);
    run.seconds(8, LOW).seconds(2, HIGH);
    for _ in 0..6 {
        run.second(HIGH);
    }
    run.now_ms += 20 * S;
    run.engine.tick(&run.live, run.now_ms, true);
    run.engine.hear_owner(0, "|ams1|", br#"{"owner_epoch":2}"#);
    assert_eq!(run.engine.take(), []);
}

#[test]
fn rules_that_go_end_what_they_raised_and_records_are_taken_out() {
    let mut run = Run::new(vec![short()]);
    run.seconds(8, LOW).seconds(8, HIGH);
    let milder = Rule {
        above: 0.03,
        ..short()
    };
    run.engine
        .reload(vec![Arc::new(milder)], &run.live, run.now_ms);
    run.second(HIGH);
    assert_eq!(run.kinds(), [Kind::Pending, Kind::Fired], "it goes on");
    run.engine.reload(Vec::new(), &run.live, run.now_ms);
    run.second(HIGH);
    assert_eq!(run.kinds().last(), Some(&Kind::Resolved));
    let ended = run.first(Kind::Resolved).record.notice.ended;
    assert_eq!(ended, Some(Ended::RuleGone));
    run.now_ms += 400 * S;
    run.tick();
    let forgotten = |run: &Run| run.out.iter().any(|out| matches!(out, Out::Forget(_)));
    assert!(!forgotten(&run));
    run.now_ms += Options::default().tombstone_after_ms;
    run.tick();
    assert!(forgotten(&run));
}

#[test]
fn junk_in_the_state_topic_is_counted() {
    let mut run = Run::idle(vec![short()]);
    let junk = [
        ("|ams1|".to_owned(), b"\xff".to_vec()),
        ("x".to_owned(), b"{}".to_vec()),
        ("|ams1|".to_owned(), br#"{"owner_epoch":41}"#.to_vec()),
    ];
    run.engine.assign(0, &junk, [], run.now_ms);
    assert_eq!(run.engine.counts().state_unreadable, 2);
    run.seconds(8, LOW).seconds(8, HIGH);
    assert_eq!(run.first(Kind::Fired).record.notice.owner_epoch, 42);
}
