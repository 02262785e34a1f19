//! Cumulative counts of one slot, its shards added up, and their differences.

use std::mem::{offset_of, size_of};

use ebpf_abi::{
    cells::{Cell, Counters, Distinct, Extremes, Group},
    hash::GROUPS,
    histogram::{COARSE_BUCKETS, RTT_BUCKETS},
};

/// Where counts come from: the mapped cells, or a test.
pub trait Cells {
    /// Adds the words of every shard of a slot, from word `from` of its cells on, to `sum`.
    fn add_words(&self, slot: u32, from: usize, sum: &mut [u64]);
    /// Extremes of a window.
    fn extremes(&self, slot: u32, window: u32) -> Extremes;
}

const WORDS: usize = size_of::<Cell>() / 8;
const COUNTERS: usize = offset_of!(Cell, counters) / 8;
const DISTINCT: usize = offset_of!(Cell, distinct) / 8;
const GROUPS_AT: usize = offset_of!(Cell, groups) / 8;
const GROUP_WORDS: usize = size_of::<Group>() / 8;
const RTT: usize = offset_of!(Cell, rtt) / 8;
const HANDSHAKE: usize = offset_of!(Cell, rtt_handshake) / 8;
const RTT_MIN: usize = offset_of!(Cell, rtt_min) / 8;

/// The words of a cell, without its extremes, which do not add up.
#[derive(Clone, PartialEq, Eq)]
pub struct Counts(Box<[u64]>);

impl Default for Counts {
    fn default() -> Self {
        Self(vec![0; WORDS].into())
    }
}

impl Counts {
    /// Reads all words of a slot.
    pub fn read_all(cells: &impl Cells, slot: u32) -> Self {
        let mut counts = Self::read_light(cells, slot);
        cells.add_words(slot, RTT, &mut counts.0[RTT..]);
        counts
    }

    /// Reads a slot. Histograms are most of the words: where nothing was sampled since
    /// `earlier`, they are taken from there.
    pub fn read(cells: &impl Cells, slot: u32, earlier: &Self) -> Self {
        let mut counts = Self::read_light(cells, slot);
        let (new, old) = (counts.counters(), earlier.counters());
        if new.rtt_sum_us == old.rtt_sum_us && new.flows_sampled == old.flows_sampled {
            counts.0[RTT..].copy_from_slice(&earlier.0[RTT..]);
        } else {
            cells.add_words(slot, RTT, &mut counts.0[RTT..]);
        }
        counts
    }

    /// Only what a pulse needs: counters and groups.
    pub fn read_light(cells: &impl Cells, slot: u32) -> Self {
        let mut counts = Self::default();
        cells.add_words(slot, COUNTERS, &mut counts.0[COUNTERS..RTT]);
        counts
    }

    /// What was added since.
    pub fn since(&self, earlier: &Self) -> Self {
        Self(
            self.0
                .iter()
                .zip(&earlier.0)
                .map(|(now, then)| now.wrapping_sub(*then))
                .collect(),
        )
    }

    /// Whether nothing was counted.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|n| *n == 0)
    }

    /// The words from one of the offsets above on, as what they are.
    fn part<T: Copy>(&self, at: usize) -> T {
        let words = &self.0[at..at + size_of::<T>() / 8];
        // SAFETY: `T` is one of the ABI's structs of nothing but u64, of just these words.
        unsafe { words.as_ptr().cast::<T>().read() }
    }

    /// All words.
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    /// Plain counters.
    pub fn counters(&self) -> Counters {
        self.part(COUNTERS)
    }

    /// Distinct flows of the windows of one parity.
    pub fn distinct(&self, window: u32) -> Distinct {
        self.part(DISTINCT + (window as usize & 1) * (size_of::<Distinct>() / 8))
    }

    /// A random group.
    pub fn group(&self, index: usize) -> Group {
        assert!(index < GROUPS, "group {index}");
        self.part(GROUPS_AT + index * GROUP_WORDS)
    }

    /// All groups together.
    pub fn whole(&self) -> Group {
        (0..GROUPS)
            .map(|g| self.group(g))
            .fold(Group::default(), |sum, g| Group {
                retrans_segs: sum.retrans_segs.wrapping_add(g.retrans_segs),
                data_segs_out: sum.data_segs_out.wrapping_add(g.data_segs_out),
                stall_us: sum.stall_us.wrapping_add(g.stall_us),
                busy_jiffies: sum.busy_jiffies.wrapping_add(g.busy_jiffies),
                rtt_count: sum.rtt_count.wrapping_add(g.rtt_count),
                rtt_slow: sum.rtt_slow.wrapping_add(g.rtt_slow),
                ..sum
            })
    }

    /// RTT samples by bucket.
    pub fn rtt(&self) -> &[u64] {
        &self.0[RTT..RTT + RTT_BUCKETS]
    }

    /// Handshakes by bucket.
    pub fn rtt_handshake(&self) -> &[u64] {
        &self.0[HANDSHAKE..HANDSHAKE + COARSE_BUCKETS]
    }

    /// Minima of flows by bucket.
    pub fn rtt_min(&self) -> &[u64] {
        &self.0[RTT_MIN..RTT_MIN + COARSE_BUCKETS]
    }

    /// Flows that are open: admitted or picked up, and not closed.
    pub fn flows_open(&self) -> u64 {
        let c = self.counters();
        (c.flows_sampled + c.flows_picked_up).saturating_sub(c.flows_closed)
    }

    /// Stalls that callbacks saw and that have not ended.
    pub fn stalls_open(&self) -> u64 {
        let c = self.counters();
        c.stalls.saturating_sub(c.stalls_ended)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::{cell::RefCell, collections::BTreeMap};

    /// Cells that a test writes.
    #[derive(Default)]
    pub(crate) struct Memory {
        pub cells: RefCell<BTreeMap<u32, Cell>>,
    }

    impl Memory {
        pub(crate) fn edit(&self, slot: u32, edit: impl FnOnce(&mut Cell)) {
            edit(self.cells.borrow_mut().entry(slot).or_insert(Cell::EMPTY));
        }
    }

    impl Cells for Memory {
        fn add_words(&self, slot: u32, from: usize, sum: &mut [u64]) {
            let cells = self.cells.borrow();
            let Some(cell) = cells.get(&slot) else { return };
            let words = std::ptr::from_ref(cell).cast::<u64>();
            for (i, sum) in sum.iter_mut().enumerate() {
                assert!(from + i < WORDS);
                // SAFETY: inside the cell, which is all words.
                *sum += unsafe { words.add(from + i).read() };
            }
        }

        fn extremes(&self, slot: u32, window: u32) -> Extremes {
            let cells = self.cells.borrow();
            cells
                .get(&slot)
                .map_or(Extremes::NONE, |c| c.extremes[window as usize & 1])
        }
    }

    #[test]
    fn every_part_is_found_where_the_cell_has_it() {
        let memory = Memory::default();
        memory.edit(3, |c| {
            c.counters.flows_seen = 1;
            c.counters.sndbuf_limited_jiffies = 2;
            c.counters.rtt_sum_us = 7;
            c.distinct[1].stalled = 3;
            c.extremes[0].rtt_max_us = 99;
            c.groups[15].rtt_slow = 4;
            c.rtt[RTT_BUCKETS - 1] = 5;
            c.rtt_handshake[0] = 6;
            c.rtt_min[COARSE_BUCKETS - 1] = 8;
        });
        let first = Counts::read(&memory, 3, &Counts::default());
        assert_eq!(first.counters().flows_seen, 1);
        assert_eq!(first.counters().sndbuf_limited_jiffies, 2);
        assert_eq!(
            (first.distinct(1).stalled, first.distinct(2).stalled),
            (3, 0)
        );
        assert_eq!(first.group(15).rtt_slow, 4);
        assert_eq!(first.rtt().last(), Some(&5));
        assert_eq!(first.rtt_handshake().first(), Some(&6));
        assert_eq!(first.rtt_min().last(), Some(&8));
        memory.edit(3, |c| c.counters.flows_seen = 4);
        let second = Counts::read(&memory, 3, &first);
        assert_eq!(second.rtt(), first.rtt());
        assert_eq!(second.since(&first).counters().flows_seen, 3);
        assert!(second.since(&second).is_zero());
        assert!(!first.is_zero());
        assert!(Counts::read_light(&memory, 3).rtt().iter().all(|n| *n == 0));
    }
}
