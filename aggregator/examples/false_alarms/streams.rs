//! The streams that are simulated.

use super::Setting;

/// A kind of stream.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// What it is.
    pub name: &'static str,
    /// Its days per hundred of the commonest kind.
    pub part: u64,
    /// How it is.
    pub setting: Setting,
}

/// Kinds whose names have something in them, with their numbers.
pub fn named(part: &str) -> Vec<(usize, Stream)> {
    let all = streams().into_iter().enumerate();
    all.filter(|(_, stream)| stream.name.contains(part))
        .collect()
}

/// All kinds. Those with more than 100 flows show that more is easier; those with fewer that there is no alarm from next to nothing.
fn streams() -> Vec<Stream> {
    let usual = Setting::default();
    let stream = |name, part, setting| Stream {
        name,
        part,
        setting,
    };
    vec![
        stream("2 nodes, 100 flows", 100, usual),
        stream("1 node", 40, Setting { nodes: 1, ..usual }),
        stream(
            "5 nodes, 300 flows",
            4,
            Setting {
                nodes: 5,
                flows: 300.0,
                ..usual
            },
        ),
        stream(
            "20 nodes, 1,000 flows",
            1,
            Setting {
                nodes: 20,
                flows: 1_000.0,
                ..usual
            },
        ),
        stream(
            "sampled at 0.05 (50 flows)",
            40,
            Setting {
                sampling_rate: 0.05,
                flows: 50.0,
                ..usual
            },
        ),
        stream(
            "sampled at 0.25 (250 flows)",
            10,
            Setting {
                sampling_rate: 0.25,
                flows: 250.0,
                ..usual
            },
        ),
        stream(
            "pulses of 200 ms",
            60,
            Setting {
                pulse_ms: 200,
                ..usual
            },
        ),
        stream(
            "pulses of 500 ms",
            80,
            Setting {
                pulse_ms: 500,
                ..usual
            },
        ),
        stream(
            "low traffic (20 flows)",
            60,
            Setting {
                flows: 20.0,
                ..usual
            },
        ),
        stream(
            "next to no loss (0.002 %)",
            20,
            Setting {
                ratio: 2e-5,
                ..usual
            },
        ),
        stream(
            "one node 0.8 s late, 5 % lost",
            20,
            Setting {
                late_ms: 800,
                lost: 0.05,
                ..usual
            },
        ),
        stream(
            "one node's clock 0.8 s behind",
            20,
            Setting {
                clock_ms: -800,
                ..usual
            },
        ),
        stream(
            "equal flows, slow lines",
            20,
            Setting {
                skew: 0.3,
                fetching: 0.6,
                ..usual
            },
        ),
        stream("very unequal flows", 20, Setting { skew: 1.5, ..usual }),
        stream(
            "loss of 0.2 %",
            20,
            Setting {
                ratio: 0.002,
                ..usual
            },
        ),
        stream(
            "loss of 1 %",
            0,
            Setting {
                ratio: 0.01,
                ..usual
            },
        ),
        stream(
            "one bad node of 2",
            0,
            Setting {
                bad_nodes: 1,
                ..usual
            },
        ),
        stream(
            "one bad node of 5 (300 flows)",
            0,
            Setting {
                nodes: 5,
                flows: 300.0,
                bad_nodes: 1,
                ..usual
            },
        ),
        stream(
            "one bad node of 20 (1,000 flows)",
            0,
            Setting {
                nodes: 20,
                flows: 1_000.0,
                bad_nodes: 1,
                ..usual
            },
        ),
        stream(
            "kick-off triples the loss for 8 s",
            10,
            Setting { rush: 3.0, ..usual },
        ),
    ]
}
