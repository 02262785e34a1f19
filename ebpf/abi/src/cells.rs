//! Cumulative counters of one (stream, rate epoch, shard).
//!
//! The kernel side only ever adds, atomically; user space maps the cells, reads them and takes
//! differences. A slot is one (stream, rate epoch); each slot has `shards` cells that differ
//! only in which CPUs add to them. Cell index = slot × shards + shard.

use core::mem::offset_of;

use crate::hash::GROUPS;
use crate::histogram::{COARSE_BUCKETS, RTT_BUCKETS};

/// Most shards of a slot.
pub const MAX_SHARDS: u32 = 8;

/// Windows in which "active in the last 10 s" can look back: 10 s of 1 s windows.
pub const ACTIVE_GAPS: usize = 10;

/// Plain counters that are needed only as a whole; the others are in [`Group`]. Units are in the
/// names; `_jiffies` are the kernel's ticks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `tcp_sock.bytes_sent`, with retransmitted bytes.
    pub bytes_sent: u64,
    /// `tcp_sock.bytes_acked`, less one for an acknowledged FIN.
    pub bytes_acked: u64,
    /// Sum of the RTT samples, µs.
    pub rtt_sum_us: u64,
    /// Handshakes completed, whether selected or not.
    pub flows_seen: u64,
    /// Chosen by the hash.
    pub flows_selected: u64,
    /// Selected and admitted.
    pub flows_sampled: u64,
    /// Selected, but refused at the flow bound or for want of memory.
    pub flows_refused: u64,
    /// Admitted flows that ended.
    pub flows_closed: u64,
    /// Flows found open when the program came.
    pub flows_picked_up: u64,
    /// `tcp_sock.bytes_retrans`.
    pub bytes_retrans: u64,
    /// Of [`Group::retrans_segs`], sent in the Loss state.
    pub retrans_rto_segs: u64,
    /// Of these, sent in the Recovery state.
    pub retrans_fast_segs: u64,
    /// Of these, sent in any other state (mostly tail loss probes).
    pub retrans_other_segs: u64,
    /// Of these, those that the lower layer refused.
    pub retrans_failed_segs: u64,
    /// SYN-ACKs retransmitted before establishment.
    pub syn_retrans: u64,
    /// Expiries of the retransmission timer.
    pub rto_count: u64,
    /// `tcp_sock.dsack_dups`.
    pub dsack_dups: u64,
    /// Stalls recognised.
    pub stalls: u64,
    /// Stalls that ended: the difference to `stalls` is open.
    pub stalls_ended: u64,
    /// Time in stalls that retransmission timers bear witness to, µs.
    pub stall_network_us: u64,
    /// Time without progress that ended with no loss shown, µs.
    pub stall_other_us: u64,
    /// Chronograph: limited by the receiver's window.
    pub rwnd_limited_jiffies: u64,
    /// Chronograph: limited by the send buffer.
    pub sndbuf_limited_jiffies: u64,
    /// Always 0.
    pub reserved: [u64; 5],
}

/// Counts of distinct flows in one window. They exist twice, by the parity of
/// [`crate::control::Control::window`], so that a flow counted again in the next window cannot
/// slip into the difference that closes this one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distinct {
    /// Flows with data, by how many windows ago they had data before; index 0: never, or ten
    /// and more windows ago.
    pub active_by_gap: [u64; ACTIVE_GAPS],
    /// Flows with at least one retransmitted segment.
    pub retransmitting: u64,
    /// Flows with a stall that a callback saw.
    pub stalled: u64,
}

/// Extremes of one window; as [`Distinct`], twice. Written without atomics: a race between two
/// programs on one CPU can lose one extreme, never a count. User space resets the idle one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extremes {
    /// Smallest RTT sample, µs; [`u32::MAX`]: none.
    pub rtt_min_us: u32,
    /// Largest RTT sample, µs.
    pub rtt_max_us: u32,
    /// Longest stall, µs.
    pub stall_longest_us: u32,
    /// Always 0.
    pub reserved: u32,
}

impl Extremes {
    /// Before the first sample.
    pub const NONE: Self = Self {
        rtt_min_us: u32::MAX,
        rtt_max_us: 0,
        stall_longest_us: 0,
        reserved: 0,
    };
}

/// What the variance estimator needs, for one of the random groups. The whole is their sum.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// `tcp_sock.total_retrans` above its value at establishment.
    pub retrans_segs: u64,
    /// `tcp_sock.data_segs_out`.
    pub data_segs_out: u64,
    /// Stalled time seen by callbacks, all causes, µs.
    pub stall_us: u64,
    /// Chronograph: data outstanding or waiting.
    pub busy_jiffies: u64,
    /// RTT samples.
    pub rtt_count: u64,
    /// RTT samples above the stream's limit.
    pub rtt_slow: u64,
    /// Always 0.
    pub reserved: [u64; 2],
}

/// Everything counted for one slot on one shard.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Extremes, by parity of the window.
    pub extremes: [Extremes; 2],
    /// Plain counters.
    pub counters: Counters,
    /// Distinct flows, by parity of the window.
    pub distinct: [Distinct; 2],
    /// The random groups.
    pub groups: [Group; GROUPS],
    /// RTT samples.
    pub rtt: [u64; RTT_BUCKETS],
    /// RTT of handshakes.
    pub rtt_handshake: [u64; COARSE_BUCKETS],
    /// Minimum RTT of flows, once per flow and window with samples.
    pub rtt_min: [u64; COARSE_BUCKETS],
    /// Always 0.
    pub reserved: [u64; 2],
}

impl Cell {
    /// A cell in which nothing was counted.
    pub const EMPTY: Self = Self {
        extremes: [Extremes::NONE; 2],
        counters: Counters {
            bytes_sent: 0,
            bytes_acked: 0,
            rtt_sum_us: 0,
            flows_seen: 0,
            flows_selected: 0,
            flows_sampled: 0,
            flows_refused: 0,
            flows_closed: 0,
            flows_picked_up: 0,
            bytes_retrans: 0,
            retrans_rto_segs: 0,
            retrans_fast_segs: 0,
            retrans_other_segs: 0,
            retrans_failed_segs: 0,
            syn_retrans: 0,
            rto_count: 0,
            dsack_dups: 0,
            stalls: 0,
            stalls_ended: 0,
            stall_network_us: 0,
            stall_other_us: 0,
            rwnd_limited_jiffies: 0,
            sndbuf_limited_jiffies: 0,
            reserved: [0; 5],
        },
        distinct: [Distinct {
            active_by_gap: [0; ACTIVE_GAPS],
            retransmitting: 0,
            stalled: 0,
        }; 2],
        groups: [Group {
            retrans_segs: 0,
            data_segs_out: 0,
            stall_us: 0,
            busy_jiffies: 0,
            rtt_count: 0,
            rtt_slow: 0,
            reserved: [0; 2],
        }; GROUPS],
        rtt: [0; RTT_BUCKETS],
        rtt_handshake: [0; COARSE_BUCKETS],
        rtt_min: [0; COARSE_BUCKETS],
        reserved: [0; 2],
    };
}

const WORD: usize = size_of::<u64>();
/// What a round trip moves lies on few cache lines: extremes and the first counters on one, each
/// group on one.
const LINE: usize = 64;
const _: () = assert!(size_of::<Cell>().is_multiple_of(LINE));
const _: () = assert!(offset_of!(Cell, counters) + 4 * WORD == LINE);
const _: () = assert!(offset_of!(Cell, groups).is_multiple_of(LINE));
const _: () = assert!(size_of::<Group>() == LINE);
const _: () = assert!(
    size_of::<Cell>()
        == (2 * 2 + 28 + 2 * 12 + GROUPS * 8 + RTT_BUCKETS + 2 * COARSE_BUCKETS + 2) * WORD
);

/// Bytes of kernel memory that the cells of `slots` slots take on `shards` shards.
pub const fn cells_bytes(slots: u32, shards: u32) -> u64 {
    slots as u64 * shards as u64 * size_of::<Cell>() as u64
}
