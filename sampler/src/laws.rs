//! The ledger's laws, in one place. Pure.
//!
//! Input: the window stage's and the sink's books. Output: both sides of every law. Whoever shows or asserts a law takes it from here:
//! the heartbeat (`broken_laws`), `/metrics` (`flowvitals_ledger_difference`), the tests.
//! Units: flows, events.

use crate::sink::Totals;
use crate::stage::heartbeat::FlowTotals;

/// Two numbers that are equal as long as nothing is lost unexplained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Law {
    /// What must be equal.
    pub name: &'static str,
    /// Left side.
    pub left: u64,
    /// Right side.
    pub right: u64,
}

impl Law {
    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.left == self.right
    }

    /// Left less right.
    pub fn difference(&self) -> i128 {
        i128::from(self.left) - i128::from(self.right)
    }
}

/// Laws of flows; they hold at every window edge.
pub fn of_flows(flows: &FlowTotals) -> [Law; 2] {
    [
        Law {
            name: "flows_selected = flows_sampled + flows_refused",
            left: flows.flows_selected,
            right: flows.flows_sampled + flows.flows_refused,
        },
        Law {
            name: "flows_sampled + flows_picked_up = flows_closed + flows_open",
            left: flows.flows_sampled + flows.flows_picked_up,
            right: flows.flows_closed + flows.flows_open,
        },
    ]
}

/// Laws of events; they hold at all times.
pub fn of_events(totals: &Totals) -> [Law; 3] {
    let earlier = &totals.earlier;
    [
        Law {
            name: "events_produced = delivered + dropped + dead_letter + waiting + spooled",
            left: totals.produced,
            right: totals.delivered
                + totals.dropped
                + totals.dead_letter
                + totals.waiting
                + totals.spooled,
        },
        Law {
            name: "events_dropped = queue + spool + unreadable",
            left: totals.dropped,
            right: totals.dropped_by.sum(),
        },
        Law {
            name: "earlier_found = delivered + dropped + dead_letter + waiting + spooled",
            left: earlier.found,
            right: earlier.delivered
                + earlier.dropped.sum()
                + earlier.dead_letter
                + earlier.waiting
                + earlier.spooled,
        },
    ]
}

/// That the window stage and the sink count the same events; holds whenever the stage's events were handed over.
pub fn of_hand_over(flows: &FlowTotals, totals: &Totals) -> Law {
    Law {
        name: "events made = events handed to the sink",
        left: flows.events_produced,
        right: totals.produced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_event_breaks_just_its_law() {
        let mut totals = Totals {
            produced: 10,
            delivered: 4,
            dropped: 3,
            dead_letter: 1,
            waiting: 1,
            spooled: 1,
            ..Totals::default()
        };
        totals.dropped_by.queue = 1;
        totals.dropped_by.spool = 2;
        assert!(of_events(&totals).iter().all(Law::holds));
        totals.delivered -= 1;
        let broken: Vec<Law> = of_events(&totals)
            .into_iter()
            .filter(|law| !law.holds())
            .collect();
        assert_eq!(broken.len(), 1);
        assert_eq!((broken[0].left, broken[0].difference()), (10, 1));
        totals.earlier.found = 5;
        assert_eq!(of_events(&totals)[2].difference(), 5);
    }

    #[test]
    fn flows_and_hand_over() {
        let flows = FlowTotals {
            flows_selected: 5,
            flows_sampled: 4,
            flows_refused: 1,
            flows_closed: 1,
            flows_open: 3,
            events_produced: 2,
            ..FlowTotals::default()
        };
        assert!(of_flows(&flows).iter().all(Law::holds));
        let totals = Totals::default();
        assert_eq!(of_hand_over(&flows, &totals).difference(), 2);
    }
}
