//! Which stream a new flow belongs to.

use ebpf_abi::{
    address::FlowTuple,
    rules::{
        Candidate, EXACT_SLOTS, List, MAX_CANDIDATES, MAX_LISTS, MAX_PROBES, PORTS, exact_slot,
        matches,
    },
};

use crate::{
    maps::{EXACT, LISTS, PORT_LISTS},
    tcp::Tcp,
};

/// The list for our end of the flow: exact (address, port) first, then the port alone.
#[inline(always)]
fn list(flow: &FlowTuple, copy: u32) -> Option<*const List> {
    let start = exact_slot(&flow.local, flow.local_port);
    let mut number = 0;
    for probe in 0..MAX_PROBES {
        let slot = (start + probe) & (EXACT_SLOTS - 1);
        let entry = EXACT.get(copy * EXACT_SLOTS as u32 + slot as u32)?;
        if entry.list == 0 {
            break;
        }
        if entry.port == flow.local_port && entry.address == flow.local {
            number = u32::from(entry.list);
            break;
        }
    }
    if number == 0 {
        let entry = PORT_LISTS.get(copy * PORTS as u32 + u32::from(flow.local_port))?;
        number = *entry as u32;
    }
    if number == 0 || number as usize >= MAX_LISTS {
        return None;
    }
    LISTS.get_ptr(copy * MAX_LISTS as u32 + number)
}

/// The first candidate that takes the flow; `None`: nobody's flow.
#[inline(always)]
pub fn stream(flow: &FlowTuple, copy: u32, sk: *mut core::ffi::c_void) -> Option<u32> {
    let list = list(flow, copy & 1)?;
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
