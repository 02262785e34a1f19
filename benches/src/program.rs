//! Nanoseconds per run of the sock_ops program. Budgets: 60 ns for a connection that is not
//! sampled, under a plain rule.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use lab::{
    network::{Network, Options},
    traffic::{self, plan::Plan, server::Listen},
};

use crate::setup;

/// Rounds per row; the median is printed.
const ROUNDS: usize = 5;

fn median(mut ns: Vec<f64>) -> f64 {
    ns.sort_by(f64::total_cmp);
    ns[ns.len() / 2]
}

/// Prints the table.
pub fn run() -> Result<()> {
    let _stats = setup::Stats::on()?;
    let network = Network::new(Options::default())?;
    let server = SocketAddr::new(network.server_v4(), 8200);
    println!("\nprogram: ns per run, median of {ROUNDS} (other flows of the machine run it too)");
    for (name, rate, bulk) in [
        ("short connections, none sampled", 0.0, false),
        ("short connections, 10 % sampled", 0.1, false),
        ("short connections, all sampled", 1.0, false),
        ("bulk, all sampled (RTT callbacks)", 1.0, true),
    ] {
        let mut ns = Vec::new();
        let mut total_runs = 0;
        for _ in 0..ROUNDS {
            let probe = setup::attach(&[server], rate)?;
            if bulk {
                let plan = Plan::new("bulk", 20, vec![server]).asking(20, 500_000, Duration::ZERO);
                traffic::run(&network, &[Listen::new(server)], &[plan])?;
            } else {
                setup::short(&network, server, 2000)?;
            }
            let (run_ns, runs) = setup::cost(&probe);
            total_runs += runs;
            ns.push(run_ns as f64 / runs.max(1) as f64);
        }
        println!("{name:<36} {:>7.1} ns  ({total_runs} runs)", median(ns));
    }
    Ok(())
}
