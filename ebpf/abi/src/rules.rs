//! Stream rules as the kernel side looks them up.
//!
//! An exact (address, port) is found in an open-addressing table; if it is not there, the port
//! alone decides. Either leads to a stream at once, where no more conditions apply, or to a list
//! of up to [`MAX_CANDIDATES`] candidates in the order in which they are tried; the first that
//! matches names the stream. All tables exist twice: user space writes the idle copy and then
//! switches [`crate::control::Control::rules`].

use crate::address::{Address, FlowTuple};

/// Candidates of one list.
pub const MAX_CANDIDATES: usize = 8;
/// Slots of the exact table that a lookup may touch.
pub const MAX_PROBES: usize = 8;
/// Slots of one copy of the exact table, a power of two.
pub const EXACT_SLOTS: usize = 8192;
/// Lists of one copy; list 0 is empty and means "no rule".
pub const MAX_LISTS: usize = 1024;
/// Ports of one copy of the port table, whose entries are [`Target`]s held as `u64`.
pub const PORTS: usize = 65536;
/// Streams that can have a rule at the same time.
pub const MAX_STREAMS: usize = 1024;

/// Where an exact key or a port leads.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target(pub u32);

impl Target {
    /// To no rule.
    pub const NONE: Self = Self(0);
    /// Marks a stream, as against a list.
    const STREAM: u32 = 1 << 31;

    /// To a list; 0 is [`Target::NONE`].
    pub const fn list(number: u16) -> Self {
        Self(number as u32)
    }

    /// To a stream, whatever else the flow is.
    pub const fn stream(index: u32) -> Self {
        Self(index | Self::STREAM)
    }

    /// The stream, if no list has to be looked at.
    #[inline(always)]
    pub const fn as_stream(self) -> Option<u32> {
        if self.0 & Self::STREAM == 0 {
            None
        } else {
            Some(self.0 & !Self::STREAM)
        }
    }
}

/// Slot of the exact table. [`Target::NONE`] is an empty slot and ends a probe.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExactEntry {
    /// Local address.
    pub address: Address,
    /// Local port, host order.
    pub port: u16,
    /// Always 0.
    pub reserved: u16,
    /// Where it leads.
    pub target: Target,
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

impl Candidate {
    /// Whether it takes every flow.
    pub fn is_plain(&self) -> bool {
        let any = Address::default();
        self.local_mask == any
            && self.remote_mask == any
            && self.cgroup_id == 0
            && self.flags & HAS_MARK == 0
    }
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

/// Where new flows of a stream go and which of them are in the sample. One word, so that both
/// change at the same time. 0: the stream is not there (any more), its flows are nobody's.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamEntry(u64);

impl StreamEntry {
    /// Of a stream that is not there.
    pub const GONE: Self = Self(0);
    const LIVE: u64 = 1 << 63;
    const SLOT_SHIFT: u32 = 40;
    const THRESHOLD: u64 = (1 << Self::SLOT_SHIFT) - 1;

    /// Flows established from now on count in `slot` (stream and rate epoch); `threshold` as in
    /// [`crate::hash::selected`].
    pub const fn new(slot: u16, threshold: u64) -> Self {
        Self(Self::LIVE | (slot as u64) << Self::SLOT_SHIFT | threshold & Self::THRESHOLD)
    }

    /// Whether the stream is there.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.0 & Self::LIVE != 0
    }

    /// The slot.
    #[inline(always)]
    pub const fn slot(self) -> u16 {
        (self.0 >> Self::SLOT_SHIFT) as u16
    }

    /// The threshold.
    #[inline(always)]
    pub const fn threshold(self) -> u64 {
        self.0 & Self::THRESHOLD
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::THRESHOLD_ALL;

    #[test]
    fn a_stream_entry_holds_its_parts() {
        for (slot, threshold) in [(0, 0), (u16::MAX, THRESHOLD_ALL), (7, 429_496_730)] {
            let entry = StreamEntry::new(slot, threshold);
            assert!(entry.is_live());
            assert_eq!((entry.slot(), entry.threshold()), (slot, threshold));
        }
        assert!(!StreamEntry::GONE.is_live());
    }

    #[test]
    fn a_target_is_nothing_a_list_or_a_stream() {
        assert_eq!(Target::NONE, Target::list(0));
        assert_eq!(Target::list(u16::MAX).as_stream(), None);
        assert_eq!(Target::stream(0).as_stream(), Some(0));
        assert_eq!(Target::stream(MAX_STREAMS as u32).as_stream(), Some(1024));
    }
}
