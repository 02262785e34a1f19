//! Every map and load-time constant.
//!
//! All arrays can be mapped by user space: after the attach it neither needs a system call nor a
//! capability to read counters or to change rules.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::Array,
};
use ebpf_abi::{
    cells::Cell,
    control::{Control, Report, Slot},
    flow::FlowState,
    offsets::Offsets,
    rules::{EXACT_SLOTS, ExactEntry, List, MAX_LISTS, MAX_STREAMS, PORTS, StreamEntry},
};

/// Copies of each rule table.
const COPIES: u32 = 2;

#[map]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static REPORT: Array<Report> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static EXACT: Array<ExactEntry> =
    Array::with_max_entries(COPIES * EXACT_SLOTS as u32, BPF_F_MMAPABLE);
#[map]
pub static PORT_TARGETS: Array<u64> =
    Array::with_max_entries(COPIES * PORTS as u32, BPF_F_MMAPABLE);
#[map]
pub static LISTS: Array<List> = Array::with_max_entries(COPIES * MAX_LISTS as u32, BPF_F_MMAPABLE);
#[map]
pub static STREAMS: Array<StreamEntry> =
    Array::with_max_entries(MAX_STREAMS as u32, BPF_F_MMAPABLE);
/// Sized at load: one entry a slot.
#[map]
pub static SLOTS: Array<Slot> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Sized at load: slots × shards.
#[map]
pub static CELLS: Array<Cell> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[btf_map]
static FLOWS: SkStorage<FlowState> = SkStorage::new();

/// Patched before load.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::NONE;

/// Shards of a slot less one; a power of two less one. Patched before load.
#[unsafe(no_mangle)]
static SHARD_MASK: u32 = 0;

/// The socket storage, for the helpers: aya's own wrapper takes other contexts only.
#[inline(always)]
pub fn flows() -> *mut core::ffi::c_void {
    (&raw const FLOWS).cast_mut().cast()
}

/// Where this kernel keeps what we read.
#[inline(always)]
pub fn offsets() -> *const Offsets {
    &raw const OFFSETS
}

/// The shard that this CPU adds to.
#[inline(always)]
pub fn shard() -> (u32, u32) {
    // SAFETY: a read of our own static; volatile, because user space patches its bytes.
    let mask = unsafe { core::ptr::read_volatile(&raw const SHARD_MASK) };
    // SAFETY: takes no argument and cannot fail.
    let cpu = unsafe { aya_ebpf::helpers::generated::bpf_get_smp_processor_id() } as u32;
    (cpu & mask, mask + 1)
}

/// What user space orders.
#[inline(always)]
pub fn control() -> Option<*const Control> {
    CONTROL.get_ptr(0)
}
