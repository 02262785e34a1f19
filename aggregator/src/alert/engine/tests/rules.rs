//! What windows and heartbeats show.

use super::*;

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

/// A rule of another metric sees windows that are `bad` and resolves when they are not.
fn fires_and_resolves(metric: RuleMetric, bad: impl Fn(&mut StreamWindow)) -> Record {
    let mut run = Run::new(vec![Rule { metric, ..short() }]);
    run.windows(8, &|_| {}).windows(8, &bad);
    assert_eq!(run.kinds(), [Kind::Pending, Kind::Fired], "{metric}");
    run.windows(10, &|_| {});
    assert_eq!(run.kinds().last(), Some(&Kind::Resolved), "{metric}");
    run.first(Kind::Fired).record.clone()
}

#[test]
fn stalled_time_fires_with_its_causes() {
    // A tenth of the busy time of every group; the network's in the main.
    let fired = fires_and_resolves(RuleMetric::StallRatio, |window| {
        window.g_stall_ms = vec![100; 16];
        window.flows_stalled = 10;
        window.stall_network_us = 1_200_000;
        window.stall_receiver_us = 400_000;
    });
    assert_eq!(fired.labels["alertname"], "FlowvitalsStallRatio");
    let words = |name: &str| fired.annotations[name].as_str();
    assert!(words("summary").contains("of busy time is stalled"));
    assert!(words("stall_causes").starts_with("network 75 %, receiver 25 %"));
    assert_eq!(words("flows_touched"), "25 % (30 of 120 sampled flows)");
    assert_eq!(words("nodes_touched"), "3 of 3 nodes");
    let peak = fired.notice.peak.expect("a peak");
    assert!(peak.low <= peak.value && peak.value <= 0.1 + 1e-9);
}

#[test]
fn slow_round_trips_fire() {
    let fired = fires_and_resolves(RuleMetric::RttSlowRatio, |window| {
        window.g_rtt_slow = vec![10; 16];
    });
    assert_eq!(fired.labels["alertname"], "FlowvitalsRttSlowRatio");
    let words = |name: &str| fired.annotations[name].as_str();
    assert!(words("summary").contains("of round trips are slow"));
    assert!(words("worst_nodes").starts_with("edge-1 "));
    // Who is touched is not known of round trips, and not said.
    assert!(!fired.annotations.contains_key("flows_touched"));
}
