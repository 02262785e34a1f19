//! CPU time of short connections, off and on. Budget: on/off ≤ 1.005 at 10 %.

use anyhow::Result;

use crate::interleaved::Work;

/// Prints the table.
pub fn run() -> Result<()> {
    Work {
        port: 8201,
        rounds: 70,
        connections: 1_500,
        bytes: 1_000,
        unit: "CPU us/connection",
        cost: |work, cpu_s| cpu_s * 1e6 / work.connections as f64,
    }
    .run()
}
