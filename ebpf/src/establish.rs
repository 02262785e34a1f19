//! A handshake was completed: whose flow is it, and is it in the sample?

use core::{
    ffi::c_void,
    ptr::{null_mut, read_volatile},
};

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock_ops},
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get, bpf_sock_ops_cb_flags_set},
};
use ebpf_abi::{
    address::{Address, FlowTuple},
    flow::{FlowState, PENDING_HANDSHAKE},
    hash::{flow_hash, group, selected},
};

use crate::{
    callback::{ALL_FLAGS, STATE_FLAG},
    cell::{Slot, add, field, report},
    maps::{self, REPORT},
    pick,
    tcp::Tcp,
};

/// As in every address family field.
pub const AF_INET6: u32 = 10;

/// The storage of a socket, if it has one.
#[inline(always)]
pub fn storage(sk: *mut c_void) -> Option<&'static mut FlowState> {
    // SAFETY: `sk` is a socket that the verifier tracks; without the create flag the helper
    // answers NULL or our value, which lives as long as the program runs.
    unsafe {
        let flow = bpf_sk_storage_get(maps::flows(), sk, null_mut(), 0).cast::<FlowState>();
        flow.as_mut()
    }
}

/// The storage of a socket, made if there was none; `None` if the kernel has no memory for it.
#[inline(always)]
pub fn create(sk: *mut c_void) -> Option<&'static mut FlowState> {
    // SAFETY: as `storage`; with no initial value the kernel zeroes the new one.
    unsafe {
        let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        let flow = bpf_sk_storage_get(maps::flows(), sk, null_mut(), flags).cast::<FlowState>();
        flow.as_mut()
    }
}

/// Ends our part in a socket; its storage goes, so that a reconnect starts from nothing.
#[inline(always)]
pub fn forget(sk: *mut c_void) {
    // SAFETY: `sk` is a socket that the verifier tracks.
    unsafe {
        bpf_sk_storage_delete(maps::flows(), sk);
    }
}

/// OR-s our callback flags to those that other programs set.
#[inline(always)]
fn hook(ops: *mut bpf_sock_ops, flags: u32) {
    // SAFETY: `ops` is the program's context.
    let failed = unsafe {
        let theirs = read_volatile(&raw const (*ops).bpf_sock_ops_cb_flags);
        bpf_sock_ops_cb_flags_set(ops, (theirs | flags) as i32)
    };
    if failed != 0 {
        report!(hook_failed, 1);
    }
}

/// A handshake is complete. Each family has a copy of its own: knowing that an address is IPv4
/// saves most of its comparisons and of its hash.
#[inline(always)]
pub fn established(ops: *mut bpf_sock_ops) {
    // SAFETY: `ops` is the program's context.
    if unsafe { read_volatile(&raw const (*ops).family) } == AF_INET6 {
        established_v6(ops);
    } else {
        established_v4(ops);
    }
}

/// Every field of the context is read by itself and before any branch: otherwise the compiler
/// joins loads through a moved pointer, which the verifier refuses ("dereference of modified ctx
/// ptr").
#[inline(never)]
fn established_v4(ops: *mut bpf_sock_ops) {
    // SAFETY: `ops` is the program's context.
    let (local, remote) = unsafe {
        (
            read_volatile(&raw const (*ops).local_ip4),
            read_volatile(&raw const (*ops).remote_ip4),
        )
    };
    count(ops, Address::from_v4(local), Address::from_v4(remote));
}

/// As [`established_v4`].
#[inline(never)]
fn established_v6(ops: *mut bpf_sock_ops) {
    // SAFETY: `ops` is the program's context.
    let (local, remote) = unsafe {
        (
            [
                read_volatile(&raw const (*ops).local_ip6[0]),
                read_volatile(&raw const (*ops).local_ip6[1]),
                read_volatile(&raw const (*ops).local_ip6[2]),
                read_volatile(&raw const (*ops).local_ip6[3]),
            ],
            [
                read_volatile(&raw const (*ops).remote_ip6[0]),
                read_volatile(&raw const (*ops).remote_ip6[1]),
                read_volatile(&raw const (*ops).remote_ip6[2]),
                read_volatile(&raw const (*ops).remote_ip6[3]),
            ],
        )
    };
    count(ops, Address::from_v6(local), Address::from_v6(remote));
}

/// Counts the flow in its stream's population, and starts to follow it if it is in the sample.
/// For a Fast Open child PASSIVE_ESTABLISHED comes with the SYN: then we only wait.
#[inline(always)]
fn count(ops: *mut bpf_sock_ops, local: Address, remote: Address) {
    // SAFETY: `ops` is the program's context.
    let (local_port, remote_port) = unsafe {
        (
            read_volatile(&raw const (*ops).local_port),
            read_volatile(&raw const (*ops).remote_port),
        )
    };
    let tuple = FlowTuple {
        local,
        remote,
        local_port: local_port as u16,
        // Network order, in the upper half of a word (Linux `bpf_sock_ops.remote_port`).
        remote_port: u32::from_be(remote_port) as u16,
    };
    // SAFETY: as above.
    let (sk, srtt_us) = unsafe {
        (
            read_volatile(&raw const (*ops).__bindgen_anon_2.sk).cast(),
            read_volatile(&raw const (*ops).srtt_us),
        )
    };
    let Some((copy, key)) = pick::orders() else {
        return;
    };
    let Some(stream) = pick::stream(&tuple, copy, sk) else {
        return;
    };
    // At its SYN a Fast Open child cannot have measured its handshake yet: looking for one
    // costs a call, so it is done only where nothing was measured.
    if srtt_us == 0 && await_handshake(ops) {
        return;
    }
    let Some(entry) = pick::live_entry(stream) else {
        return;
    };
    let Some(slot) = Slot::get(entry.slot().into()) else {
        return;
    };
    add(field!(slot, counters.flows_seen), 1);
    let hash = flow_hash(key, &tuple);
    if selected(hash, entry.threshold()) {
        admit(ops, entry.slot(), hash);
    }
}

/// Whether this is a Fast Open child at its SYN; then its handshake will be waited for.
#[inline(never)]
fn await_handshake(ops: *mut bpf_sock_ops) -> bool {
    // SAFETY: `ops` is the program's context.
    let sk: *mut c_void = unsafe { read_volatile(&raw const (*ops).__bindgen_anon_2.sk).cast() };
    let Some(tcp) = Tcp::from_sock(sk) else {
        return false;
    };
    if tcp.fastopen_rsk() == 0 {
        return false;
    }
    if let Some(flow) = create(sk) {
        flow.flags = PENDING_HANDSHAKE;
        hook(ops, STATE_FLAG);
    } else {
        report!(storage_failed, 1);
    }
    true
}

/// Starts to follow a selected flow.
#[inline(never)]
fn admit(ops: *mut bpf_sock_ops, number: u16, hash: u64) {
    // SAFETY: `ops` is the program's context.
    let sk: *mut c_void = unsafe { read_volatile(&raw const (*ops).__bindgen_anon_2.sk).cast() };
    let Some(tcp) = Tcp::from_sock(sk) else {
        return;
    };
    let Some(slot) = Slot::get(number.into()) else {
        return;
    };
    let Some(control) = maps::control() else {
        return;
    };
    let Some(report) = REPORT.get_ptr_mut(0) else {
        return;
    };
    add(field!(slot, counters.flows_selected), 1);
    // SAFETY: map values; volatile, because others write them.
    let (open, max_flows, dry_run, window) = unsafe {
        (
            read_volatile(&raw const (*report).flows_open),
            read_volatile(&raw const (*control).max_sampled_flows),
            read_volatile(&raw const (*control).dry_run),
            read_volatile(&raw const (*control).window),
        )
    };
    if dry_run != 0 {
        return;
    }
    // Two CPUs can pass at the same time: the bound may be overshot by one flow per CPU. An
    // exact one needs an atomic with a result, which kernels before 5.12 lack.
    if open >= u64::from(max_flows) {
        add(field!(slot, counters.flows_refused), 1);
        return;
    }
    let Some(flow) = create(sk) else {
        report!(storage_failed, 1);
        add(field!(slot, counters.flows_refused), 1);
        return;
    };
    flow.id = hash;
    flow.slot = number;
    flow.group = group(hash);
    // The base is not always zero: it is the SYN-ACKs that were repeated.
    flow.total_retrans = tcp.total_retrans();
    flow.chrono_at_us = tcp.tcp_mstamp();
    add(field!(slot, counters.flows_sampled), 1);
    add(
        field!(slot, counters.syn_retrans),
        flow.total_retrans.into(),
    );
    report!(flows_open, 1);
    let handshake_us = tcp.rtt_us();
    // 0: not measured, as with SYN cookies.
    if handshake_us != 0 {
        slot.rtt_handshake(handshake_us);
    }
    hook(ops, ALL_FLAGS);
    // A Fast Open child may have sent before its handshake was complete.
    crate::fold::counters(flow, tcp, slot, window);
}
