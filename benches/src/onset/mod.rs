//! From the onset of loss to the alert, through everything that is real: players on a lossy link, two samplers as two nodes, Kafka,
//! the aggregator, Alertmanager, and a webhook that stands for the pager.
//!
//! `onset`: loss goes to three times its usual level on one stream after another, 32 times in all. `steady`: three streams at three
//! levels of loss that do not change for half an hour; every page is a false one. Times are of this machine's one clock.
//! `FLOWVITALS_RECORD=FILE` keeps the pulses, for `--example false_alarms -- --recorded FILE`.

mod edge;
mod listen;

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::clock;
use lab::clock::unix_ms;
use rand::{Rng, SeedableRng, rngs::StdRng};

use self::edge::{Edge, Stream};
use self::listen::Heard;
use crate::statistics::Samples;

/// Usual loss and the one that is to be seen; the rule's threshold lies between.
const USUAL: f64 = 0.005;
const TIMES: f64 = 3.0;
/// Threshold of the rule: between the usual loss and three times that; for `steady` above all of them.
const ABOVE: f64 = 0.01;
const ABOVE_STEADY: f64 = 0.02;
/// Until every detector has learned what is usual.
const LEARN: Duration = Duration::from_secs(180);
/// How long the loss lasts, and how long the link recovers afterwards.
const LOSS: Duration = Duration::from_secs(14);
const REST: Duration = Duration::from_secs(30);
/// Between the onsets of the streams.
const APART: Duration = Duration::from_secs(5);
const ROUNDS: usize = 16;
/// How long `steady` looks, unless it is told otherwise.
const STEADY: Duration = Duration::from_secs(1_800);

const ONSET_STREAMS: [Stream; 2] = [
    Stream {
        name: "sport-1",
        loss: USUAL,
    },
    Stream {
        name: "sport-2",
        loss: USUAL,
    },
];
const STEADY_STREAMS: [Stream; 3] = [
    Stream {
        name: "sport-1",
        loss: 0.001,
    },
    Stream {
        name: "sport-2",
        loss: 0.005,
    },
    Stream {
        name: "sport-3",
        loss: 0.015,
    },
];

/// Delays of one kind, ms; what never came is missing.
#[derive(Default)]
struct Delays {
    samples: Samples,
    missed: usize,
}

impl Delays {
    fn push(&mut self, delay_ms: Option<i64>) {
        match delay_ms {
            Some(ms) => self.samples.push(ms as f64),
            None => self.missed += 1,
        }
    }

    fn print(&self, what: &str, wanted: &str) {
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| self.samples.quantile(share) / 1e3);
        println!(
            "{what:<58} {:>4} {:>6} {p50:>8.2} {p90:>8.2} {p99:>8.2}   {wanted}",
            self.samples.values().len(),
            self.missed
        );
    }
}

/// Prints how long it took from the onset to everything that follows.
pub fn onset() -> Result<()> {
    let mut edge = Edge::start(&ONSET_STREAMS, ABOVE)?;
    println!(
        "{} streams of two nodes with {} flows each of {} Mbit/s, all sampled, pulses of 100 ms; loss {:.1} % to {:.1} %, \
         rule above {:.1} % of 10 s without hold",
        ONSET_STREAMS.len(),
        edge::FLOWS,
        edge::MBIT_PER_S,
        USUAL * 100.0,
        USUAL * TIMES * 100.0,
        ABOVE * 100.0
    );
    clock::wait_until(LEARN, || false);
    let mut random = StdRng::seed_from_u64(7);
    let (mut suspects, mut pages, mut rules, mut tumbling) = <[Delays; 4]>::default().into();
    let mut after_true = Delays::default();
    let mut early = 0;
    for round in 0..ROUNDS {
        let onsets_ms = lose(&mut edge, &mut random)?;
        let heard = edge.heard();
        for (stream, onset_ms) in ONSET_STREAMS.iter().zip(onsets_ms) {
            early += usize::from(heard.is_on(stream.name, onset_ms));
            let found = Found::of(&heard, stream.name, onset_ms);
            println!("  round {round} {} at {onset_ms}: {found}", stream.name);
            suspects.push(found.suspect);
            pages.push(found.page);
            rules.push(found.crossed);
            tumbling.push(found.tumbling);
            let late = found.page.zip(found.crossed);
            after_true.push(late.map(|(page, crossed)| page - crossed));
        }
    }
    println!(
        "\n{:<58} {:>4} {:>6} {:>8} {:>8} {:>8}",
        "seconds from the onset until", "n", "never", "p50", "p90", "p99"
    );
    suspects.print("a suspect alert is in the topic", "p50 <= 0.5, p99 <= 1.5");
    pages.print(
        "the page is at the webhook behind Alertmanager",
        "p50 <= 3 where two nodes agree",
    );
    rules.print("(the true ratio of 10 s is above the threshold)", "");
    tumbling.print(
        "a tumbling window of 10 s above it could be read",
        "for comparison",
    );
    after_true.print("page, from the true crossing on", "<= 2");
    println!("alerts that were on before their onset: {early}");
    edge.stop()
}

/// Lets the streams lose more for a while, one after the other, and recover; their onsets, Unix ms.
fn lose(edge: &mut Edge, random: &mut StdRng) -> Result<Vec<u64>> {
    let mut onsets_ms = Vec::new();
    for stream in 0..ONSET_STREAMS.len() {
        // Windows and pulses begin at whole moments; an onset does not.
        let lead = Duration::from_millis(random.random_range(0..2_000));
        clock::wait_until(lead, || false);
        onsets_ms.push(unix_ms());
        edge.set_loss(stream, USUAL * TIMES)?;
        clock::wait_until(APART, || false);
    }
    clock::wait_until(LOSS - APART, || false);
    for stream in 0..ONSET_STREAMS.len() {
        edge.set_loss(stream, USUAL)?;
        clock::wait_until(APART, || false);
    }
    clock::wait_until(REST, || false);
    Ok(onsets_ms)
}

/// Delays of one trial, ms.
struct Found {
    suspect: Option<i64>,
    page: Option<i64>,
    crossed: Option<i64>,
    tumbling: Option<i64>,
}

impl Found {
    fn of(heard: &Heard, stream: &str, onset_ms: u64) -> Self {
        let since = |moment_ms: Option<u64>| moment_ms.map(|ms| ms as i64 - onset_ms as i64);
        Self {
            suspect: since(heard.suspect_after(stream, onset_ms)),
            page: since(heard.page_after(stream, onset_ms)),
            crossed: since(heard.crossed_after(stream, onset_ms, ABOVE)),
            tumbling: since(heard.tumbled_after(stream, onset_ms, ABOVE)),
        }
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = |ms: Option<i64>| {
            ms.map_or_else(
                || "never".to_owned(),
                |ms| format!("{:.2} s", ms as f64 / 1e3),
            )
        };
        write!(
            to,
            "suspect {}, page {}, true crossing {}, tumbling {}",
            seconds(self.suspect),
            seconds(self.page),
            seconds(self.crossed),
            seconds(self.tumbling)
        )
    }
}

/// Prints what was raised though nothing changed.
pub fn steady(length: Option<Duration>) -> Result<()> {
    let length = length.unwrap_or(STEADY);
    let edge = Edge::start(&STEADY_STREAMS, ABOVE_STEADY)?;
    println!(
        "{} s of steady traffic, rule above {:.1} % of 10 s without hold",
        length.as_secs(),
        ABOVE_STEADY * 100.0
    );
    let begin_ms = unix_ms();
    let mut left = length;
    while !left.is_zero() {
        let step = left.min(Duration::from_secs(60));
        clock::wait_until(step, || false);
        left -= step;
        let minutes = (length - left).as_secs() / 60;
        if minutes.is_multiple_of(5) {
            println!("  {minutes} min");
        }
    }
    let heard = edge.heard();
    println!(
        "{:<10} {:>8} {:>12} {:>10} {:>8} {:>8}",
        "stream", "loss", "ratio", "windows", "suspects", "pages"
    );
    for stream in &STEADY_STREAMS {
        let (retrans_segs, data_segs_out, windows) = heard.sums(stream.name);
        ensure!(windows > 0, "no window of {}", stream.name);
        println!(
            "{:<10} {:>6.1} % {:>10.3} % {windows:>10} {:>8} {:>8}",
            stream.name,
            stream.loss * 100.0,
            retrans_segs as f64 / data_segs_out as f64 * 100.0,
            heard.suspects_since(stream.name, begin_ms),
            heard.pages_since(stream.name, begin_ms)
        );
    }
    edge.stop()
}
