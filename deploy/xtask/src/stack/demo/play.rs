//! The plot: which stream suffers when.

use std::time::Duration;

use anyhow::Result;
use lab::clock;
use lab::filter::{Selector, Towards};
use lab::network::Network;

use super::streams::ALL;
use crate::interrupt;

/// Where the audience looks.
pub trait Screen {
    /// An act begins.
    fn title(&mut self, title: &str);
    /// A stream begins to lose.
    fn loses(&mut self, _stream: &str) {}
    /// Shows what is new; takes about a tenth of a second.
    fn show(&mut self, network: &Network) -> Result<()>;
    /// Holds what applications are told against the kernel.
    fn account(&mut self, _network: &Network) -> Result<()> {
        Ok(())
    }
}

/// Loss that every network has.
const CALM: f64 = 0.001;

/// Loss towards the players of a stream (its index), 0..1.
struct Loss(usize, f64);

/// A part of the demo.
struct Act {
    title: &'static str,
    changes: &'static [Loss],
    length: Duration,
    /// Whether an account closes it.
    account: bool,
}

const ACTS: [Act; 5] = [
    Act {
        title: "all is calm: 0.1 % loss; the aggregator learns what is usual",
        changes: &[Loss(0, CALM), Loss(1, CALM), Loss(2, CALM)],
        length: Duration::from_secs(75),
        account: false,
    },
    Act {
        title: "sport-1 loses 3 % of its segments",
        changes: &[Loss(0, 0.03)],
        length: Duration::from_secs(12),
        account: true,
    },
    Act {
        title: "sport-1 recovers, news loses 8 %",
        changes: &[Loss(0, CALM), Loss(1, 0.08)],
        length: Duration::from_secs(12),
        account: false,
    },
    Act {
        // Requests still arrive: the edge has data to send and none of it gets through.
        title: "news recovers, nothing reaches the players of kids for 3 s",
        changes: &[Loss(1, CALM), Loss(2, 1.0)],
        length: Duration::from_secs(3),
        account: false,
    },
    Act {
        title: "kids is back, all is calm",
        changes: &[Loss(2, CALM)],
        length: Duration::from_secs(10),
        account: false,
    },
];

/// Plays all acts before the screen.
pub fn acts(network: &mut Network, screen: &mut impl Screen) -> Result<()> {
    for act in &ACTS {
        for Loss(stream, probability) in act.changes {
            let selector = Selector::port(ALL[*stream].port);
            network.set_loss(Towards::Client, &selector, *probability)?;
            if *probability > CALM {
                screen.loses(ALL[*stream].name);
            }
        }
        screen.title(act.title);
        let end = clock::now() + act.length;
        while clock::now() < end {
            if interrupt::came() {
                return Ok(());
            }
            screen.show(network)?;
        }
        if act.account {
            screen.account(network)?;
        }
    }
    Ok(())
}

/// Goes on as it is until Ctrl-C.
pub fn until_interrupt(network: &Network, screen: &mut impl Screen) -> Result<()> {
    while !interrupt::came() {
        screen.show(network)?;
    }
    Ok(())
}
