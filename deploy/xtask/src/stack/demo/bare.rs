//! What is left to see where no eBPF program can be loaded: the kernel's own counters.

use std::time::{Duration, Instant};

use anyhow::Result;
use lab::clock;
use lab::counters::TcpCounters;
use lab::network::Network;

use super::play::Screen;

/// Between two rows.
const INTERVAL: Duration = Duration::from_secs(1);

/// The counters of the edge's namespace, a row a second.
pub struct KernelCounters {
    last: TcpCounters,
    next: Instant,
}

impl KernelCounters {
    /// Counts from now on.
    pub fn new(network: &Network) -> Result<Self> {
        Ok(Self {
            last: TcpCounters::read(network.server())?,
            next: clock::now() + INTERVAL,
        })
    }
}

impl Screen for KernelCounters {
    fn title(&mut self, title: &str) {
        println!(
            "\n== {title}\n{:>12} {:>14} {:>14}   in the last second, all streams together",
            "connections", "segments sent", "retransmitted"
        );
    }

    fn show(&mut self, network: &Network) -> Result<()> {
        std::thread::sleep(Duration::from_millis(100));
        if clock::now() < self.next {
            return Ok(());
        }
        self.next += INTERVAL;
        let now = TcpCounters::read(network.server())?;
        let second = now.since(&self.last);
        println!(
            "{:>12} {:>14} {:>14}",
            now.current_established,
            second.out_segs,
            second.data_retrans_segs()
        );
        self.last = now;
        Ok(())
    }
}
