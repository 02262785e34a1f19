//! Prints how often the intervals of estimates hold the truth: `cargo run --release --example coverage [POPULATIONS]`.

mod simulation;

use simulation::{Coverage, Setting, Tail, run};

fn main() {
    let populations = std::env::args()
        .nth(1)
        .map_or(Ok(10_000), |text| text.parse());
    let Ok(populations) = populations else {
        eprintln!("usage: coverage [POPULATIONS]");
        std::process::exit(2);
    };
    println!("{populations} populations each, coefficient of variation 2, confidence 0.95");
    println!("quantity  tail   rate  flows  insufficient  lower end missed  interval holds");
    for tail in [Tail::Light, Tail::Heavy] {
        for rate in [0.1, 0.5] {
            for flows in [30, 100, 300, 1000] {
                let seed = 20_261_122 + u64::from(flows);
                let setting = Setting {
                    tail,
                    populations,
                    flows,
                    rate,
                    seed,
                };
                let outcome = run(setting);
                print("total", &setting, &outcome.total);
                print("ratio", &setting, &outcome.ratio);
            }
        }
    }
}

fn print(quantity: &str, setting: &Setting, coverage: &Coverage) {
    println!(
        "{quantity:<8}  {:<5} {:>5} {:>6} {:>13} {:>17.4} {:>15.4}",
        format!("{:?}", setting.tail).to_lowercase(),
        setting.rate,
        setting.flows,
        coverage.insufficient,
        coverage.low_missed_share(),
        coverage.covered_share()
    );
}
