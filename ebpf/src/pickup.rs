//! Connections that were open before the attach: taken in by the same rules and the same hash as new ones, or counted where that
//! cannot be.
//!
//! What they did before is nobody's: counters begin at what the socket has now.

use core::{ffi::c_void, mem::size_of, ptr::read_volatile};

use aya_ebpf::helpers::generated::{bpf_setsockopt, bpf_sock_from_file};
use ebpf_abi::{
    address::{Address, FlowTuple},
    hash::{flow_hash, group, selected},
};

use crate::{
    callback::ALL_FLAGS,
    cell::{Slot, add, field, report},
    establish::{self, AF_INET6},
    fold,
    iterate::{Meta, TcpIter},
    maps::{self, REPORT},
    pick,
    tcp::{Tcp, state},
};

const SOL_TCP: i32 = 6;
/// `TCP_BPF_SOCK_OPS_CB_FLAGS` (Linux 6.12).
const CB_FLAGS: i32 = 1008;

/// `struct bpf_iter__task_file`.
#[repr(C)]
struct FileIter {
    meta: *mut Meta,
    task: *mut c_void,
    fd: u32,
    file: *mut c_void,
}

/// A flow of the sample that is open.
struct Open {
    slot: u16,
    hash: u64,
}

impl Open {
    /// One that nobody follows: it has no storage.
    #[inline(always)]
    fn unfollowed(tcp: Tcp) -> Option<Self> {
        if !can_send(tcp) || establish::storage(tcp.as_sock()).is_some() {
            return None;
        }
        Self::of(tcp)
    }

    /// If a stream takes the connection and the hash chooses it. Whether it is inbound is not written in its socket: its local address
    /// and port must do.
    #[inline(always)]
    fn of(tcp: Tcp) -> Option<Self> {
        let (local, remote) = if u32::from(tcp.skc_family()) == AF_INET6 {
            (
                Address::from_v6(tcp.skc_v6_rcv_saddr()),
                Address::from_v6(tcp.skc_v6_daddr()),
            )
        } else {
            (
                Address::from_v4(tcp.skc_rcv_saddr()),
                Address::from_v4(tcp.skc_daddr()),
            )
        };
        let tuple = FlowTuple {
            local,
            remote,
            local_port: tcp.skc_num(),
            remote_port: u16::from_be(tcp.skc_dport()),
        };
        let (copy, key) = pick::orders()?;
        let stream = pick::stream(&tuple, copy, tcp.as_sock())?;
        let entry = pick::live_entry(stream)?;
        let hash = flow_hash(key, &tuple);
        selected(hash, entry.threshold()).then_some(Self {
            slot: entry.slot(),
            hash,
        })
    }
}

#[inline(always)]
fn can_send(tcp: Tcp) -> bool {
    matches!(tcp.skc_state(), state::OPEN | state::CLOSE_WAIT)
}

/// Takes in the flows of the opener's network namespace; the kernel holds each socket's lock meanwhile (Linux `bpf_iter_tcp_seq_show`).
#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
fn pick_up(ctx: *mut TcpIter) -> i32 {
    // SAFETY: `ctx` is the program's context; its pointers are tracked by the verifier and checked for NULL.
    let sk = unsafe { read_volatile(&raw const (*ctx).sk_common) };
    let Some(tcp) = Tcp::from_sock(sk) else {
        return 0;
    };
    if let Some(open) = Open::unfollowed(tcp) {
        admit(tcp, &open);
    }
    0
}

/// As the admission of a new flow, but that its handshake is long past.
#[inline(always)]
fn admit(tcp: Tcp, open: &Open) {
    let (Some(slot), Some(control), Some(report)) = (
        Slot::get(open.slot.into()),
        maps::control(),
        REPORT.get_ptr_mut(0),
    ) else {
        return;
    };
    // SAFETY: map values; volatile, because others write them.
    let (flows_open, max_flows) = unsafe {
        (
            read_volatile(&raw const (*report).flows_open),
            read_volatile(&raw const (*control).max_sampled_flows),
        )
    };
    // What is refused at a bound makes the sample a biased one: counted as for a new flow.
    let has_room = flows_open < u64::from(max_flows);
    if !has_room {
        add(field!(slot, counters.flows_selected), 1);
        add(field!(slot, counters.flows_refused), 1);
        return;
    }
    let sk = tcp.as_sock();
    let Some(flow) = establish::create(sk) else {
        report!(storage_failed, 1);
        return;
    };
    let mut flags = u32::from(tcp.cb_flags()) | ALL_FLAGS;
    // SAFETY: `sk` is a socket that the verifier tracks, the value is on our stack.
    let failed = unsafe {
        let value = (&raw mut flags).cast();
        bpf_setsockopt(sk, SOL_TCP, CB_FLAGS, value, size_of::<u32>() as i32)
    };
    if failed != 0 {
        establish::forget(sk);
        return;
    }
    flow.id = open.hash;
    flow.slot = open.slot;
    flow.group = group(open.hash);
    fold::begin(flow, tcp);
    add(field!(slot, counters.flows_picked_up), 1);
    report!(flows_open, 1);
}

/// Counts, over all processes and so over all network namespaces, the flows of the sample that nobody follows.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
fn unreached(ctx: *mut FileIter) -> i32 {
    // SAFETY: as in `pick_up`.
    let file = unsafe { read_volatile(&raw const (*ctx).file) };
    if file.is_null() {
        return 0;
    }
    // SAFETY: the helper takes any tracked file, and answers NULL for one that is no socket.
    let socket = unsafe { bpf_sock_from_file(file.cast()) };
    if socket.is_null() {
        return 0;
    }
    // SAFETY: follows a pointer whose type BTF gives to the verifier.
    let sk: *mut c_void = unsafe {
        let at = read_volatile(&raw const (*maps::offsets()).socket_sk) as usize;
        read_volatile(socket.cast::<u8>().add(at).cast())
    };
    let Some(tcp) = Tcp::from_sock(sk) else {
        return 0;
    };
    if Open::unfollowed(tcp).is_some() {
        report!(flows_unreached, 1);
    }
    0
}

/// Counts the flows of the sample that are open in the opener's network namespace. For kernels without [`bpf_sock_from_file`] and without
/// storage in iterators (both came with Linux 5.11): since it cannot tell which are followed, it is for before the attach.
#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
fn count_open(ctx: *mut TcpIter) -> i32 {
    // SAFETY: as in `pick_up`.
    let sk = unsafe { read_volatile(&raw const (*ctx).sk_common) };
    let Some(tcp) = Tcp::from_sock(sk) else {
        return 0;
    };
    if can_send(tcp) && Open::of(tcp).is_some() {
        report!(flows_unreached, 1);
    }
    0
}
