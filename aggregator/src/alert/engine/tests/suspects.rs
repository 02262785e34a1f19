//! What pulses show.

use super::*;

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

/// Pulses of two nodes that are known, from `known` on: a bad node with so many retransmits of 4,000 segments, and a healthy one.
fn one_bad_node(retrans: u32, pulses: u64) -> Run {
    let mut run = Run::new(vec![Rule {
        fast: true,
        ..short()
    }]);
    let known = run.learn(&["edge-1", "edge-2"]);
    for number in known..known + pulses {
        run.pulse("edge-1", number, retrans);
        run.pulse("edge-2", number, 20);
    }
    run
}

#[test]
fn one_bad_node_of_two_is_suspected_says_so_and_pages_nobody() {
    // Three times its level, and most of what it sends.
    for (retrans, pulses) in [(60, 30), (2_000, 15)] {
        let mut run = one_bad_node(retrans, pulses);
        assert_eq!(run.kinds(), [Kind::Suspected], "{retrans}");
        let said = &run.first(Kind::Suspected).record;
        assert_eq!(said.notice.onset_ms, BEGIN_MS + 100_000);
        let suspect = said.suspect.expect("what is suspected");
        assert_eq!((suspect.nodes, suspect.nodes_present), (1, 2));
        let ratio = f64::from(retrans) / 4_000.0;
        assert!((suspect.ratio - ratio).abs() < 1e-9, "{suspect:?}");
        let words = |name: &str| said.annotations[name].as_str();
        assert_eq!(words("nodes_touched"), "1 of 2 nodes");
        assert!(words("worst_nodes").starts_with("edge-1 "), "{said:?}");
        assert!(words("summary").contains("of edge-1, one of 2 nodes"));
        assert_eq!(said.worst_nodes[0].node, "edge-1");
        // It goes well again: the suspicion is over, once.
        for number in 1_000 + pulses..1_100 + pulses {
            run.pulse("edge-1", number, 20);
            run.pulse("edge-2", number, 20);
        }
        assert_eq!(run.kinds(), [Kind::Suspected, Kind::SuspectEnded]);
    }
}

#[test]
fn a_bad_node_that_falls_silent_is_not_suspected_for_ever() {
    let mut run = one_bad_node(200, 20);
    assert_eq!(run.kinds(), [Kind::Suspected]);
    for number in 1_020..1_800 {
        run.pulse("edge-2", number, 20);
    }
    assert_eq!(run.kinds(), [Kind::Suspected, Kind::SuspectEnded]);
}

#[test]
fn a_second_bad_node_makes_it_a_page() {
    let mut run = one_bad_node(100, 40);
    for number in 1_040..1_060 {
        run.pulse("edge-1", number, 400);
        run.pulse("edge-2", number, 400);
    }
    // They began four seconds apart, so they do not agree; the windows decide.
    assert_eq!(run.kinds(), [Kind::Suspected]);
    let mut run = one_bad_node(100, 5);
    for number in 1_005..1_060 {
        run.pulse("edge-1", number, 400);
        run.pulse("edge-2", number, 400);
    }
    assert_eq!(run.kinds().last(), Some(&Kind::Fired));
    let fired = &run.first(Kind::Fired).record;
    assert_eq!(fired.notice.fired_by, Some(FiredBy::Nodes(2)));
    assert_eq!(fired.annotations["nodes_touched"], "2 of 2 nodes");
}
