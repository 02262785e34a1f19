//! The plot: which stream suffers when.

use std::time::Duration;

use anyhow::Result;
use lab::clock;
use lab::filter::{Selector, Towards};
use lab::network::Network;

use super::consumer::Consumer;
use super::interrupt;
use super::streams::ALL;
use super::table::Table;

/// Loss that every network has.
const CALM: f64 = 0.001;

/// Something that happens to the network.
enum Change {
    /// Loss towards the players of this stream, 0..1.
    Loss(usize, f64),
    /// Nothing gets through to or from the players of this stream, or all of it again.
    Blackout(usize, bool),
}

/// A part of the demo.
struct Act {
    title: &'static str,
    changes: &'static [Change],
    length: Duration,
}

const ACTS: [Act; 5] = [
    Act {
        title: "all is calm: 0.1 % loss",
        changes: &[
            Change::Loss(0, CALM),
            Change::Loss(1, CALM),
            Change::Loss(2, CALM),
        ],
        length: Duration::from_secs(12),
    },
    Act {
        title: "sport-1 loses 3 % of its segments",
        changes: &[Change::Loss(0, 0.03)],
        length: Duration::from_secs(12),
    },
    Act {
        title: "sport-1 recovers, news loses 8 %",
        changes: &[Change::Loss(0, CALM), Change::Loss(1, 0.08)],
        length: Duration::from_secs(12),
    },
    Act {
        title: "news recovers, kids is cut off for 3 s",
        changes: &[Change::Loss(1, CALM), Change::Blackout(2, true)],
        length: Duration::from_secs(3),
    },
    Act {
        title: "kids is back, all is calm",
        changes: &[Change::Blackout(2, false)],
        length: Duration::from_secs(10),
    },
];

/// Plays all acts, showing the windows as they arrive.
pub fn acts(network: &mut Network, consumer: &Consumer, table: &mut Table) -> Result<()> {
    for act in &ACTS {
        for change in act.changes {
            match *change {
                Change::Loss(stream, loss) => {
                    let selector = Selector::port(ALL[stream].port);
                    network.set_loss(Towards::Client, &selector, loss)?;
                }
                Change::Blackout(stream, on) => {
                    network.blackout(&Selector::port(ALL[stream].port), on)?;
                }
            }
        }
        table.title(act.title);
        let end = clock::now() + act.length;
        while clock::now() < end {
            if interrupt::came() {
                return Ok(());
            }
            show(consumer, table);
        }
    }
    Ok(())
}

/// Shows windows until Ctrl-C.
pub fn until_interrupt(consumer: &Consumer, table: &mut Table) {
    while !interrupt::came() {
        show(consumer, table);
    }
}

fn show(consumer: &Consumer, table: &mut Table) {
    for event in consumer.drain(Duration::from_millis(100)) {
        table.take(event, true);
    }
}
