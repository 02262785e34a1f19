//! Words that both sides share: what user space orders, and what the kernel side reports.

/// Written by user space through its mapping.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Sampling key.
    pub key: [u64; 2],
    /// Number of the running window, from 1.
    pub window: u32,
    /// Copy of the rule tables in use, 0 or 1.
    pub rules: u32,
    /// Flows that may be admitted at a time.
    pub max_sampled_flows: u32,
    /// 1: the population is counted, no flow is admitted.
    pub dry_run: u32,
    /// Always 0.
    pub reserved: [u32; 8],
}

/// Written by the kernel side, each with atomic adds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Flows admitted and not closed yet, over all streams.
    pub flows_open: u64,
    /// Socket storage could not be had.
    pub storage_failed: u64,
    /// Callback flags could not be set.
    pub hook_failed: u64,
    /// RTT callbacks whose sample was 0: a kernel before 6.10 if it is all of them.
    pub rtt_zero: u64,
    /// `ktime` of the last walk, ns, and …
    pub clock_ns: u64,
    /// … the kernel's `jiffies64` at the same time: two pairs give HZ.
    pub clock_jiffies: u64,
    /// Flows of the sample that were open before the attach and could not be taken in: as found by the last count.
    pub flows_unreached: u64,
    /// Always 0.
    pub reserved: u64,
}

/// Limits of a slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// RTT samples above this are slow, µs.
    pub rtt_slow_us: u32,
    /// 1: flows count here; 0: flows that still point here are closed out at their next callback.
    pub live: u32,
}

const _: () = assert!(size_of::<Control>() == 64);
const _: () = assert!(size_of::<Report>() == 64);
const _: () = assert!(size_of::<Slot>() == 8);
