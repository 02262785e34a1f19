//! Kernel memory of a configuration, bytes.
//!
//! The tables and cells are exact sizes of the ABI; what the kernel adds per followed flow is
//! an upper estimate from its structures' sizes.

use ebpf_abi::cells::{MAX_SHARDS, cells_bytes};
use ebpf_abi::control::Slot;
use ebpf_abi::rules::{EXACT_SLOTS, ExactEntry, List, MAX_LISTS, MAX_STREAMS, PORTS, StreamEntry};

/// Rate epochs of a stream that can live at the same time.
pub const EPOCHS: u32 = 4;
/// Copies of each rule table.
const COPIES: u64 = 2;
/// Socket storage of one flow: our state and the element around it (192), and the socket's own
/// storage head (192), as the kernel's allocator rounds them.
const FLOW_BYTES: u64 = 384;

/// Kernel memory, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelMemory {
    /// Rule tables.
    pub rules_bytes: u64,
    /// Cells of all streams.
    pub cells_bytes: u64,
    /// Storage when as many flows are followed as may be.
    pub flows_bytes: u64,
}

/// How large the kernel side is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Slots: (stream, rate epoch) pairs.
    pub slots: u32,
    /// Shards of a slot, a power of two.
    pub shards: u32,
}

/// Streams that there is room for at least, so that a reload can add some.
const MIN_STREAMS: u32 = 16;

impl Size {
    /// For `streams` streams on a machine of `cpus` CPUs.
    pub fn new(streams: u32, cpus: u32) -> Self {
        let cpus = cpus.clamp(1, MAX_SHARDS);
        Self {
            slots: streams.max(MIN_STREAMS).saturating_mul(EPOCHS),
            shards: 1 << cpus.ilog2(),
        }
    }

    /// Cells of all slots.
    pub fn cells(&self) -> u32 {
        self.slots * self.shards
    }

    /// What it takes when `flows` flows are followed.
    pub fn memory(&self, flows: u32) -> KernelMemory {
        let size = |bytes: usize, count: usize| bytes as u64 * count as u64;
        let tables = size(size_of::<ExactEntry>(), EXACT_SLOTS)
            + size(size_of::<u64>(), PORTS)
            + size(size_of::<List>(), MAX_LISTS);
        KernelMemory {
            rules_bytes: tables * COPIES + size(size_of::<StreamEntry>(), MAX_STREAMS),
            cells_bytes: cells_bytes(self.slots, self.shards)
                + u64::from(self.slots) * size_of::<Slot>() as u64,
            flows_bytes: u64::from(flows) * FLOW_BYTES,
        }
    }
}

impl KernelMemory {
    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        self.rules_bytes + self.cells_bytes + self.flows_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_a_power_of_two() {
        let check = |cpus, expected| assert_eq!(Size::new(1, cpus).shards, expected, "{cpus}");
        check(0, 1);
        check(1, 1);
        check(2, 2);
        check(3, 2);
        check(7, 4);
        check(8, 8);
        check(128, 8);
    }

    /// The budget of the design: 200 streams on 128 CPUs.
    #[test]
    fn a_large_node_stays_within_64_mib() {
        let memory = Size::new(200, 128).memory(65_536);
        let fixed_bytes = memory.rules_bytes + memory.cells_bytes;
        assert!(fixed_bytes <= 64 << 20, "{fixed_bytes}");
    }
}
