use sampler_event::GROUPS;

use super::*;

/// A pulse of 100 ms with retransmits spread over the groups.
fn pulse(node: &str, number: u64, retrans: u32, sent: u64) -> StreamPulse {
    let each = retrans / GROUPS as u32;
    let rest = retrans as usize % GROUPS;
    StreamPulse {
        node: node.to_owned(),
        instance: 1,
        pulse_start_ms: number * 100,
        pulse_ms: 100,
        observed_ms: 100,
        sampling_rate: 0.1,
        retrans_segs: retrans.into(),
        data_segs_out: sent,
        flows_active: 60,
        g_retrans_segs: (0..GROUPS)
            .map(|group| each + u32::from(group < rest))
            .collect(),
        ..StreamPulse::default()
    }
}

/// A detector that knows both nodes: 16 to 24 retransmits of 4,000 segments.
fn learned(pulses: u64) -> StreamDetector {
    let mut detector = StreamDetector::new(Design::default());
    for number in 0..pulses {
        for node in ["a", "b"] {
            let retrans = 16 + (number * 7 % 9) as u32;
            assert_eq!(detector.take(&pulse(node, number, retrans, 4_000)), []);
        }
    }
    detector
}

#[test]
fn a_change_is_suspected_with_its_onset_and_nodes_agree() {
    let mut detector = learned(2_000);
    assert!((detector.baseline() - 0.005).abs() < 0.000_2);
    let mut changes = Vec::new();
    for number in 2_000..2_010 {
        for node in ["a", "b"] {
            changes.extend(detector.take(&pulse(node, number, 60, 4_000)));
        }
    }
    let [Change::Began(began), Change::Agreed(agreed), ref more @ ..] = changes[..] else {
        panic!("{changes:?}");
    };
    // While it lasts that is said again, each time with more certainty.
    let lows = more.iter().map(|change| match change {
        Change::Agreed(again) => again.suspicion.low,
        other => panic!("{other:?}"),
    });
    let lows: Vec<_> = std::iter::once(agreed.suspicion.low).chain(lows).collect();
    assert!(lows.len() > 2 && lows.is_sorted(), "{lows:?}");
    assert_eq!(began.onset_ms, 200_000);
    assert!(began.at_ms <= 200_300, "{began:?}");
    assert!((began.ratio - 0.015).abs() < 1e-9 && began.low > 0.01);
    assert_eq!((agreed.nodes, agreed.suspicion.flows_active), (2, 120));
    assert!(detector.suspected().is_some());
    // Back to normal: it ends, once.
    let ends: Vec<_> = (2_010..2_100)
        .flat_map(|number| ["a", "b"].map(|node| pulse(node, number, 20, 4_000)))
        .flat_map(|pulse| detector.take(&pulse))
        .collect();
    assert!(
        matches!(
            ends[..],
            [Change::Ended {
                given_up: false,
                ..
            }]
        ),
        "{ends:?}"
    );
}

#[test]
fn it_is_silent_until_it_knows_enough() {
    let mut detector = StreamDetector::new(Design::default());
    for number in 0..400 {
        let retrans = if number < 200 { 20 } else { 60 };
        assert_eq!(detector.take(&pulse("a", number, retrans, 4_000)), []);
    }
}

#[test]
fn fewer_flows_must_show_more_and_too_few_are_never_suspected() {
    // Pulses until it is suspected, of one node with so many flows.
    let pulses = |flows_active| {
        let mut detector = StreamDetector::new(Design::default());
        let of = |number, retrans| StreamPulse {
            flows_active,
            ..pulse("a", number, retrans, 4_000)
        };
        for number in 0..2_000 {
            let retrans = 16 + (number * 7 % 9) as u32;
            assert_eq!(detector.take(&of(number, retrans)), []);
        }
        (2_000..2_050).position(|number| !detector.take(&of(number, 45)).is_empty())
    };
    let (full, enough, few) = (pulses(60), pulses(20), pulses(19));
    assert!(full.is_some() && full < enough, "{full:?}, {enough:?}");
    assert_eq!(few, None);
}

#[test]
fn one_flow_or_one_pulse_is_no_change() {
    let mut detector = learned(2_000);
    for number in 2_000..2_010 {
        // A flow of group 3 loses 400 segments a second.
        let mut alone = pulse("a", number, 20, 4_000);
        alone.g_retrans_segs[3] += 40;
        alone.retrans_segs += 40;
        assert_eq!(detector.take(&alone), []);
        assert_eq!(detector.take(&pulse("b", number, 20, 4_000)), []);
    }
    let mut detector = learned(2_000);
    assert_eq!(detector.take(&pulse("a", 2_000, 4_000, 4_000)), []);
}

#[test]
fn retransmits_that_trail_their_burst_are_no_change() {
    let mut detector = learned(2_000);
    for number in 2_000..2_005 {
        // Traffic stops at once, what it lost is still being repaired.
        let repairs = 20 >> (number - 2_000);
        assert_eq!(
            detector.take(&pulse("a", number, repairs, repairs.into())),
            []
        );
        assert_eq!(
            detector.take(&pulse("b", number, repairs, repairs.into())),
            []
        );
    }
}

#[test]
fn a_drained_node_does_not_shift_the_level_of_the_stream() {
    let mut detector = StreamDetector::new(Design::default());
    let mut changes = Vec::new();
    for number in 0..4_000 {
        // The good node goes, the one with ten times its level stays.
        if number < 2_000 {
            changes.extend(detector.take(&pulse("good", number, 10, 10_000)));
        }
        changes.extend(detector.take(&pulse("bad", number, 10, 1_000)));
    }
    assert_eq!(changes, []);
}

#[test]
fn the_level_is_frozen_in_an_alarm_and_adopted_when_it_stays() {
    let mut detector = learned(2_000);
    let before = detector.baseline();
    let mut changes = Vec::new();
    for number in 2_000..14_000 {
        changes.extend(detector.take(&pulse("a", number, 60, 4_000)));
        if number == 10_000 {
            assert!((detector.baseline() - before).abs() < 0.1 * before);
        }
    }
    assert!(
        matches!(
            changes[..],
            [Change::Began(_), Change::Ended { given_up: true, .. }]
        ),
        "{changes:?}"
    );
    assert!((detector.baseline() - 0.015).abs() < 0.000_5);
}

#[test]
fn an_alarm_without_pulses_is_given_up() {
    let mut detector = learned(2_000);
    let began: Vec<_> = (2_000..2_010)
        .flat_map(|number| detector.take(&pulse("a", number, 80, 4_000)))
        .collect();
    assert!(matches!(began[..], [Change::Began(_)]), "{began:?}");
    assert_eq!(detector.tick(261_000), None);
    assert!(matches!(
        detector.tick(261_001),
        Some(Change::Ended { given_up: true, .. })
    ));
    assert_eq!(detector.tick(300_000), None);
}

#[test]
fn a_daemon_that_begins_anew_is_not_listened_to_at_first() {
    let mut detector = learned(2_000);
    for number in 2_000..2_300 {
        let mut fresh = pulse("a", number, 60, 4_000);
        fresh.instance = 2;
        assert_eq!(detector.take(&fresh), []);
    }
}

#[test]
fn what_was_learned_is_handed_over() {
    let mut detector = learned(2_000);
    let json = serde_json::to_string(&detector).expect("JSON");
    let mut read: StreamDetector = serde_json::from_str(&json).expect("its own JSON");
    let times = |detector: &mut StreamDetector| -> Vec<_> {
        let pulses = (2_000..2_050).map(|number| pulse("b", number, 50, 4_000));
        pulses
            .flat_map(|pulse| detector.take(&pulse))
            .filter_map(|change| match change {
                Change::Began(found) => Some((found.at_ms, found.onset_ms)),
                _ => None,
            })
            .collect()
    };
    assert_eq!(times(&mut detector), times(&mut read.clone()));
    let changes: Vec<_> = (2_000..2_010)
        .flat_map(|number| read.take(&pulse("a", number, 80, 4_000)))
        .collect();
    assert!(matches!(changes[..], [Change::Began(_)]), "{changes:?}");
}

#[test]
fn junk_is_not_looked_at_and_nodes_are_bounded() {
    let mut detector = StreamDetector::new(Design::default());
    for rate in [0.0, -1.0, 1.5, f64::NAN, f64::INFINITY] {
        let junk = StreamPulse {
            sampling_rate: rate,
            ..pulse("a", 1, 1, 1)
        };
        assert_eq!(detector.take(&junk), []);
    }
    let replayed = StreamPulse {
        flags: Flag::Replayed as u32,
        ..pulse("a", 1, 1, 1)
    };
    assert_eq!(detector.take(&replayed), []);
    assert_eq!(detector.nodes(), 0);
    for node in 0..MAX_NODES + 3 {
        detector.take(&pulse(&node.to_string(), 1, 1, 1));
    }
    assert_eq!((detector.nodes(), detector.crowded()), (MAX_NODES, 3));
    let extreme = StreamPulse {
        pulse_start_ms: u64::MAX,
        observed_ms: u32::MAX,
        retrans_segs: u64::MAX,
        data_segs_out: u64::MAX,
        flows_active: u64::MAX,
        g_retrans_segs: vec![u32::MAX; 3],
        ..pulse("0", 1, 1, 1)
    };
    detector.take(&extreme);
    detector.take(&extreme);
    assert!(detector.baseline().is_finite());
    detector.forget_before(u64::MAX);
    assert_eq!(detector.nodes(), 1);
}

proptest::proptest! {
    #[test]
    fn late_and_double_pulses_grow_nothing_and_leave_numbers(
        pulses in proptest::collection::vec((0_u64..3, 0_u64..400, 0_u32..200, 0_u64..5_000), 1..300)
    ) {
        let mut detector = learned(700);
        for (node, number, retrans, sent) in pulses {
            let pulse = pulse(&node.to_string(), 500 + number, retrans, sent);
            detector.take(&pulse);
            detector.take(&pulse);
            let baseline = detector.baseline();
            proptest::prop_assert!(baseline.is_finite() && baseline >= 0.0);
            proptest::prop_assert!(detector.nodes() <= 5);
        }
    }
}
