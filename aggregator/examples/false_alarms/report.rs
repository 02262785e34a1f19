//! The tables.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use aggregator::alert::Design;

use super::Setting;
use super::day::DAY_MS;
use super::delays::{self, Delays, Found};
use super::streams::Stream;
use super::world::{Cause, Outcome, World};

/// What days brought: suspicions without and with a cause, stretches of agreement, wrong and right pages.
type Counts = [usize; 5];

/// Does all the work on some threads, results in the order of the work.
fn on_threads<W: Sync, R: Send>(work: &[W], jobs: usize, run: impl Fn(&W) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (send, next, run) = (send.clone(), &next, &run);
            scope.spawn(move || {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(piece) = work.get(place) else { break };
                    if send.send((place, run(piece))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let mut results: Vec<Option<R>> = work.iter().map(|_| None).collect();
        for (done, (place, result)) in receive.iter().enumerate() {
            results[place] = Some(result);
            if (done + 1).is_multiple_of(20) || done + 1 == work.len() {
                eprintln!("{} of {}", done + 1, work.len());
            }
        }
        results.into_iter().flatten().collect()
    })
}

fn day(setting: Setting, designs: &[Design]) -> Vec<Counts> {
    let mut world = World::new(setting, designs, 0);
    world.run(DAY_MS);
    world.watchers.iter().map(|w| counts(&w.outcome)).collect()
}

fn counts(outcome: &Outcome) -> Counts {
    let chance = |(_, cause): &&(u64, Cause)| *cause == Cause::None;
    let by_chance = outcome.suspects.iter().filter(chance).count();
    let far = |pair: &[u64]| pair[1].saturating_sub(pair[0]) > 5_000;
    let agreements = &outcome.agreements_ms;
    let first = usize::from(!agreements.is_empty());
    [
        by_chance,
        outcome.suspects.len() - by_chance,
        first + agreements.windows(2).filter(|pair| far(pair)).count(),
        outcome.pages_ms.len().saturating_sub(outcome.right),
        outcome.right,
    ]
}

/// How often it cries wolf.
pub fn days(
    streams: &[(usize, Stream)],
    of_the_commonest: u64,
    seed: u64,
    jobs: usize,
    designs: &[Design],
) {
    if of_the_commonest == 0 {
        return;
    }
    println!(
        "suspicions of nothing, of something real but brief, nodes agreed: a stream-day; pages: all, right where the true ratio was above the rule's bound"
    );
    println!(
        "{:<36} {:>6} {:>9} {:>7} {:>7} {:>12} {:>12}",
        "stream", "days", "nothing", "brief", "agreed", "wrong pages", "right pages"
    );
    let mut all = vec![(0, [0; 5]); designs.len()];
    for (kind, stream) in streams {
        let days = (of_the_commonest * stream.part).div_ceil(100);
        let begin = seed + 10_000 * *kind as u64;
        let seeds: Vec<_> = (begin..begin + days).collect();
        let setting = stream.setting;
        let results = on_threads(&seeds, jobs, |seed| {
            let seed = *seed;
            day(Setting { seed, ..setting }, designs)
        });
        if results.is_empty() {
            continue;
        }
        for (place, all) in all.iter_mut().enumerate() {
            let mut sums = [0; 5];
            for counts in &results {
                (0..5).for_each(|of| sums[of] += counts[place][of]);
            }
            row(stream.name, results.len(), sums);
            all.0 += results.len();
            (0..5).for_each(|of| all.1[of] += sums[of]);
        }
    }
    all.into_iter()
        .for_each(|(days, sums)| row("all", days, sums));
}

fn row(name: &str, days: usize, sums: Counts) {
    let by_day = |place: usize| sums[place] as f64 / days as f64;
    println!(
        "{name:<36} {days:>6} {:>9.2} {:>7.2} {:>7.2} {:>12} {:>12}",
        by_day(0),
        by_day(1),
        by_day(2),
        sums[3],
        sums[4]
    );
}

/// How soon it sees a change.
pub fn delays(
    streams: &[(usize, Stream)],
    trials: usize,
    seed: u64,
    jobs: usize,
    designs: &[Design],
) {
    if trials == 0 {
        return;
    }
    let results = on_threads(streams, jobs, |(_, stream)| {
        of_changes(stream, trials, seed, designs)
    });
    println!(
        "\nloss x 3; ms from the change to the arrival of the deciding pulse (page: until it is said); {trials} changes each"
    );
    println!(
        "{:<36} {:<22} {:<18} {:<18} suspected before",
        "stream", "suspected p50/p90/p99", "agreed p50/p99", "page p50/p99"
    );
    let all = streams.iter().map(|(_, stream)| stream).zip(&results);
    for (stream, found) in all.flat_map(|(stream, all)| all.iter().map(move |f| (stream, f))) {
        println!(
            "{:<36} {:<22} {:<18} {:<18} {}",
            stream.name,
            quantiles(&found.suspected, &[0.5, 0.9, 0.99]),
            quantiles(&found.agreed, &[0.5, 0.99]),
            quantiles(&found.page, &[0.5, 0.99]),
            found.early
        );
    }
}

fn of_changes(stream: &Stream, trials: usize, seed: u64, designs: &[Design]) -> Vec<Found> {
    let setting = Setting {
        seed,
        day: false,
        ..stream.setting
    };
    delays::delays(setting, designs, 3.0, trials)
}

fn quantiles(delays: &Delays, which: &[f64]) -> String {
    let found = which.iter().map(|q| {
        let delay = delays.quantile(*q);
        delay.map_or_else(|| "never".to_owned(), |ms| ms.to_string())
    });
    found.collect::<Vec<_>>().join("/")
}
