//! Callbacks of flows in the sample.

use core::ptr::read_volatile;

use aya_ebpf::programs::SockOpsContext;
use ebpf::stall::{self, Found};
use ebpf_abi::flow::{FlowState, PENDING_HANDSHAKE};

use crate::{
    cell::{Slot, add, add_some, field, report},
    establish, fold,
    maps::{self, SLOTS},
    tcp::{CA_LOSS, CA_RECOVERY, Tcp, rtt_from_callback, state},
};

/// `BPF_SOCK_OPS_*_CB`, and the flags that ask for them.
pub struct Op;

impl Op {
    pub const PASSIVE_ESTABLISHED: u32 = 5;
    pub const RTO: u32 = 8;
    pub const RETRANS: u32 = 9;
    pub const STATE: u32 = 10;
    pub const RTT: u32 = 12;
}

/// `BPF_SOCK_OPS_STATE_CB_FLAG`.
pub const STATE_FLAG: u32 = 1 << 2;
/// RTO, RETRANS, STATE and RTT.
pub const ALL_FLAGS: u32 = 1 | 1 << 1 | STATE_FLAG | 1 << 3;

/// The context's fields, read before any branch: the verifier takes no moved context pointer.
pub struct Event {
    pub op: u32,
    pub sk: *mut core::ffi::c_void,
    pub cb_flags: u32,
    pub args: [u32; 3],
}

impl Event {
    #[inline(always)]
    pub fn read(ctx: &SockOpsContext) -> Self {
        let ops = ctx.ops;
        // SAFETY: `ops` is the program's context.
        unsafe {
            Self {
                op: read_volatile(&raw const (*ops).op),
                sk: read_volatile(&raw const (*ops).__bindgen_anon_2.sk).cast(),
                cb_flags: read_volatile(&raw const (*ops).bpf_sock_ops_cb_flags),
                args: [
                    read_volatile(&raw const (*ops).__bindgen_anon_1.args[0]),
                    read_volatile(&raw const (*ops).__bindgen_anon_1.args[1]),
                    read_volatile(&raw const (*ops).__bindgen_anon_1.args[2]),
                ],
            }
        }
    }
}

/// Whether the flow's slot still counts.
#[inline(always)]
fn slot_is_live(number: u32) -> bool {
    match SLOTS.get_ptr(number) {
        // SAFETY: a map value; volatile, because user space writes it.
        Some(slot) => unsafe { read_volatile(&raw const (*slot).live) != 0 },
        None => false,
    }
}

/// Any callback. Other programs ask for callbacks too: without our storage it is theirs.
#[inline(always)]
pub fn callback(ctx: &SockOpsContext, event: &Event) {
    if event.sk.is_null() {
        return;
    }
    let Some(flow) = establish::storage(event.sk) else {
        return;
    };
    let Some(tcp) = Tcp::from_sock(event.sk) else {
        return;
    };
    if flow.flags & PENDING_HANDSHAKE != 0 {
        if event.op == Op::STATE {
            pending(ctx, event, tcp);
        }
        return;
    }
    let Some(control) = maps::control() else {
        return;
    };
    // SAFETY: a map value; volatile, because user space writes it.
    let window = unsafe { read_volatile(&raw const (*control).window) };
    let number = u32::from(flow.slot);
    let Some(slot) = Slot::get(number) else {
        return;
    };
    let now_us = tcp.tcp_mstamp();
    match event.op {
        Op::RTT => rtt(event, flow, tcp, slot, window, now_us),
        Op::RETRANS => retrans(event, flow, tcp, slot, window, now_us),
        Op::RTO => rto(event, flow, tcp, slot, window, now_us),
        _ => {
            if event.args[1] == state::CLOSE {
                fold::close(flow, tcp, slot, window, now_us);
                establish::forget(event.sk);
                return;
            }
            fold::all(flow, tcp, slot, window);
        }
    }
    if !slot_is_live(number) {
        fold::close(flow, tcp, slot, window, now_us);
        establish::forget(event.sk);
    }
}

/// A Fast Open child goes on, or not.
#[inline(always)]
fn pending(ctx: &SockOpsContext, event: &Event, tcp: Tcp) {
    if event.args[0] == state::SYN_RECV && event.args[1] == state::ESTABLISHED {
        establish::fast_open_established(ctx, event, tcp);
    } else if event.args[1] == state::CLOSE {
        establish::forget(event.sk);
    }
}

#[inline(always)]
fn rtt(event: &Event, flow: &mut FlowState, tcp: Tcp, slot: Slot, window: u32, now_us: u64) {
    let rtt_us = if rtt_from_callback() {
        event.args[0]
    } else {
        tcp.rack_rtt_us()
    };
    if rtt_us == 0 {
        report!(rtt_zero, 1);
    }
    slot.rtt(rtt_us, window);
    let group = slot.group(flow);
    // SAFETY: a pointer into the cell.
    add(unsafe { &raw mut (*group).rtt_count }, 1);
    if let Some(setting) = SLOTS.get_ptr(flow.slot.into()) {
        // SAFETY: a map value and a pointer into the cell.
        unsafe {
            if rtt_us > read_volatile(&raw const (*setting).rtt_slow_us) {
                add(&raw mut (*slot.cell()).counters.rtt_slow, 1);
                add(&raw mut (*group).rtt_slow, 1);
            }
        }
    }
    if flow.rtt_window != window {
        flow.rtt_window = window;
        slot.rtt_min(tcp.rtt_min());
    }
    let mut found = Found::default();
    stall::sample(flow, &tcp.seen(now_us), rtt_us, &mut found);
    if found != Found::default() {
        slot.stalls(flow, &found, window);
    }
    fold::hot(flow, tcp, slot, window);
    fold::now_and_then(flow, tcp, slot, window, now_us);
}

/// Prototype: `tcp_call_bpf_3arg(sk, BPF_SOCK_OPS_RETRANS_CB, seq, segs, err)`.
#[inline(always)]
fn retrans(event: &Event, flow: &mut FlowState, tcp: Tcp, slot: Slot, window: u32, now_us: u64) {
    let segs = u64::from(event.args[1]);
    match tcp.ca_state() {
        CA_LOSS => add(field!(slot, counters.retrans_rto_segs), segs),
        CA_RECOVERY => add(field!(slot, counters.retrans_fast_segs), segs),
        _ => add(field!(slot, counters.retrans_other_segs), segs),
    }
    if event.args[2] != 0 {
        add_some(field!(slot, counters.retrans_failed_segs), segs);
    }
    let mut seen = tcp.seen(now_us);
    // The kernel has counted this one already.
    seen.retrans_before = seen.retrans_before.wrapping_sub(event.args[1]);
    timer(flow, tcp, slot, window, &seen, 0);
}

/// Prototype: `tcp_call_bpf_3arg(sk, BPF_SOCK_OPS_RTO_CB, icsk_retransmits, icsk_rto, expired)`.
#[inline(always)]
fn rto(event: &Event, flow: &mut FlowState, tcp: Tcp, slot: Slot, window: u32, now_us: u64) {
    add(field!(slot, counters.rto_count), 1);
    timer(flow, tcp, slot, window, &tcp.seen(now_us), event.args[0]);
}

#[inline(always)]
fn timer(
    flow: &mut FlowState,
    tcp: Tcp,
    slot: Slot,
    window: u32,
    seen: &stall::Seen,
    earlier_timers: u32,
) {
    let mut found = Found::default();
    stall::timer(flow, seen, earlier_timers, &mut found);
    slot.stalls(flow, &found, window);
    fold::counters(flow, tcp, slot, window);
}
