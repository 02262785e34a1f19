//! Iterators: the walk over sampled flows, and the folds of those that are open.

use core::{ffi::c_void, mem::size_of, ptr::read_volatile};

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns, bpf_seq_write};
use ebpf::stall;
use ebpf_abi::{
    flow::{FlowState, PENDING_HANDSHAKE, STALL_NONE},
    walk::{IDLE, IN_FLIGHT, RECEIVER, SENDER, STALL_OPEN, UNHOOKED, WalkRecord, ZERO_WINDOW},
};

use crate::{
    callback::ALL_FLAGS,
    cell::Slot,
    establish, fold,
    maps::{self, REPORT, SLOTS},
    tcp::Tcp,
};

/// `struct bpf_iter_meta`.
#[repr(C)]
pub struct Meta {
    seq: *mut c_void,
    session_id: u64,
    seq_num: u64,
}

/// `struct bpf_iter__bpf_sk_storage_map`.
#[repr(C)]
struct StorageIter {
    meta: *mut Meta,
    map: *mut c_void,
    sk: *mut c_void,
    value: *mut FlowState,
}

/// `struct bpf_iter__tcp`.
#[repr(C)]
pub struct TcpIter {
    meta: *mut Meta,
    pub sk_common: *mut c_void,
    uid: u32,
}

/// What a flow waits for, if anything.
#[inline(always)]
fn waits_for(tcp: Tcp) -> u8 {
    if tcp.packets_out() != 0 {
        return IN_FLIGHT;
    }
    let unsent = tcp.write_seq().wrapping_sub(tcp.snd_nxt());
    if unsent == 0 {
        return IDLE;
    }
    let used = tcp.snd_nxt().wrapping_sub(tcp.snd_una());
    let room = tcp.snd_wnd().saturating_sub(used);
    let mss = tcp.mss_cache();
    let wanted = if unsent < mss { unsent } else { mss };
    if room < wanted { RECEIVER } else { SENDER }
}

/// Reads gauges without the socket lock: a record may mix two instants of a flow.
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
fn walk(ctx: *mut StorageIter) -> i32 {
    // SAFETY: `ctx` is the program's context; its pointers are tracked by the verifier and
    // checked for NULL, which marks the end of the walk.
    let (meta, sk, value) = unsafe {
        (
            read_volatile(&raw const (*ctx).meta),
            read_volatile(&raw const (*ctx).sk),
            read_volatile(&raw const (*ctx).value),
        )
    };
    // SAFETY: takes no argument and cannot fail.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if sk.is_null() || value.is_null() {
        report_clock(now_ns);
        return 0;
    }
    let Some(tcp) = Tcp::from_sock(sk) else {
        return 0;
    };
    // SAFETY: not null, and a value of our own map.
    let flow = unsafe { &*value };
    if flow.flags & PENDING_HANDSHAKE != 0 {
        return 0;
    }
    let mut flags = 0;
    if flow.stall != STALL_NONE && tcp.delivered_mstamp() == flow.stall_since_us {
        flags |= STALL_OPEN;
    }
    if u32::from(tcp.cb_flags()) & ALL_FLAGS != ALL_FLAGS {
        flags |= UNHOOKED;
    }
    if tcp.snd_wnd() == 0 {
        flags |= ZERO_WINDOW;
    }
    let record = WalkRecord {
        id: flow.id,
        now_us: now_ns / 1000,
        delivered_us: tcp.delivered_mstamp(),
        resumed_us: flow.resumed_us,
        limit_us: stall::limit_us(tcp.rtt_us(), tcp.rttvar_us()),
        active_window: flow.active_window,
        stall_window: flow.stall_window,
        slot: flow.slot,
        group: flow.group,
        state: waits_for(tcp),
        flags,
        reserved: 0,
    };
    // SAFETY: `meta` and its `seq` are tracked; the record is all initialised bytes.
    unsafe {
        let seq = read_volatile(&raw const (*meta).seq);
        bpf_seq_write(
            seq.cast(),
            (&raw const record).cast_mut().cast(),
            size_of::<WalkRecord>() as u32,
        );
    }
    0
}

/// One pair of clocks a walk; from two of them user space derives HZ.
#[inline(always)]
fn report_clock(now_ns: u64) {
    if let Some(report) = REPORT.get_ptr_mut(0) {
        // SAFETY: a map value that only the walk writes; the helper cannot fail.
        unsafe {
            (*report).clock_ns = now_ns;
            (*report).clock_jiffies = bpf_jiffies64();
        }
    }
}

/// Folds a flow of the opener's network namespace; the kernel holds its lock meanwhile
/// (Linux `bpf_iter_tcp_seq_show`).
#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
fn fold_open(ctx: *mut TcpIter) -> i32 {
    // SAFETY: as in `walk`.
    let sk = unsafe { read_volatile(&raw const (*ctx).sk_common) };
    let Some(tcp) = Tcp::from_sock(sk) else {
        return 0;
    };
    let Some(flow) = establish::storage(tcp.as_sock()) else {
        return 0;
    };
    if let Some(true) = fold_now(flow, tcp) {
        establish::forget(tcp.as_sock());
    }
    0
}

/// Folds a flow of any network namespace, once and last: for kernels before Linux 5.11, which give an iterator over sockets no storage.
/// Nothing holds the socket's lock here, so no callback may run meanwhile or after it: the program must be detached, and those of its
/// runs that had begun must be over. The kernel's own counters can move on; each is one word and read once.
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
fn fold_detached(ctx: *mut StorageIter) -> i32 {
    // SAFETY: as in `walk`.
    let (sk, value) = unsafe {
        (
            read_volatile(&raw const (*ctx).sk),
            read_volatile(&raw const (*ctx).value),
        )
    };
    if sk.is_null() || value.is_null() {
        return 0;
    }
    let Some(tcp) = Tcp::from_sock(sk) else {
        return 0;
    };
    // SAFETY: not null, and a value of our own map, which nobody else writes now.
    fold_now(unsafe { &mut *value }, tcp);
    0
}

/// Folds a flow where no callback has: whether it was closed out, because its slot counts no more. `None`: there is nothing to fold.
#[inline(always)]
fn fold_now(flow: &mut FlowState, tcp: Tcp) -> Option<bool> {
    if flow.flags & PENDING_HANDSHAKE != 0 {
        return None;
    }
    let control = maps::control()?;
    // SAFETY: a map value; volatile, because user space writes it.
    let window = unsafe { read_volatile(&raw const (*control).window) };
    let number = u32::from(flow.slot);
    let slot = Slot::get(number)?;
    let setting = SLOTS.get_ptr(number)?;
    // SAFETY: as above.
    if unsafe { read_volatile(&raw const (*setting).live) } != 0 {
        fold::all(flow, tcp, slot, window);
        return Some(false);
    }
    // Here nothing has refreshed `tcp_mstamp`.
    // SAFETY: takes no argument and cannot fail.
    let now_us = unsafe { bpf_ktime_get_ns() } / 1000;
    fold::close(flow, tcp, slot, window, now_us);
    Some(true)
}
