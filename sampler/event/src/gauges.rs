//! The numbers of a window that say how things stand at one moment, and do not add up over time.
//!
//! Input: windows of one node and rate. Output: the state at the end of the newest one, and the peaks that give the least number
//! of distinct flows behind a horizon. Gauges of different nodes add up only for one moment.

use crate::StreamWindow;

/// State at the end of the newest window of one node and rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// End of that window, Unix time.
    pub end_ms: u64,
    /// Sampled flows open.
    pub flows_open: u64,
    /// Sampled open flows that another program unhooked.
    pub flows_unhooked: u64,
    /// Distinct flows with data in the window.
    pub flows_active: u64,
    /// Distinct flows with a retransmit in the window.
    pub flows_retransmitting: u64,
    /// Distinct flows with a stall in the window.
    pub flows_stalled: u64,
    /// Open flows without progress for the whole window.
    pub flows_silent: u64,
    /// Stalls open.
    pub stalls_open: u64,
}

impl Gauges {
    /// The gauges of a window.
    #[must_use]
    pub fn of(window: &StreamWindow) -> Self {
        Self {
            end_ms: end_ms(window),
            flows_open: window.flows_open,
            flows_unhooked: window.flows_unhooked,
            flows_active: window.flows_active,
            flows_retransmitting: window.flows_retransmitting,
            flows_stalled: window.flows_stalled,
            flows_silent: window.flows_silent,
            stalls_open: window.stalls_open,
        }
    }

    /// Keeps the newer state; of two for the same moment, the greater of each number.
    pub fn keep_newest(&mut self, other: &Self) {
        if other.end_ms > self.end_ms {
            *self = *other;
        } else if other.end_ms == self.end_ms {
            *self = self.combine(other, u64::max);
        }
    }

    /// Adds the state of another node or rate; the moment is the newer one.
    pub fn merge(&mut self, other: &Self) {
        *self = self.combine(other, u64::saturating_add);
    }

    fn combine(&self, other: &Self, number: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            end_ms: self.end_ms.max(other.end_ms),
            flows_open: number(self.flows_open, other.flows_open),
            flows_unhooked: number(self.flows_unhooked, other.flows_unhooked),
            flows_active: number(self.flows_active, other.flows_active),
            flows_retransmitting: number(self.flows_retransmitting, other.flows_retransmitting),
            flows_stalled: number(self.flows_stalled, other.flows_stalled),
            flows_silent: number(self.flows_silent, other.flows_silent),
            stalls_open: number(self.stalls_open, other.stalls_open),
        }
    }
}

/// End of a window, Unix time: its start and the time that it truly covers.
#[must_use]
pub fn end_ms(window: &StreamWindow) -> u64 {
    window
        .window_start_ms
        .saturating_add(u64::from(window.observed_ms.max(window.window_ms)))
}
