//! Intervals hold the truth as often as they say, on simulated populations; the example `coverage` does it at length.

use crate::simulation::{Coverage, Quantity, Setting, Tail, run};

const POPULATIONS: u32 = 1_500;

/// Three standard deviations of a share that is measured on this many populations.
fn slack(share: f64) -> f64 {
    3.0 * (share * (1.0 - share) / f64::from(POPULATIONS)).sqrt()
}

fn check(quantity: Quantity, tail: Tail, flows: u32, least_covered: f64) -> Coverage {
    let setting = Setting {
        quantity,
        tail,
        populations: POPULATIONS,
        flows,
        rate: 0.1,
        seed: 11,
    };
    let coverage = run(setting);
    assert_eq!(coverage.estimated + coverage.insufficient, POPULATIONS);
    let (low, covered) = (coverage.low_missed_share(), coverage.covered_share());
    assert!(
        low <= 0.03 + slack(0.03),
        "{setting:?}: lower end missed {low}"
    );
    assert!(
        covered >= least_covered - slack(least_covered),
        "{setting:?}: holds {covered}"
    );
    coverage
}

#[test]
fn intervals_hold_what_they_promise() {
    for tail in [Tail::Light, Tail::Heavy] {
        for quantity in [Quantity::Total, Quantity::Ratio] {
            check(quantity, tail, 100, 0.91);
        }
    }
    check(Quantity::Total, Tail::Heavy, 300, 0.94);
    check(Quantity::Ratio, Tail::Light, 300, 0.94);
    // Heavy tails on both sides of the ratio: the measured share is below what lighter ones reach.
    check(Quantity::Ratio, Tail::Heavy, 300, 0.93);
}

#[test]
fn few_flows_give_a_safe_lower_end_or_none() {
    let coverage = check(Quantity::Total, Tail::Heavy, 30, 0.91);
    assert!(coverage.insufficient > POPULATIONS / 3, "{coverage:?}");
    assert_eq!(
        run(Setting {
            quantity: Quantity::Total,
            tail: Tail::Light,
            populations: 50,
            flows: 5,
            rate: 0.1,
            seed: 1
        })
        .estimated,
        0
    );
}
