//! Events keep the sizes that the budgets state, before compression.

use sampler_event::Message;

use crate::fixture::{REGION, Spread, pulse, window};

/// The largest of 50 windows with 1,000 round-trip samples of 100 flows.
fn largest_bytes(spread: Spread) -> usize {
    let sizes = (0..50).map(|seed| {
        let window = window(seed, 100, spread);
        assert_eq!((window.rtt_count, window.flows_active), (1000, 100));
        window.encoded_len()
    });
    sizes.max().unwrap_or(0)
}

fn check(spread: Spread, most_bytes: usize) {
    let bytes = largest_bytes(spread);
    println!("{spread:?}: at most {bytes} bytes");
    assert!(
        bytes <= most_bytes,
        "{spread:?}: {bytes} bytes, not {most_bytes}"
    );
}

#[test]
fn window_of_a_thousand_samples_and_a_hundred_flows() {
    check(REGION, 640);
    // Beyond what one edge serves, so that the size is known there too: a continent, and samples that have nothing in common.
    check(
        Spread {
            flows: 1.0,
            samples: 0.3,
        },
        760,
    );
    check(
        Spread {
            flows: 0.0,
            samples: 1.0,
        },
        760,
    );
}

#[test]
fn pulse_stays_small() {
    for flows in [0, 100, 5000] {
        let pulse = pulse(&window(1, flows, REGION));
        let bytes = pulse.encoded_len();
        println!("pulse of {flows} flows: {bytes} bytes");
        assert!(bytes <= 128, "{flows} flows: {bytes} bytes");
    }
}
