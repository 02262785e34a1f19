//! Intervals hold the truth as often as they say, on simulated populations; the example `coverage` does it at length.

use crate::simulation::{Coverage, Outcome, Setting, Tail, run};

const POPULATIONS: u32 = 1_500;

/// Three standard deviations of a share that is measured on so many populations.
fn slack(share: f64, populations: u32) -> f64 {
    3.0 * (share * (1.0 - share) / f64::from(populations)).sqrt()
}

fn simulate(tail: Tail, flows: u32) -> Outcome {
    run(Setting {
        tail,
        populations: POPULATIONS,
        flows,
        rate: 0.25,
        seed: 11,
    })
}

fn check(coverage: Coverage, least_covered: f64) {
    assert_eq!(coverage.estimated + coverage.insufficient, POPULATIONS);
    let (low, covered) = (coverage.low_missed_share(), coverage.covered_share());
    let slack = |share| slack(share, coverage.estimated);
    assert!(
        low <= 0.03 + slack(0.03),
        "lower end missed {low}: {coverage:?}"
    );
    assert!(
        covered >= least_covered - slack(least_covered),
        "holds {covered}: {coverage:?}"
    );
}

#[test]
fn light_tails() {
    let (hundred, more) = (simulate(Tail::Light, 100), simulate(Tail::Light, 300));
    check(hundred.total, 0.91);
    check(hundred.ratio, 0.91);
    check(more.total, 0.94);
    check(more.ratio, 0.94);
}

#[test]
fn heavy_tails() {
    let (hundred, more) = (simulate(Tail::Heavy, 100), simulate(Tail::Heavy, 300));
    check(hundred.total, 0.91);
    check(hundred.ratio, 0.91);
    check(more.total, 0.94);
    check(more.ratio, 0.94);
}

#[test]
fn few_flows_give_a_safe_lower_end_or_none() {
    let few = simulate(Tail::Heavy, 30);
    check(few.total, 0.91);
    check(few.ratio, 0.91);
    assert!(few.total.insufficient > POPULATIONS / 3, "{few:?}");
    let fewer = run(Setting {
        tail: Tail::Light,
        populations: 50,
        flows: 5,
        rate: 0.1,
        seed: 1,
    });
    assert_eq!((fewer.total.estimated, fewer.ratio.estimated), (0, 0));
}
