//! Which stream a new flow belongs to.

use core::ptr::read_volatile;

use ebpf_abi::{
    address::FlowTuple,
    hash::Key,
    rules::{
        Candidate, EXACT_SLOTS, List, MAX_CANDIDATES, MAX_LISTS, MAX_PROBES, PORTS, StreamEntry,
        Target, exact_slot, matches,
    },
};

use crate::{
    maps::{self, EXACT, LISTS, PORT_TARGETS, STREAMS},
    tcp::Tcp,
};

/// The copy of the rules that is in use, and the sampling key.
#[inline(always)]
pub fn orders() -> Option<(u32, Key)> {
    let control = maps::control()?;
    // SAFETY: a map value; volatile, because user space writes it.
    unsafe {
        Some((
            read_volatile(&raw const (*control).rules),
            [
                read_volatile(&raw const (*control).key[0]),
                read_volatile(&raw const (*control).key[1]),
            ],
        ))
    }
}

/// Where new flows of a stream go; `None`: nowhere.
#[inline(always)]
pub fn live_entry(stream: u32) -> Option<StreamEntry> {
    let entry = STREAMS.get_ptr(stream)?;
    // SAFETY: a map value; volatile, because user space writes it.
    let entry = unsafe { read_volatile(entry) };
    entry.is_live().then_some(entry)
}

/// Where our end of the flow leads: exact (address, port) first, then the port alone.
#[inline(always)]
fn target(flow: &FlowTuple, copy: u32) -> Option<Target> {
    let start = exact_slot(&flow.local, flow.local_port);
    for probe in 0..MAX_PROBES {
        let slot = (start + probe) & (EXACT_SLOTS - 1);
        let entry = EXACT.get(copy * EXACT_SLOTS as u32 + slot as u32)?;
        if entry.target == Target::NONE {
            break;
        }
        if entry.port == flow.local_port && entry.address == flow.local {
            return Some(entry.target);
        }
    }
    let entry = PORT_TARGETS.get(copy * PORTS as u32 + u32::from(flow.local_port))?;
    Some(Target(*entry as u32))
}

/// The stream that takes the flow; `None`: nobody's flow.
#[inline(always)]
pub fn stream(flow: &FlowTuple, copy: u32, sk: *mut core::ffi::c_void) -> Option<u32> {
    let copy = copy & 1;
    let target = target(flow, copy)?;
    if let Some(stream) = target.as_stream() {
        return Some(stream);
    }
    if target == Target::NONE || target.0 as usize >= MAX_LISTS {
        return None;
    }
    let list = LISTS.get_ptr(copy * MAX_LISTS as u32 + target.0)?;
    first_match(flow, list, sk)
}

/// The first candidate that takes the flow.
#[inline(always)]
fn first_match(flow: &FlowTuple, list: *const List, sk: *mut core::ffi::c_void) -> Option<u32> {
    let mut tcp: Option<Tcp> = None;
    for i in 0..MAX_CANDIDATES {
        // SAFETY: `list` points to a map value; the index is bounded by the array.
        let candidate: &Candidate = unsafe {
            if i as u32 >= (*list).len {
                break;
            }
            &*(&raw const (*list).candidates).cast::<Candidate>().add(i)
        };
        let plain = candidate.flags == 0 && candidate.cgroup_id == 0;
        if tcp.is_none() && !plain {
            tcp = Tcp::from_sock(sk);
        }
        let mark = match tcp {
            Some(tcp) if candidate.flags != 0 => tcp.sk_mark(),
            _ => 0,
        };
        if !matches(candidate, flow, mark) {
            continue;
        }
        let in_cgroup = candidate.cgroup_id == 0
            || match tcp {
                Some(tcp) => tcp.in_cgroup(candidate.cgroup_id),
                None => false,
            };
        if in_cgroup {
            return Some(candidate.stream);
        }
    }
    None
}
