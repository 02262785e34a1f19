use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::rule::Active;
use super::super::rule::tests::{estimate, rule};
use super::super::suspect::Suspicion;
use super::*;

const S: u64 = 1_000;

fn key() -> Key {
    Key {
        rule: "retransmissions".to_owned(),
        site: "ams1".to_owned(),
        stream: "sport-1".to_owned(),
    }
}

fn complete(at_ms: u64, estimate: Result<Estimate, Insufficient>) -> Observation {
    Observation {
        at_ms,
        estimate,
        provisional: false,
        nodes_expected: 100,
        nodes_reported: 97,
    }
}

fn high(at_ms: u64) -> Observation {
    complete(at_ms, Ok(estimate(0.03, 0.025)))
}

fn middling(at_ms: u64) -> Observation {
    complete(at_ms, Ok(estimate(0.018, 0.015)))
}

fn low(at_ms: u64) -> Observation {
    complete(at_ms, Ok(estimate(0.004, 0.003)))
}

fn thin(at_ms: u64) -> Observation {
    let (flows, needed) = (3, 30);
    complete(at_ms, Err(Insufficient::Flows { flows, needed }))
}

fn provisional(of: Observation) -> Observation {
    Observation {
        provisional: true,
        ..of
    }
}

fn half(of: Observation) -> Observation {
    Observation {
        nodes_reported: 50,
        ..of
    }
}

/// Observes once a second, told two seconds after.
struct Run {
    rule: Rule,
    episode: Episode,
    at_ms: u64,
    notices: Vec<Notice>,
}

impl Run {
    fn new(rule: Rule) -> Self {
        Self {
            rule,
            episode: Episode::new(key(), 1),
            at_ms: 1_000 * S,
            notices: Vec::new(),
        }
    }

    fn see(&mut self, seconds: u64, observation: impl Fn(u64) -> Observation) -> &mut Self {
        for _ in 0..seconds {
            self.at_ms += S;
            let observation = observation(self.at_ms);
            let notices = self
                .episode
                .observe(&self.rule, &observation, self.now_ms());
            self.notices.extend(notices);
        }
        self
    }

    fn now_ms(&self) -> u64 {
        self.at_ms + 2 * S
    }

    fn kinds(&mut self) -> Vec<Kind> {
        self.notices.drain(..).map(|notice| notice.kind).collect()
    }

    /// All notices but those that say the same again.
    fn steps(&self) -> Vec<Kind> {
        let kinds = self.notices.iter().map(|notice| notice.kind);
        kinds
            .filter(|kind| !matches!(kind, Kind::Repeated | Kind::ResolvedRepeated))
            .collect()
    }
}

#[test]
fn an_episode_from_the_first_sign_to_the_last_word() {
    let mut run = Run::new(rule());
    run.see(5, low).see(2, high);
    assert_eq!(run.kinds(), [Kind::Pending]);
    run.see(1, high);
    let fired = run.notices[0].clone();
    assert_eq!((fired.kind, fired.state), (Kind::Fired, State::Firing));
    assert_eq!(fired.starts_at_ms, 1_008 * S, "held from 1,006 s on");
    assert_eq!(fired.onset_ms, 996 * S);
    assert_eq!(fired.ends_at_ms, run.now_ms() + HOLDS_MS);
    run.notices.clear();
    run.see(30, high);
    assert_eq!(run.kinds(), [Kind::Repeated; 2]);
    run.see(1, |at_ms| complete(at_ms, Ok(estimate(0.08, 0.07))))
        .see(30, low);
    assert_eq!(run.steps(), [Kind::Resolving]);
    assert_eq!(run.episode.state(), State::Resolving);
    run.notices.clear();
    run.see(1, low);
    let [resolved] = &run.notices[..] else {
        panic!("{:?}", run.notices);
    };
    assert_eq!(
        (resolved.kind, resolved.ended),
        (Kind::Resolved, Some(Ended::Cleared))
    );
    assert_eq!(resolved.episode_id, fired.episode_id);
    assert_eq!(resolved.starts_at_ms, fired.starts_at_ms);
    assert_eq!(resolved.ends_at_ms, run.at_ms);
    assert_eq!(resolved.duration_ms, Some(run.at_ms - fired.starts_at_ms));
    assert_eq!(
        resolved.peak.map(|peak| (peak.value, peak.at_ms)),
        Some((0.08, 1_039 * S))
    );
    run.notices.clear();
    run.see(600, low);
    assert_eq!(
        run.kinds(),
        [Kind::ResolvedRepeated; 20],
        "for five minutes"
    );
    assert!(run.episode.is_idle());
}

#[test]
fn a_short_rise_is_withdrawn() {
    let mut run = Run::new(rule());
    run.see(2, high).see(1, middling).see(2, high).see(1, low);
    assert_eq!(
        run.kinds(),
        [
            Kind::Pending,
            Kind::Withdrawn,
            Kind::Pending,
            Kind::Withdrawn
        ]
    );
}

#[test]
fn what_is_thin_provisional_or_incomplete_neither_raises_nor_clears() {
    let unknown: [fn(u64) -> Observation; 4] = [
        thin,
        |at_ms| provisional(high(at_ms)),
        |at_ms| half(high(at_ms)),
        |at_ms| Observation {
            nodes_expected: 0,
            nodes_reported: 0,
            ..high(at_ms)
        },
    ];
    for unknown in unknown {
        let mut run = Run::new(rule());
        run.see(100, unknown);
        assert_eq!(run.kinds(), []);
        // It holds up what was proven, but proves nothing.
        run.see(2, high).see(100, unknown).see(1, high);
        assert_eq!(run.kinds(), [Kind::Pending]);
        run.see(1, high);
        assert_eq!(run.steps(), [Kind::Fired]);
        run.see(20, low).see(100, unknown).see(10, low);
        assert_eq!(run.steps(), [Kind::Fired, Kind::Resolving]);
        run.see(5, low);
        assert_eq!(run.steps(), [Kind::Fired, Kind::Resolving, Kind::Resolved]);
    }
}

#[test]
fn an_alert_of_which_nothing_is_known_any_more_is_given_up_after_an_hour() {
    let mut run = Run::new(rule());
    run.see(3, high).see(3_599, thin);
    assert_eq!(run.steps(), [Kind::Pending, Kind::Fired]);
    run.see(1, thin);
    let last = run.notices.last().expect("a notice");
    assert_eq!(
        (last.kind, last.ended),
        (Kind::Resolved, Some(Ended::EvidenceGone))
    );
}

#[test]
fn flapping_is_one_episode() {
    for seconds in [1, 2, 5, 10, 29] {
        let mut run = Run::new(rule());
        run.see(3, high);
        for _ in 0..20 {
            run.see(seconds, low).see(seconds, high);
        }
        let fired = run
            .steps()
            .iter()
            .filter(|kind| **kind == Kind::Fired)
            .count();
        assert_eq!(
            (fired, run.episode.state()),
            (1, State::Firing),
            "{seconds} s"
        );
        assert!(!run.steps().contains(&Kind::Resolved));
    }
}

#[test]
fn unchecked_time_does_not_count() {
    let mut run = Run::new(rule());
    run.see(1, high);
    run.at_ms += 60 * S;
    run.see(1, high);
    assert_eq!(run.steps(), [Kind::Pending]);
    // Windows of ten seconds touch.
    let mut run = Run::new(rule());
    run.see(1, high);
    run.at_ms += 9 * S;
    run.see(1, high);
    assert_eq!(run.steps(), [Kind::Pending, Kind::Fired]);
}

#[test]
fn nothing_to_hold_or_to_clear_is_at_once() {
    let at_once = Rule {
        hold_ms: 0,
        clear_for_ms: 0,
        ..rule()
    };
    let mut run = Run::new(at_once);
    run.see(1, high).see(1, low);
    assert_eq!(run.steps(), [Kind::Fired, Kind::Resolved]);
}

#[test]
fn old_and_impossible_observations_change_nothing() {
    let mut run = Run::new(rule());
    run.see(2, high);
    let before = run.episode.clone();
    let now_ms = run.now_ms();
    for at_ms in [run.at_ms, run.at_ms - S, now_ms + 61 * S, u64::MAX] {
        assert_eq!(run.episode.observe(&run.rule, &low(at_ms), now_ms), []);
    }
    assert_eq!(run.episode, before);
    let strange = complete(run.at_ms + S, Ok(estimate(f64::NAN, f64::NAN)));
    assert_eq!(run.episode.observe(&run.rule, &strange, now_ms), []);
    assert_eq!(run.episode.state(), State::Pending);
}

#[test]
fn the_end_of_the_schedule_ends_it() {
    let active = Some(Active {
        begin_ms: 1_010 * S,
        end_ms: 1_050 * S,
    });
    let mut run = Run::new(Rule { active, ..rule() });
    run.see(9, high);
    assert_eq!(run.kinds(), [], "before it begins");
    run.see(3, high);
    assert_eq!(run.steps(), [Kind::Pending, Kind::Fired]);
    run.see(60, high);
    assert_eq!(run.steps(), [Kind::Pending, Kind::Fired, Kind::Resolved]);
    let resolved = run
        .notices
        .iter()
        .find(|notice| notice.kind == Kind::Resolved);
    let resolved = resolved.expect("one");
    assert_eq!(
        (resolved.ended, resolved.ends_at_ms),
        (Some(Ended::ScheduleOver), 1_050 * S)
    );
    // Without a single observation too.
    let mut run = Run::new(Rule { active, ..rule() });
    run.see(12, high);
    let notices = run.episode.tick(&run.rule, 1_050 * S);
    assert_eq!(notices.map(|notice| notice.kind), Some(Kind::Resolved));
}

#[test]
fn a_rule_that_is_gone_closes_what_it_opened() {
    let mut run = Run::new(rule());
    run.see(2, high);
    let notice = run.episode.close(run.now_ms()).expect("a notice");
    assert_eq!(notice.kind, Kind::Withdrawn);
    run.see(3, high);
    let notice = run.episode.close(run.now_ms()).expect("a notice");
    assert_eq!(notice.ended, Some(Ended::RuleGone));
    assert_eq!(run.episode.close(run.now_ms()), None);
}

#[test]
fn another_owner_goes_on_without_doubling() {
    let mut run = Run::new(rule());
    run.see(3, high).see(10, low);
    let id = run.episode.id().expect("an id").to_owned();
    let json = serde_json::to_string(&run.episode).expect("JSON");
    let read = || serde_json::from_str::<Episode>(&json).expect("its own JSON");
    // Read back it is nobody's, and says nothing.
    let mut nobodys = read();
    assert_eq!(nobodys.observe(&run.rule, &high(2_000 * S), 2_000 * S), []);
    assert_eq!(nobodys.tick(&run.rule, u64::MAX), None);
    assert_eq!(nobodys.close(2_000 * S), None);

    let now_ms = run.now_ms() + 60 * S;
    let mut next = Run {
        episode: Episode::restore(read(), 2, now_ms).expect("a later owner"),
        ..Run::new(rule())
    };
    // The horizon is read again: nothing is fired or resolved twice.
    next.see(13, high);
    assert!(next.steps().is_empty());
    next.at_ms = now_ms;
    next.see(1, low);
    assert_eq!(next.kinds(), [Kind::Repeated]);
    next.see(29, low);
    assert_eq!(
        next.steps(),
        [],
        "what the other saw fall has to be seen again"
    );
    next.see(1, low);
    assert_eq!(next.steps(), [Kind::Resolved]);
    assert_eq!(
        next.notices.last().and_then(|last| last.episode_id.clone()),
        Some(id)
    );

    // The one before hears of it and falls silent, whatever it sees.
    assert!(!run.episode.hear(&read()), "its own word");
    assert!(run.episode.hear(&next.episode));
    run.notices.clear();
    run.see(100, low).see(100, high);
    assert_eq!(run.kinds(), []);
    // It cannot take back what a later one has.
    let superseded = Superseded {
        owner_epoch: 2,
        mine: 1,
    };
    assert_eq!(Episode::restore(next.episode, 1, now_ms), Err(superseded));
}

#[test]
fn the_same_data_give_the_same_id() {
    let ids = [1, 2].map(|owner_epoch| {
        let mut run = Run::new(rule());
        run.episode = Episode::new(key(), owner_epoch);
        run.see(3, high);
        run.episode.id().map(str::to_owned)
    });
    assert!(ids[0].is_some());
    assert_eq!(ids[0], ids[1]);
}

fn agreement(at_ms: u64) -> Agreement {
    Agreement {
        suspicion: Suspicion {
            at_ms,
            onset_ms: at_ms - 300,
            ratio: 0.03,
            low: 0.024,
            high: 0.037,
            baseline: 0.004,
            dispersion: 3.0,
            flows_active: 120,
            nodes: 2,
            nodes_present: 2,
        },
        nodes: 2,
    }
}

#[test]
fn nodes_that_agree_raise_it_at_once_and_once() {
    let mut run = Run::new(rule());
    run.see(1, low);
    let now_ms = run.now_ms();
    let fired = run.episode.agree(&run.rule, &agreement(now_ms), now_ms);
    let fired = fired.expect("a notice");
    assert_eq!(fired.kind, Kind::Fired);
    assert_eq!(fired.fired_by, Some(FiredBy::Nodes(2)));
    assert_eq!((fired.starts_at_ms, fired.onset_ms), (now_ms, now_ms - 300));
    assert_eq!(
        run.episode
            .agree(&run.rule, &agreement(now_ms + 100), now_ms),
        None
    );
    // Spans that end before it say nothing about it; later ones that stay low clear it.
    run.see(2, low);
    assert_eq!(run.episode.state(), State::Firing);
    run.see(31, low);
    assert_eq!(run.steps(), [Kind::Resolving, Kind::Resolved]);
}

#[test]
fn nodes_that_agree_must_be_allowed_to_and_have_the_evidence() {
    type Change = fn(&mut Rule, &mut Suspicion);
    let cases: [(&str, Change); 7] = [
        ("not fast", |rule, _| rule.fast = false),
        ("another metric", |rule, _| {
            rule.metric = RuleMetric::StallRatio
        }),
        ("out of schedule", |rule, _| {
            rule.active = Some(Active {
                begin_ms: 0,
                end_ms: 1,
            });
        }),
        ("lower end", |_, found| found.low = 0.02),
        ("no number", |_, found| found.low = f64::NAN),
        ("few flows", |_, found| found.flows_active = 29),
        ("old", |_, found| found.at_ms = 1_001 * S),
    ];
    for (name, spoil) in cases {
        let mut run = Run::new(rule());
        run.see(1, low);
        let now_ms = run.now_ms();
        let mut agreement = agreement(now_ms);
        spoil(&mut run.rule, &mut agreement.suspicion);
        assert_eq!(
            run.episode.agree(&run.rule, &agreement, now_ms),
            None,
            "{name}"
        );
    }
}

#[test]
fn the_detector_dates_the_onset() {
    let mut run = Run::new(rule());
    run.see(3, high);
    run.episode.date_onset(&run.rule, 1_000_400);
    run.episode.date_onset(&run.rule, 5);
    run.see(15, high);
    assert_eq!(
        run.notices.last().map(|last| last.onset_ms),
        Some(1_000_400)
    );
}

#[derive(Clone, Debug)]
enum Event {
    Observe(u8, u64),
    Agree(u64),
    Tick(u64),
    /// With what was said just before, or without it.
    HandOver(bool),
    Close,
}

fn event() -> impl Strategy<Value = Event> {
    let step_ms = prop_oneof![8 => Just(S), 2 => 0..20 * S, 1 => 0..7_200 * S];
    prop_oneof![
        20 => (0..6u8, step_ms.clone()).prop_map(|(kind, step)| Event::Observe(kind, step)),
        2 => (0..3 * S).prop_map(Event::Agree),
        2 => step_ms.prop_map(Event::Tick),
        1 => any::<bool>().prop_map(Event::HandOver),
        1 => Just(Event::Close),
    ]
}

/// Long stretches of the same and wild changes.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let stretch = (event(), 1..40usize).prop_map(|(event, times)| vec![event; times]);
    prop::collection::vec(
        prop_oneof![stretch, event().prop_map(|event| vec![event])],
        0..30,
    )
    .prop_map(|stretches| stretches.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever happens: each episode fires once and is resolved at most once, in this order; its start never changes; nothing is said
    /// of an episode that did not fire or is resolved, but that it is; ends do not lie before starts; what says nothing fires and clears nothing.
    /// Who does not hear what an owner said last before it was killed hears of every end all the same.
    #[test]
    fn episodes_are_well_formed(events in events(), hold_s in 0..4u64, clear_s in 0..40u64, scheduled: bool) {
        let active = scheduled.then_some(Active { begin_ms: 1_010 * S, end_ms: 1_200 * S });
        let rule = Rule { hold_ms: hold_s * S, clear_for_ms: clear_s * S, active, ..rule() };
        let mut episode = Episode::new(key(), 1);
        let (mut at_ms, mut now_ms) = (1_000 * S, 1_002 * S);
        let (mut owner_epoch, mut on, mut over) = (1, None::<(String, u64)>, None::<(String, u64)>);
        let mut used = BTreeSet::new();
        // What was said last, and the episode that is on for who heard what got through.
        let (mut words, mut heard) = (Vec::new(), None::<String>);
        for event in events {
            let knows = matches!(event, Event::Observe(0..=2, _));
            let agrees = matches!(event, Event::Agree(_));
            if matches!(event, Event::HandOver(true)) {
                words.clear();
            }
            for (kind, id) in words.drain(..) {
                match kind {
                    Kind::Resolved | Kind::ResolvedRepeated => heard = None,
                    Kind::Fired => {
                        prop_assert_eq!(&heard, &None, "its end was not heard");
                        heard = id;
                    }
                    _ if id.is_some() => heard = id,
                    _ => {}
                }
            }
            let notices = match event {
                Event::Observe(kind, step_ms) => {
                    at_ms += step_ms;
                    now_ms = now_ms.max(at_ms + 2 * S);
                    let observation = match kind {
                        0 => high(at_ms),
                        1 => middling(at_ms),
                        2 => low(at_ms),
                        3 => thin(at_ms),
                        4 => provisional(high(at_ms)),
                        _ => half(low(at_ms)),
                    };
                    episode.observe(&rule, &observation, now_ms)
                }
                Event::Agree(ahead_ms) => {
                    let agreement = agreement(at_ms + ahead_ms);
                    episode.agree(&rule, &agreement, now_ms).into_iter().collect()
                }
                Event::Tick(step_ms) => {
                    now_ms += step_ms;
                    episode.tick(&rule, now_ms).into_iter().collect()
                }
                Event::HandOver(_) => {
                    let json = serde_json::to_string(&episode).expect("JSON");
                    let saved = serde_json::from_str(&json).expect("its own JSON");
                    owner_epoch += 1;
                    episode = Episode::restore(saved, owner_epoch, now_ms).expect("a later owner");
                    episode.resume(now_ms).into_iter().collect()
                }
                Event::Close => episode.close(now_ms).into_iter().collect(),
            };
            for notice in notices {
                words.push((notice.kind, notice.episode_id.clone()));
                let named = notice.episode_id.clone().map(|id| (id, notice.starts_at_ms));
                prop_assert_eq!(notice.owner_epoch, owner_epoch);
                prop_assert!(notice.onset_ms <= notice.starts_at_ms);
                if notice.kind.is_alert() {
                    prop_assert!(notice.ends_at_ms >= notice.starts_at_ms);
                }
                match notice.kind {
                    Kind::Suspected | Kind::SuspectRepeated | Kind::SuspectEnded => {
                        prop_assert!(false, "an episode suspects nothing");
                    }
                    Kind::Pending | Kind::Withdrawn => prop_assert!(on.is_none() && named.is_none()),
                    Kind::Fired => {
                        prop_assert!(knows || agrees);
                        prop_assert!(on.is_none(), "fired twice");
                        let named = named.expect("an id");
                        prop_assert!(used.insert(named.0.clone()), "an id is used again");
                        on = Some(named);
                        over = None;
                    }
                    Kind::Repeated | Kind::Resolving | Kind::Relapsed => prop_assert_eq!(&named, &on),
                    Kind::Resolved => {
                        prop_assert!(knows || notice.ended != Some(Ended::Cleared));
                        prop_assert_eq!(&named, &on);
                        prop_assert!(named.is_some(), "resolved what did not fire");
                        (on, over) = (None, named);
                    }
                    Kind::ResolvedRepeated => prop_assert_eq!(&named, &over),
                }
            }
            let firing = matches!(episode.state(), State::Firing | State::Resolving);
            prop_assert_eq!(firing, on.is_some());
        }
    }
}
