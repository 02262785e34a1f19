//! Callbacks of flows in the sample.

use core::{ffi::c_void, ptr::read_volatile};

use aya_ebpf::bindings::bpf_sock_ops;
use ebpf::stall::{self, Found};
use ebpf_abi::{
    control::Slot as Setting,
    flow::{FlowState, PENDING_HANDSHAKE},
};

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

/// The context's fields that a callback needs, read before any branch: the verifier takes no
/// moved context pointer.
struct Event {
    op: u32,
    sk: *mut c_void,
    args: [u32; 3],
}

impl Event {
    #[inline(always)]
    fn read(ops: *mut bpf_sock_ops) -> Self {
        // SAFETY: `ops` is the program's context.
        unsafe {
            Self {
                op: read_volatile(&raw const (*ops).op),
                sk: read_volatile(&raw const (*ops).__bindgen_anon_2.sk).cast(),
                args: [
                    read_volatile(&raw const (*ops).__bindgen_anon_1.args[0]),
                    read_volatile(&raw const (*ops).__bindgen_anon_1.args[1]),
                    read_volatile(&raw const (*ops).__bindgen_anon_1.args[2]),
                ],
            }
        }
    }
}

/// A flow in the sample, and where it counts.
struct Sampled {
    flow: &'static mut FlowState,
    tcp: Tcp,
    slot: Slot,
    window: u32,
}

impl Sampled {
    /// Other programs ask for callbacks too: without our storage it is theirs.
    #[inline(always)]
    fn of(sk: *mut c_void) -> Option<Self> {
        if sk.is_null() {
            return None;
        }
        let flow = establish::storage(sk)?;
        let tcp = Tcp::from_sock(sk)?;
        let control = maps::control()?;
        // SAFETY: a map value; volatile, because user space writes it.
        let window = unsafe { read_volatile(&raw const (*control).window) };
        let slot = Slot::get(flow.slot.into())?;
        Some(Self {
            flow,
            tcp,
            slot,
            window,
        })
    }

    #[inline(always)]
    fn is_pending(&self) -> bool {
        self.flow.flags & PENDING_HANDSHAKE != 0
    }

    #[inline(always)]
    fn setting(&self) -> Setting {
        match SLOTS.get_ptr(self.flow.slot.into()) {
            // SAFETY: a map value; volatile, because user space writes it.
            Some(setting) => unsafe { read_volatile(setting) },
            None => Setting::default(),
        }
    }
}

/// RTT_CB: one RTT sample, about once per round trip. The hot path.
#[inline(never)]
pub fn rtt(ops: *mut bpf_sock_ops) {
    let event = Event::read(ops);
    let Some(sampled) = Sampled::of(event.sk) else {
        return;
    };
    if sampled.is_pending() {
        return;
    }
    let setting = sampled.setting();
    if setting.live == 0 {
        close_out(ops);
        return;
    }
    let Sampled {
        flow,
        tcp,
        slot,
        window,
    } = sampled;
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
    if rtt_us > setting.rtt_slow_us {
        // SAFETY: as above.
        add(unsafe { &raw mut (*group).rtt_slow }, 1);
    }
    if flow.rtt_window != window {
        flow.rtt_window = window;
        slot.rtt_min(tcp.rtt_min());
    }
    let now_us = tcp.tcp_mstamp();
    let delivered_us = tcp.delivered_mstamp();
    if stall::is_calm(flow, now_us, delivered_us) {
        flow.delivered_us = delivered_us;
    } else {
        judge(flow, tcp, slot, window, rtt_us);
    }
    fold::hot(flow, tcp, slot, window);
    fold::now_and_then(flow, tcp, slot, window, now_us);
}

/// An RTT sample that may begin, end or decide a stall.
#[inline(never)]
fn judge(flow: &mut FlowState, tcp: Tcp, slot: Slot, window: u32, rtt_us: u32) {
    let mut found = Found::default();
    stall::sample(flow, &tcp.seen(tcp.tcp_mstamp()), rtt_us, &mut found);
    slot.stalls(flow, &found, window);
}

/// The flow has ended, or its stream is gone.
#[inline(never)]
fn close_out(ops: *mut bpf_sock_ops) {
    let sk = Event::read(ops).sk;
    let Some(sampled) = Sampled::of(sk) else {
        return;
    };
    let Sampled {
        flow,
        tcp,
        slot,
        window,
    } = sampled;
    fold::close(flow, tcp, slot, window, tcp.tcp_mstamp());
    establish::forget(sk);
}

/// RETRANS_CB, RTO_CB and STATE_CB.
#[inline(never)]
pub fn other(ops: *mut bpf_sock_ops) {
    let event = Event::read(ops);
    let Some(sampled) = Sampled::of(event.sk) else {
        return;
    };
    if sampled.is_pending() {
        if event.op == Op::STATE {
            pending(ops, &event);
        }
        return;
    }
    let closed = event.op == Op::STATE && event.args[1] == state::CLOSE;
    let is_live = sampled.setting().live != 0;
    match event.op {
        Op::RETRANS => retrans(&event, sampled),
        Op::RTO => rto(&event, sampled),
        _ if closed => {}
        _ => fold::all(sampled.flow, sampled.tcp, sampled.slot, sampled.window),
    }
    if closed || !is_live {
        close_out(ops);
    }
}

/// A Fast Open child goes on, or not.
#[inline(always)]
fn pending(ops: *mut bpf_sock_ops, event: &Event) {
    if event.args[0] == state::SYN_RECV && event.args[1] == state::ESTABLISHED {
        establish::forget(event.sk);
        establish::established(ops);
    } else if event.args[1] == state::CLOSE {
        establish::forget(event.sk);
    }
}

/// Prototype: `tcp_call_bpf_3arg(sk, BPF_SOCK_OPS_RETRANS_CB, seq, segs, err)`.
#[inline(always)]
fn retrans(event: &Event, sampled: Sampled) {
    let (slot, tcp) = (sampled.slot, sampled.tcp);
    let segs = u64::from(event.args[1]);
    match tcp.ca_state() {
        CA_LOSS => add(field!(slot, counters.retrans_rto_segs), segs),
        CA_RECOVERY => add(field!(slot, counters.retrans_fast_segs), segs),
        _ => add(field!(slot, counters.retrans_other_segs), segs),
    }
    if event.args[2] != 0 {
        add_some(field!(slot, counters.retrans_failed_segs), segs);
    }
    let mut seen = tcp.seen(tcp.tcp_mstamp());
    // The kernel has counted this one already.
    seen.retrans_before = seen.retrans_before.wrapping_sub(event.args[1]);
    timer(sampled, &seen, 0);
}

/// Prototype: `tcp_call_bpf_3arg(sk, BPF_SOCK_OPS_RTO_CB, icsk_retransmits, icsk_rto, expired)`.
#[inline(always)]
fn rto(event: &Event, sampled: Sampled) {
    let (slot, tcp) = (sampled.slot, sampled.tcp);
    add(field!(slot, counters.rto_count), 1);
    let seen = tcp.seen(tcp.tcp_mstamp());
    timer(sampled, &seen, event.args[0]);
}

#[inline(always)]
fn timer(sampled: Sampled, seen: &stall::Seen, earlier_timers: u32) {
    let Sampled {
        flow,
        tcp,
        slot,
        window,
    } = sampled;
    let mut found = Found::default();
    stall::timer(flow, seen, earlier_timers, &mut found);
    slot.stalls(flow, &found, window);
    fold::counters(flow, tcp, slot, window);
}
