//! Atomic adds into the cell of a flow.

use core::{
    ptr::{read_volatile, write_volatile},
    sync::atomic::{AtomicU64, Ordering},
};

use ebpf::stall::Found;
use ebpf_abi::{
    cells::{ACTIVE_GAPS, Cell, Distinct, Extremes, Group},
    flow::FlowState,
    hash::GROUPS,
    histogram::{COARSE_BITS, COARSE_BUCKETS, RTT_BITS, RTT_BUCKETS, bucket},
};

use crate::maps::{self, CELLS};

/// Adds to a counter that others add to at the same time. The result is unused on purpose:
/// so it becomes a plain XADD, which every kernel has.
#[inline(always)]
pub fn add(counter: *mut u64, n: u64) {
    // SAFETY: callers pass an aligned pointer into a map value; all writers are atomic.
    unsafe { AtomicU64::from_ptr(counter) }.fetch_add(n, Ordering::Relaxed);
}

/// As [`add`], and nothing at all for nothing.
#[inline(always)]
pub fn add_some(counter: *mut u64, n: u64) {
    if n != 0 {
        add(counter, n);
    }
}

/// Hides from the compiler what it knows of an index. It would else check the number that the
/// index was made of, and verifiers of older kernels (6.1) do not see that this bounds the index.
#[inline(always)]
fn opaque(index: usize) -> usize {
    // SAFETY: a read of our own stack.
    unsafe { read_volatile(&raw const index) }
}

/// The cell of a slot for this CPU.
#[derive(Clone, Copy)]
pub struct Slot(*mut Cell);

/// Pointer to a field of the cell.
macro_rules! field {
    ($slot:expr, $($path:tt)+) => {
        // SAFETY: the pointer comes from the map and is not null; no reference is made.
        unsafe { &raw mut (*$slot.cell()).$($path)+ }
    };
}
pub(crate) use field;

/// Adds to one of the words that the kernel side reports.
macro_rules! report {
    ($field:ident, $n:expr) => {
        if let Some(report) = $crate::maps::REPORT.get_ptr_mut(0) {
            // SAFETY: a pointer into a map value.
            $crate::cell::add(unsafe { &raw mut (*report).$field }, $n);
        }
    };
}
pub(crate) use report;

impl Slot {
    /// `None` if there is no such slot.
    #[inline(always)]
    pub fn get(slot: u32) -> Option<Self> {
        let (shard, shards) = maps::shard();
        CELLS.get_ptr_mut(slot * shards + shard).map(Self)
    }

    #[inline(always)]
    pub fn cell(self) -> *mut Cell {
        self.0
    }

    /// The flow's random group.
    #[inline(always)]
    pub fn group(self, flow: &FlowState) -> *mut Group {
        let index = usize::from(flow.group) & (GROUPS - 1);
        // SAFETY: as in `field!`; the index is masked.
        unsafe { (&raw mut (*self.0).groups).cast::<Group>().add(index) }
    }

    #[inline(always)]
    pub fn distinct(self, window: u32) -> *mut Distinct {
        // SAFETY: as in `field!`; the index is 0 or 1.
        unsafe {
            (&raw mut (*self.0).distinct)
                .cast::<Distinct>()
                .add(window as usize & 1)
        }
    }

    #[inline(always)]
    fn extremes(self, window: u32) -> *mut Extremes {
        // SAFETY: as in `field!`; the index is 0 or 1.
        unsafe {
            (&raw mut (*self.0).extremes)
                .cast::<Extremes>()
                .add(window as usize & 1)
        }
    }

    /// The flow has data in this window.
    #[inline(always)]
    pub fn active(self, flow: &mut FlowState, window: u32) {
        if flow.active_window == window {
            return;
        }
        let gap = window.wrapping_sub(flow.active_window) as usize;
        let known = flow.active_window != 0 && gap < ACTIVE_GAPS;
        flow.active_window = window;
        let index = if known { gap } else { 0 };
        if index < ACTIVE_GAPS {
            // SAFETY: as in `field!`; the index is checked.
            add(
                unsafe {
                    (&raw mut (*self.distinct(window)).active_by_gap)
                        .cast::<u64>()
                        .add(index)
                },
                1,
            );
        }
    }

    /// One RTT sample.
    #[inline(always)]
    pub fn rtt(self, rtt_us: u32, window: u32) {
        let index = opaque(bucket::<RTT_BITS>(rtt_us));
        if index < RTT_BUCKETS {
            let buckets = field!(self, rtt).cast::<u64>();
            // SAFETY: the index is checked.
            add(unsafe { buckets.add(index) }, 1);
        }
        add(field!(self, counters.rtt_sum_us), rtt_us.into());
        // SAFETY: as in `field!`. Benign race, see `Extremes`.
        unsafe {
            let extremes = self.extremes(window);
            if rtt_us < read_volatile(&raw const (*extremes).rtt_min_us) {
                write_volatile(&raw mut (*extremes).rtt_min_us, rtt_us);
            }
            if rtt_us > read_volatile(&raw const (*extremes).rtt_max_us) {
                write_volatile(&raw mut (*extremes).rtt_max_us, rtt_us);
            }
        }
    }

    /// The handshake's RTT.
    #[inline(always)]
    pub fn rtt_handshake(self, rtt_us: u32) {
        let index = opaque(bucket::<COARSE_BITS>(rtt_us));
        if index < COARSE_BUCKETS {
            let buckets = field!(self, rtt_handshake).cast::<u64>();
            // SAFETY: the index is checked.
            add(unsafe { buckets.add(index) }, 1);
        }
    }

    /// The flow's minimum RTT, once per window.
    #[inline(always)]
    pub fn rtt_min(self, rtt_us: u32) {
        let index = opaque(bucket::<COARSE_BITS>(rtt_us));
        if index < COARSE_BUCKETS {
            let buckets = field!(self, rtt_min).cast::<u64>();
            // SAFETY: the index is checked.
            add(unsafe { buckets.add(index) }, 1);
        }
    }

    /// What the stall detector found.
    #[inline(always)]
    pub fn stalls(self, flow: &mut FlowState, found: &Found, window: u32) {
        add_some(field!(self, counters.stalls), found.stalls.into());
        add_some(
            field!(self, counters.stall_network_us),
            found.network_us.into(),
        );
        add_some(field!(self, counters.stall_other_us), found.other_us.into());
        add_some(field!(self, counters.stalls_ended), found.ended.into());
        let us = u64::from(found.network_us) + u64::from(found.other_us);
        // SAFETY: as in `field!`.
        add_some(unsafe { &raw mut (*self.group(flow)).stall_us }, us);
        if found.longest_us != 0 {
            if flow.stall_window != window {
                flow.stall_window = window;
                // SAFETY: as in `field!`.
                add(unsafe { &raw mut (*self.distinct(window)).stalled }, 1);
            }
            // SAFETY: as in `field!`. Benign race, see `Extremes`.
            unsafe {
                let extremes = self.extremes(window);
                if found.longest_us > read_volatile(&raw const (*extremes).stall_longest_us) {
                    write_volatile(&raw mut (*extremes).stall_longest_us, found.longest_us);
                }
            }
        }
    }
}
