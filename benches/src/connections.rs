//! Short connections with the sampler off and on, interleaved. Budget: on/off ≤ 1.005 at 10 %.

use std::net::SocketAddr;

use anyhow::Result;
use lab::network::{Network, Options};

use crate::setup;

const ROUNDS: usize = 12;
const CONNECTIONS: usize = 2000;
const RATES: [Option<f64>; 4] = [None, Some(0.0), Some(0.1), Some(1.0)];

/// Prints the table.
pub fn run() -> Result<()> {
    let network = Network::new(Options::default())?;
    let server = SocketAddr::new(network.server_v4(), 8201);
    let mut us = vec![Vec::new(); RATES.len()];
    setup::short(&network, server, CONNECTIONS)?;
    for round in 0..ROUNDS {
        for turn in 0..RATES.len() {
            // The order rotates, so that drift meets every row alike.
            let row = (turn + round) % RATES.len();
            let probe = RATES[row]
                .map(|rate| setup::attach(&[server], rate))
                .transpose()?;
            let took = setup::short(&network, server, CONNECTIONS)?;
            drop(probe);
            us[row].push(took.as_secs_f64() * 1e6 / CONNECTIONS as f64);
        }
    }
    println!("\nconnections: us per 1 kB connection, {ROUNDS} interleaved rounds of {CONNECTIONS}");
    let mut off = 0.0;
    for (rate, mut row) in RATES.iter().zip(us) {
        row.sort_by(f64::total_cmp);
        let median = row[row.len() / 2];
        if rate.is_none() {
            off = median;
        }
        let name = rate.map_or("off".to_owned(), |r| format!("at {r}"));
        println!(
            "{name:<8} median {median:>7.2}  fastest {:>7.2}  slowest {:>7.2}  on/off {:.3}",
            row[0],
            row[row.len() - 1],
            median / off
        );
    }
    Ok(())
}
