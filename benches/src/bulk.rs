//! CPU time of bulk transfer, off and on. A loopback's round trip is a thousand times shorter than a
//! viewer's, and so are the times between two callbacks: no real network comes near this.

use anyhow::Result;

use crate::interleaved::Work;

/// Prints the table.
pub fn run() -> Result<()> {
    Work {
        port: 8202,
        rounds: 40,
        connections: 20,
        bytes: 25_000_000,
        unit: "CPU s/GB",
        cost: |work, cpu_s| cpu_s * 1e9 / (work.connections * work.bytes) as f64,
    }
    .run()
}
