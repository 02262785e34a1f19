//! Delay and loss of the link, by the kernel's own network emulator on each side's device.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::command;
use lab::network::{DEVICE, Network};

/// What the link does to packets.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Each way.
    pub delay: Duration,
    /// Share of packets towards the client that are lost, in percent.
    pub loss_to_client_percent: u8,
    /// The same towards the server.
    pub loss_to_server_percent: u8,
}

impl Path {
    /// Short, with loss in both directions.
    pub const LOSSY: Self = Self {
        delay: Duration::from_millis(2),
        loss_to_client_percent: 5,
        loss_to_server_percent: 1,
    };

    /// Nothing is lost.
    pub fn delayed(delay: Duration) -> Self {
        Self {
            delay,
            loss_to_client_percent: 0,
            loss_to_server_percent: 0,
        }
    }

    /// Everything is lost.
    pub fn dark(self) -> Self {
        Self {
            loss_to_client_percent: 100,
            loss_to_server_percent: 100,
            ..self
        }
    }
}

/// Sets it; packets on their way stay there.
pub fn set(network: &Network, path: Path) -> Result<()> {
    let sides = [
        (network.server(), path.loss_to_client_percent),
        (network.client(), path.loss_to_server_percent),
    ];
    for (side, loss) in sides {
        let delay = path.delay.as_millis();
        // More packets than are ever on their way: the queue itself loses none.
        let words = format!(
            "qdisc replace dev {DEVICE} root netem limit 100000 delay {delay}ms loss {loss}%"
        );
        command::run(side.command("tc").args(words.split(' '))).context("netem")?;
    }
    Ok(())
}
