//! Owners that come and go.

use super::*;

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
fn what_was_said_last_is_said_again_before_anything_else() {
    let rules = || {
        vec![Rule {
            hold_ms: 6 * S,
            ..short()
        }]
    };
    let succeed = |run: &mut Run| {
        let next = run.successor(rules());
        let notices = next.said().into_iter().map(|said| &said.record.notice);
        let said: Vec<_> = notices.map(|n| (n.kind, n.episode_id.clone())).collect();
        (said, next)
    };
    let mut run = Run::new(rules());
    run.seconds(8, LOW).seconds(16, HIGH);
    let id = run.first(Kind::Fired).record.notice.episode_id.clone();
    let (said, mut run) = succeed(&mut run);
    assert_eq!(said, [(Kind::Repeated, id.clone())]);
    run.seconds(12, LOW).first(Kind::Resolved);
    let (said, mut run) = succeed(&mut run);
    assert_eq!(said, [(Kind::ResolvedRepeated, id.clone())]);
    // Long enough for the end not to be said any more.
    run.seconds(310, LOW).seconds(6, HIGH).first(Kind::Pending);
    let (said, mut run) = succeed(&mut run);
    assert_eq!(said, [(Kind::Pending, None)]);
    run.seconds(6, LOW).first(Kind::Withdrawn);
    let (said, mut run) = succeed(&mut run);
    assert_eq!(said, [(Kind::Withdrawn, None)]);
    run.seconds(310, LOW);
    assert_eq!(succeed(&mut run).0, [], "that is long known");
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
