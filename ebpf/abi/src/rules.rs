//! Stream rules as the kernel side looks them up.
//!
//! An exact (address, port) is found in an open-addressing table; if it is not there, the port
//! alone gives the list. A list holds up to [`MAX_CANDIDATES`] candidates in the order in which
//! they are tried; the first that matches names the stream. All tables exist twice: user space
//! writes the idle copy and then switches [`crate::control::Control::rules`].

use crate::address::{Address, FlowTuple};

/// Candidates of one list.
pub const MAX_CANDIDATES: usize = 8;
/// Slots of the exact table that a lookup may touch.
pub const MAX_PROBES: usize = 8;
/// Slots of one copy of the exact table, a power of two.
pub const EXACT_SLOTS: usize = 8192;
/// Lists of one copy; list 0 is empty and means "no rule".
pub const MAX_LISTS: usize = 1024;
/// Ports of one copy of the port table, whose entries are list numbers held as `u64`.
pub const PORTS: usize = 65536;
/// Streams that can have a rule at the same time.
pub const MAX_STREAMS: usize = 1024;

/// Slot of the exact table. `list` 0 is an empty slot and ends a probe.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExactEntry {
    /// Local address.
    pub address: Address,
    /// Local port, host order.
    pub port: u16,
    /// Its list.
    pub list: u16,
    /// Always 0.
    pub reserved: u32,
}

/// [`Candidate::flags`]: the mark must match.
pub const HAS_MARK: u32 = 1;

/// One condition on a new flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Prefix of our address.
    pub local: Address,
    /// Its mask; 0 takes every address.
    pub local_mask: Address,
    /// Prefix of the client's address.
    pub remote: Address,
    /// Its mask.
    pub remote_mask: Address,
    /// Id of the cgroup that the socket, or a parent of its cgroup, must be in; 0 is any.
    pub cgroup_id: u64,
    /// `SO_MARK` at establishment, if [`HAS_MARK`].
    pub mark: u32,
    /// [`HAS_MARK`] or 0.
    pub flags: u32,
    /// Index into the stream table.
    pub stream: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Candidates in the order in which they are tried.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct List {
    /// How many of `candidates` are in use.
    pub len: u32,
    /// Always 0.
    pub reserved: u32,
    /// The candidates.
    pub candidates: [Candidate; MAX_CANDIDATES],
}

/// Where new flows of a stream go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamEntry {
    /// Slot (stream and rate epoch) of flows that are established now.
    pub slot: u32,
    /// 0: the stream is not there (any more), its flows are nobody's.
    pub live: u32,
}

const _: () = assert!(size_of::<ExactEntry>() == 24);
const _: () = assert!(size_of::<Candidate>() == 88);
const _: () = assert!(size_of::<List>() == 712);
const _: () = assert!(size_of::<StreamEntry>() == 8);
const _: () = assert!(EXACT_SLOTS.is_power_of_two() && MAX_LISTS <= u16::MAX as usize + 1);

/// First slot to probe. The keys are the operator's own addresses, so a fast mix is enough.
#[inline(always)]
pub const fn exact_slot(address: &Address, port: u16) -> usize {
    let mixed = (address.0[0] ^ address.0[1].rotate_left(29) ^ port as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ mixed >> 32) as usize) & (EXACT_SLOTS - 1)
}

/// Whether a candidate takes a flow, but for its cgroup, which only its caller can resolve.
#[inline(always)]
pub const fn matches(candidate: &Candidate, flow: &FlowTuple, mark: u32) -> bool {
    flow.local
        .in_prefix(&candidate.local, &candidate.local_mask)
        && flow
            .remote
            .in_prefix(&candidate.remote, &candidate.remote_mask)
        && (candidate.flags & HAS_MARK == 0 || candidate.mark == mark)
}
