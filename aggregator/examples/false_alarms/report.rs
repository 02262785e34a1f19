//! The tables.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use aggregator::alert::Design;

use super::Setting;
use super::day::DAY_MS;
use super::delays::{self, Delays, Found};
use super::streams::{Stream, streams};
use super::world::{Cause, World};

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

fn day(setting: Setting) -> Counts {
    let mut world = World::new(setting, &[Design::default()], 0);
    world.run(DAY_MS);
    let mut counts = [0; 5];
    for outcome in world.watchers.iter().map(|watcher| &watcher.outcome) {
        let chance = |(_, cause): &&(u64, Cause)| *cause == Cause::None;
        counts[0] += outcome.suspects.iter().filter(chance).count();
        counts[1] += outcome.suspects.len() - counts[0];
        let far = |pair: &[u64]| pair[1].saturating_sub(pair[0]) > 5_000;
        let agreements = &outcome.agreements_ms;
        counts[2] += usize::from(!agreements.is_empty());
        counts[2] += agreements.windows(2).filter(|pair| far(pair)).count();
        counts[3] += outcome.pages_ms.len().saturating_sub(outcome.right);
        counts[4] += outcome.right;
    }
    counts
}

/// How often it cries wolf.
pub fn days(of_the_commonest: u64, seed: u64, jobs: usize) {
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
    let mut all = (0, [0; 5]);
    for (kind, stream) in streams().into_iter().enumerate() {
        let days = (of_the_commonest * stream.part).div_ceil(100);
        let begin = seed + 10_000 * kind as u64;
        let seeds: Vec<_> = (begin..begin + days).collect();
        let setting = stream.setting;
        let results = on_threads(&seeds, jobs, |seed| {
            day(Setting {
                seed: *seed,
                ..setting
            })
        });
        if results.is_empty() {
            continue;
        }
        let mut sums = [0; 5];
        for counts in &results {
            (0..5).for_each(|place| sums[place] += counts[place]);
        }
        row(stream.name, results.len(), sums);
        all.0 += results.len();
        (0..5).for_each(|place| all.1[place] += sums[place]);
    }
    row("all", all.0, all.1);
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
pub fn delays(trials: usize, seed: u64, jobs: usize) {
    if trials == 0 {
        return;
    }
    let kinds = streams();
    let results = on_threads(&kinds, jobs, |stream| of_changes(stream, trials, seed));
    println!(
        "\nloss x 3; ms from the change to the end of the deciding pulse (page: until it is said); {trials} changes each"
    );
    println!(
        "{:<36} {:<22} {:<18} {:<18} suspected before",
        "stream", "suspected p50/p90/p99", "agreed p50/p99", "page p50/p99"
    );
    for (stream, found) in kinds.iter().zip(&results) {
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

fn of_changes(stream: &Stream, trials: usize, seed: u64) -> Found {
    let setting = Setting {
        seed,
        day: false,
        ..stream.setting
    };
    let found = delays::delays(setting, &[Design::default()], 3.0, trials);
    found.into_iter().next().unwrap_or_default()
}

fn quantiles(delays: &Delays, which: &[f64]) -> String {
    let found = which.iter().map(|q| {
        let delay = delays.quantile(*q);
        delay.map_or_else(|| "never".to_owned(), |ms| ms.to_string())
    });
    found.collect::<Vec<_>>().join("/")
}
