//! Folding: what a flow's counters gained since the last fold goes into its cell.

use ebpf::stall;
use ebpf_abi::flow::FlowState;

use crate::{
    cell::{Slot, add, add_some, field, report},
    tcp::Tcp,
};

/// Chronographs are read at most this often.
const CHRONO_INTERVAL_US: u64 = 20_000;

/// The counters that every round trip moves.
#[inline(always)]
pub fn hot(flow: &mut FlowState, tcp: Tcp, slot: Slot, window: u32) {
    let sent = tcp.bytes_sent();
    let acked = tcp.data_bytes_acked();
    let segs = tcp.data_segs_out();
    add_some(
        field!(slot, counters.bytes_sent),
        sent.wrapping_sub(flow.bytes_sent),
    );
    add_some(
        field!(slot, counters.bytes_acked),
        acked.wrapping_sub(flow.bytes_acked),
    );
    let new_segs = segs.wrapping_sub(flow.data_segs_out);
    if new_segs != 0 {
        // SAFETY: a pointer into the cell.
        add(
            unsafe { &raw mut (*slot.group(flow)).data_segs_out },
            new_segs.into(),
        );
        slot.active(flow, window);
    }
    flow.bytes_sent = sent;
    flow.bytes_acked = acked;
    flow.data_segs_out = segs;
}

/// The counters that only losses move.
#[inline(always)]
fn cold(flow: &mut FlowState, tcp: Tcp, slot: Slot, window: u32) {
    let bytes = tcp.bytes_retrans();
    add_some(
        field!(slot, counters.bytes_retrans),
        bytes.wrapping_sub(flow.bytes_retrans),
    );
    flow.bytes_retrans = bytes;
    let dsack = tcp.dsack_dups();
    add_some(
        field!(slot, counters.dsack_dups),
        dsack.wrapping_sub(flow.dsack_dups).into(),
    );
    flow.dsack_dups = dsack;
    let total = tcp.total_retrans();
    let new = total.wrapping_sub(flow.total_retrans);
    flow.total_retrans = total;
    if new != 0 {
        // SAFETY: a pointer into the cell.
        add(
            unsafe { &raw mut (*slot.group(flow)).retrans_segs },
            new.into(),
        );
        if flow.retrans_window != window {
            flow.retrans_window = window;
            // SAFETY: a pointer into the cell.
            add(
                unsafe { &raw mut (*slot.distinct(window)).retransmitting },
                1,
            );
        }
    }
}

#[inline(always)]
fn chrono(flow: &mut FlowState, tcp: Tcp, slot: Slot) {
    let now = tcp.chrono();
    let busy = now.busy_jiffies.wrapping_sub(flow.busy_jiffies);
    let rwnd = now
        .rwnd_limited_jiffies
        .wrapping_sub(flow.rwnd_limited_jiffies);
    let sndbuf = now
        .sndbuf_limited_jiffies
        .wrapping_sub(flow.sndbuf_limited_jiffies);
    // SAFETY: a pointer into the cell.
    add_some(
        unsafe { &raw mut (*slot.group(flow)).busy_jiffies },
        busy.into(),
    );
    add_some(field!(slot, counters.rwnd_limited_jiffies), rwnd.into());
    add_some(field!(slot, counters.sndbuf_limited_jiffies), sndbuf.into());
    flow.busy_jiffies = now.busy_jiffies;
    flow.rwnd_limited_jiffies = now.rwnd_limited_jiffies;
    flow.sndbuf_limited_jiffies = now.sndbuf_limited_jiffies;
}

/// Before the first fold of a flow that was open already: all that it did before is left out.
#[inline(always)]
pub fn begin(flow: &mut FlowState, tcp: Tcp) {
    flow.bytes_sent = tcp.bytes_sent();
    flow.bytes_acked = tcp.data_bytes_acked();
    flow.delivered_us = tcp.delivered_mstamp();
    flow.chrono_at_us = tcp.tcp_mstamp();
    flow.data_segs_out = tcp.data_segs_out();
    flow.bytes_retrans = tcp.bytes_retrans();
    flow.total_retrans = tcp.total_retrans();
    flow.dsack_dups = tcp.dsack_dups();
    let now = tcp.chrono();
    flow.busy_jiffies = now.busy_jiffies;
    flow.rwnd_limited_jiffies = now.rwnd_limited_jiffies;
    flow.sndbuf_limited_jiffies = now.sndbuf_limited_jiffies;
}

/// What is dear to read, at most every 20 ms.
#[inline(always)]
pub fn now_and_then(flow: &mut FlowState, tcp: Tcp, slot: Slot, window: u32, now_us: u64) {
    if now_us.wrapping_sub(flow.chrono_at_us) >= CHRONO_INTERVAL_US {
        flow.chrono_at_us = now_us;
        cold(flow, tcp, slot, window);
        chrono(flow, tcp, slot);
    }
}

/// All counters but the chronographs.
#[inline(always)]
pub fn counters(flow: &mut FlowState, tcp: Tcp, slot: Slot, window: u32) {
    hot(flow, tcp, slot, window);
    cold(flow, tcp, slot, window);
}

/// Everything, now.
#[inline(always)]
pub fn all(flow: &mut FlowState, tcp: Tcp, slot: Slot, window: u32) {
    counters(flow, tcp, slot, window);
    chrono(flow, tcp, slot);
}

/// The last fold of a flow.
#[inline(always)]
pub fn close(flow: &mut FlowState, tcp: Tcp, slot: Slot, window: u32, now_us: u64) {
    all(flow, tcp, slot, window);
    let mut found = stall::Found::default();
    stall::finish(flow, &tcp.seen(now_us), &mut found);
    slot.stalls(flow, &found, window);
    add(field!(slot, counters.flows_closed), 1);
    report!(flows_open, u64::MAX);
}
