//! Prints how often the detector and a rule cry wolf, and how soon they see a change:
//! `cargo run --release -p aggregator --example false_alarms [STREAM_DAYS]`.

mod simulation;

use simulation::{DAY_MS, Delays, Setting, Simulation, delays};

fn main() {
    let days = std::env::args().nth(1).map_or(Ok(10), |text| text.parse());
    let Ok(days) = days else {
        eprintln!("usage: false_alarms [STREAM_DAYS]");
        std::process::exit(2);
    };
    println!(
        "a day: tide, match and final whistle, every node drained and restarted once; rule above 2 %"
    );
    println!(
        "nodes  flows  usual ratio  stream-days  suspects/stream-day  agreements/stream-day  pages"
    );
    for (nodes, flows, ratio) in [(2, 100.0, 0.005), (5, 200.0, 0.005), (5, 200.0, 0.001)] {
        let mut all = [0; 3];
        for day in 0..days {
            let setting = Setting {
                nodes,
                flows,
                ratio,
                day: true,
                seed: 1_000 + day,
            };
            let mut simulation = Simulation::new(setting, 0);
            simulation.run(DAY_MS);
            let outcome = simulation.outcome;
            let counts = [outcome.suspects_ms, outcome.agreements_ms, outcome.pages_ms];
            all.iter_mut()
                .zip(counts)
                .for_each(|(sum, found)| *sum += found.len());
        }
        let by_day = |count: usize| count as f64 / days as f64;
        println!(
            "{nodes:>5} {flows:>6} {ratio:>12} {days:>12} {:>20.2} {:>22.2} {:>6}",
            by_day(all[0]),
            by_day(all[1]),
            all[2]
        );
    }
    println!(
        "\nloss x3; ms from the change to the end of the pulse (page: until it is said), 1,000 trials"
    );
    println!(
        "nodes  flows  usual ratio  suspected p50/p90/p99   agreed p50/p99      page p50/p99        suspected before"
    );
    for (nodes, flows, ratio) in [
        (2, 100.0, 0.01),
        (2, 100.0, 0.005),
        (2, 100.0, 0.002),
        (5, 300.0, 0.005),
    ] {
        let setting = Setting {
            nodes,
            flows,
            ratio,
            day: false,
            seed: 42,
        };
        let ([suspected, agreed, page], early) = delays(setting, 3.0, 1_000);
        println!(
            "{nodes:>5} {flows:>6} {ratio:>12}  {:<22}  {:<18}  {:<18}  {early}",
            quantiles(&suspected, &[0.5, 0.9, 0.99]),
            quantiles(&agreed, &[0.5, 0.99]),
            quantiles(&page, &[0.5, 0.99])
        );
    }
}

fn quantiles(delays: &Delays, which: &[f64]) -> String {
    let found = which.iter().map(|q| {
        let delay = delays.quantile(*q);
        delay.map_or_else(|| "never".to_owned(), |ms| ms.to_string())
    });
    found.collect::<Vec<_>>().join("/")
}
