//! The counters of a window that add up over windows, rates and nodes.
//!
//! Input: windows. Output: sums, of sampled flows and not scaled, in the unit that ends each name. Sums stop at 2^64 − 1, so that
//! order never matters and junk cannot wrap them.

use serde::{Deserialize, Serialize};

use crate::StreamWindow;

/// Number of random groups.
pub const GROUPS: usize = 16;

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// Sums of the additive counters; definitions are those of the fields of the same names in [`StreamWindow`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Counters {
            $($(#[$doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// Adds a window.
            pub fn add(&mut self, window: &StreamWindow) {
                $(self.$name = self.$name.saturating_add(window.$name);)+
            }

            /// Adds other sums.
            pub fn merge(&mut self, other: &Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)+
            }

            /// Names of all counters. New ones are added at the end: rows are stored in this order.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// The sums, in the order of [`Self::NAMES`].
            #[must_use]
            pub fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$name),+]
            }

            /// The sums from their numbers, in the order of [`Self::NAMES`]; those that are absent are 0.
            #[must_use]
            pub fn of_values(values: &[u64]) -> Self {
                let mut values = values.iter().copied();
                Self { $($name: values.next().unwrap_or(0),)+ }
            }
        }
    };
}

counters! {
    /// Handshakes completed. Exact.
    flows_seen,
    /// Flows that the hash chose.
    flows_selected,
    /// Flows chosen and admitted.
    flows_sampled,
    /// Sampled flows closed.
    flows_closed,
    /// Flows found open at start.
    flows_picked_up,
    /// Payload bytes sent, retransmitted ones included.
    bytes_sent,
    /// Payload bytes acknowledged.
    bytes_acked,
    /// Payload bytes sent again.
    bytes_retrans,
    /// Segments with payload sent.
    data_segs_out,
    /// Segments retransmitted after the handshake.
    retrans_segs,
    /// Of those: after a timeout.
    retrans_rto_segs,
    /// Of those: in fast recovery.
    retrans_fast_segs,
    /// Of those: any other cause.
    retrans_other_segs,
    /// Retransmits that the node failed to send.
    retrans_failed_segs,
    /// SYN-ACKs sent again.
    syn_retrans,
    /// Expiries of the retransmission timer.
    rto_count,
    /// Duplicates reported by DSACK.
    dsack_dups,
    /// Round-trip samples; of one source as long as the strata have one.
    rtt_count,
    /// Their sum; of one source as long as the strata have one.
    rtt_sum_us,
    /// Stalls recognised.
    stalls,
    /// Stalled time, network.
    stall_network_us,
    /// Stalled time, receiver.
    stall_receiver_us,
    /// Stalled time, sender.
    stall_sender_us,
    /// Stalled time, other causes.
    stall_other_us,
    /// Time with data outstanding.
    busy_us,
    /// Time limited by the receive window.
    rwnd_limited_us,
    /// Time limited by the send buffer.
    sndbuf_limited_us,
}

macro_rules! groups {
    ($($(#[$doc:meta])+ $name:ident = $wire:ident,)+) => {
        /// Sums per random group; `g_` on the wire.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Groups {
            $($(#[$doc])+ pub $name: [u64; GROUPS],)+
        }

        impl Groups {
            /// Adds a window; a field of another length than 16 counts as empty.
            pub fn add(&mut self, window: &StreamWindow) {
                $(if window.$wire.len() == GROUPS {
                    let sums = self.$name.iter_mut().zip(&window.$wire);
                    sums.for_each(|(sum, part)| *sum = sum.saturating_add(u64::from(*part)));
                })+
            }

            /// Adds other sums.
            pub fn merge(&mut self, other: &Self) {
                $(let sums = self.$name.iter_mut().zip(&other.$name);
                sums.for_each(|(sum, part)| *sum = sum.saturating_add(*part));)+
            }

            /// Names of all fields. New ones are added at the end: rows are stored in this order.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// The fields, in the order of [`Self::NAMES`].
            #[must_use]
            pub fn fields(&self) -> [&[u64; GROUPS]; Self::NAMES.len()] {
                [$(&self.$name),+]
            }

            /// The sums from their fields, in the order of [`Self::NAMES`]; those that are absent are 0.
            #[must_use]
            pub fn of_fields(fields: &[[u64; GROUPS]]) -> Self {
                let mut fields = fields.iter().copied();
                Self { $($name: fields.next().unwrap_or_default(),)+ }
            }

            /// The first group field of a window that has neither 16 numbers nor none, with its length.
            #[must_use]
            pub fn malformed(window: &StreamWindow) -> Option<(&'static str, usize)> {
                $(if !matches!(window.$wire.len(), 0 | GROUPS) {
                    return Some((stringify!($wire), window.$wire.len()));
                })+
                None
            }
        }
    };
}

groups! {
    /// Segments retransmitted.
    retrans_segs = g_retrans_segs,
    /// Segments with payload sent.
    data_segs_out = g_data_segs_out,
    /// Stalled time.
    stall_ms = g_stall_ms,
    /// Time with data outstanding.
    busy_ms = g_busy_ms,
    /// Round-trip samples.
    rtt_count = g_rtt_count,
    /// Round-trip samples above the stream's limit.
    rtt_slow = g_rtt_slow,
}
