//! What the walk's records say: gauges, and the stalls that no callback shows.
//!
//! A flow that waits with nothing in flight raises no callback. The walk sees it: data waits,
//! nothing was delivered for longer than its limit, and either the receiver's window has no
//! room (a receiver stall) or it has (a sender stall).

use std::collections::HashMap;

use ebpf_abi::{
    hash::GROUPS,
    walk::{IDLE, RECEIVER, SENDER, UNHOOKED, WalkRecord, ZERO_WINDOW},
};

/// Gauges of one slot at the last walk, and sums since they were last taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotWalk {
    /// Flows met.
    pub flows: u64,
    /// Flows with data waiting and no progress for a whole window.
    pub flows_silent: u64,
    /// Flows whose callback flags another program took.
    pub flows_unhooked: u64,
    /// Flows whose receiver's window is zero.
    pub flows_zero_window: u64,
    /// Stalls seen here that are open.
    pub stalls_open: u64,
    /// Since taken: stalls recognised.
    pub stalls: u64,
    /// Since taken: distinct flows with such a stall and none that a callback saw.
    pub flows_stalled: u64,
    /// Since taken: time in receiver stalls.
    pub stall_receiver_us: u64,
    /// Since taken: time in sender stalls.
    pub stall_sender_us: u64,
    /// Longest stall touched since taken.
    pub stall_longest_us: u64,
    /// Cumulative stalled time by random group.
    pub group_stall_us: [u64; GROUPS],
}

struct Open {
    since_us: u64,
    counted_us: u64,
    last_seen_us: u64,
    receiver: bool,
    slot: u16,
    group: u8,
    window: u32,
    walk: u64,
}

/// The walk's memory: open stalls by flow, at most one a sampled flow.
#[derive(Default)]
pub struct Walks {
    open: HashMap<u64, Open>,
    slots: HashMap<u16, SlotWalk>,
    walk: u64,
    flows: u64,
    fresh: bool,
    /// An earlier life counted the stalls that it could see until then, monotonic µs; 0: none did.
    counted_until_us: u64,
}

impl SlotWalk {
    fn add(&mut self, open: &mut Open, length_us: u64) {
        let part = length_us.saturating_sub(open.counted_us);
        open.counted_us = open.counted_us.max(length_us);
        if open.receiver {
            self.stall_receiver_us += part;
        } else {
            self.stall_sender_us += part;
        }
        self.group_stall_us[usize::from(open.group) % GROUPS] += part;
        self.stall_longest_us = self.stall_longest_us.max(length_us);
    }
}

impl Walks {
    /// After an earlier life whose last window ended at `until_us`.
    pub fn resume(until_us: u64) -> Self {
        Self {
            counted_until_us: until_us,
            ..Self::default()
        }
    }

    /// Takes in one walk, made while window `window` of `window_ms` runs.
    pub fn observe(&mut self, records: &[WalkRecord], window: u32, window_ms: u32) {
        self.walk += 1;
        self.flows = records.len() as u64;
        self.fresh = true;
        for slot in self.slots.values_mut() {
            slot.flows = 0;
            slot.flows_silent = 0;
            slot.flows_unhooked = 0;
            slot.flows_zero_window = 0;
            slot.stalls_open = 0;
        }
        for record in records {
            self.flow(record, window, window_ms);
        }
        // What the walk did not meet is gone; its stall ended with it, as far as it was seen.
        let walk = self.walk;
        self.open.retain(|_, open| open.walk == walk);
    }

    fn flow(&mut self, record: &WalkRecord, window: u32, window_ms: u32) {
        let slot = self.slots.entry(record.slot).or_default();
        slot.flows += 1;
        slot.flows_unhooked += u64::from(record.flags & UNHOOKED != 0);
        slot.flows_zero_window += u64::from(record.flags & ZERO_WINDOW != 0);
        let age_us = record.now_us.saturating_sub(record.delivered_us);
        slot.flows_silent +=
            u64::from(record.state != IDLE && age_us >= u64::from(window_ms) * 1000);
        let waits = record.state == RECEIVER || record.state == SENDER;
        let stalled = waits && age_us > u64::from(record.limit_us);
        if let Some(open) = self.open.get_mut(&record.id)
            && !(stalled && open.since_us == record.delivered_us)
        {
            // The kernel notes when a flow resumed; without a note it was at its last delivery.
            let noted = record.resumed_us > open.last_seen_us && record.resumed_us <= record.now_us;
            let until = if noted {
                record.resumed_us
            } else {
                record.delivered_us
            };
            let until = until.clamp(open.last_seen_us, record.now_us.max(open.last_seen_us));
            slot.add(open, until - open.since_us);
            self.open.remove(&record.id);
        }
        if !stalled {
            return;
        }
        let before_us = self.counted_until_us.saturating_sub(record.delivered_us);
        let open = self.open.entry(record.id).or_insert_with(|| {
            let known = before_us > u64::from(record.limit_us);
            slot.stalls += u64::from(!known);
            Open {
                since_us: record.delivered_us,
                counted_us: if known { before_us } else { 0 },
                last_seen_us: 0,
                receiver: true,
                slot: record.slot,
                group: record.group,
                window: 0,
                walk: 0,
            }
        });
        open.receiver = record.state == RECEIVER;
        open.last_seen_us = record.now_us;
        open.walk = self.walk;
        debug_assert_eq!(open.slot, record.slot);
        slot.stalls_open += 1;
        slot.add(open, age_us);
        if open.window != window && record.stall_window != window {
            slot.flows_stalled += 1;
        }
        open.window = window;
    }

    /// Flows that the last walk met.
    pub fn flows(&self) -> u64 {
        self.flows
    }

    /// Whether there was a walk since this was last asked.
    pub fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// Open stalls of a slot at the last walk.
    pub fn stalls_open(&self, slot: u32) -> u64 {
        self.slots.get(&(slot as u16)).map_or(0, |s| s.stalls_open)
    }

    /// Gauges and sums of a slot; the sums begin anew.
    pub fn take(&mut self, slot: u32) -> SlotWalk {
        let Some(walk) = self.slots.get_mut(&(slot as u16)) else {
            return SlotWalk::default();
        };
        let taken = walk.clone();
        walk.stalls = 0;
        walk.flows_stalled = 0;
        walk.stall_receiver_us = 0;
        walk.stall_sender_us = 0;
        walk.stall_longest_us = 0;
        taken
    }

    /// Forgets a slot that is given to another stream.
    pub fn forget(&mut self, slot: u32) {
        self.slots.remove(&(slot as u16));
        self.open.retain(|_, open| u32::from(open.slot) != slot);
    }

    /// Flows unhooked over all slots at the last walk.
    pub fn flows_unhooked(&self) -> u64 {
        self.slots.values().map(|s| s.flows_unhooked).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebpf_abi::walk::IN_FLIGHT;

    fn record(now_ms: u64, delivered_ms: u64, state: u8) -> WalkRecord {
        WalkRecord {
            id: 42,
            now_us: now_ms * 1000,
            delivered_us: delivered_ms * 1000,
            limit_us: 200_000,
            slot: 5,
            group: 3,
            state,
            ..WalkRecord::default()
        }
    }

    fn walk(walks: &mut Walks, window: u32, record: WalkRecord) -> SlotWalk {
        walks.observe(&[record], window, 1000);
        walks.take(5)
    }

    #[test]
    fn a_reader_that_stops_is_one_receiver_stall_over_many_windows() {
        let mut walks = Walks::default();
        let first = walk(&mut walks, 1, record(1000, 900, RECEIVER));
        assert_eq!((first.stalls, first.stalls_open), (0, 0));
        let second = walk(&mut walks, 2, record(2000, 900, RECEIVER));
        assert_eq!(
            (second.stalls, second.stalls_open, second.flows_stalled),
            (1, 1, 1)
        );
        assert_eq!(second.stall_receiver_us, 1_100_000);
        assert_eq!(second.flows_silent, 1);
        let third = walk(&mut walks, 3, record(3000, 900, RECEIVER));
        assert_eq!((third.stalls, third.flows_stalled), (0, 1));
        assert_eq!(
            (third.stall_receiver_us, third.stall_longest_us),
            (1_000_000, 2_100_000)
        );
        let resumed = WalkRecord {
            resumed_us: 3_400_000,
            ..record(4000, 3950, IN_FLIGHT)
        };
        let last = walk(&mut walks, 4, resumed);
        assert_eq!((last.stall_receiver_us, last.stalls_open), (400_000, 0));
        assert_eq!(last.group_stall_us[3], 2_500_000);
        assert_eq!(last.stall_sender_us, 0);
        assert_eq!(
            walk(&mut walks, 5, record(5000, 4950, IDLE)).stall_receiver_us,
            0
        );
    }

    #[test]
    fn a_stall_over_two_lives_is_counted_once() {
        let mut first = Walks::default();
        assert_eq!(walk(&mut first, 1, record(2000, 900, RECEIVER)).stalls, 1);
        let mut second = Walks::resume(2_000_000);
        let rest = walk(&mut second, 2, record(3000, 900, RECEIVER));
        assert_eq!((rest.stalls, rest.stalls_open), (0, 1));
        assert_eq!(rest.stall_receiver_us, 1_000_000);
        // Too short at the end of the first life to be known there.
        let mut second = Walks::resume(2_000_000);
        let whole = walk(&mut second, 2, record(3000, 1_900, RECEIVER));
        assert_eq!((whole.stalls, whole.stall_receiver_us), (1, 1_100_000));
    }

    #[test]
    fn a_server_that_waits_is_a_sender_stall() {
        let mut walks = Walks::default();
        let seen = walk(&mut walks, 1, record(2000, 1000, SENDER));
        assert_eq!((seen.stalls, seen.stall_sender_us), (1, 1_000_000));
        assert_eq!(seen.stall_receiver_us, 0);
    }

    #[test]
    fn idle_and_in_flight_are_none() {
        let mut walks = Walks::default();
        let idle = walk(&mut walks, 1, record(60_000, 1000, IDLE));
        assert_eq!(
            idle,
            SlotWalk {
                flows: 1,
                ..SlotWalk::default()
            }
        );
        let flying = walk(&mut walks, 1, record(60_000, 1000, IN_FLIGHT));
        assert_eq!((flying.stalls, flying.flows_silent), (0, 1));
    }

    #[test]
    fn a_closed_flow_leaves_nothing() {
        let mut walks = Walks::default();
        walk(&mut walks, 1, record(2000, 1000, RECEIVER));
        walks.observe(&[], 2, 1000);
        assert!(walks.open.is_empty());
        assert_eq!(walks.take(5).stalls_open, 0);
    }

    #[test]
    fn a_stall_that_a_callback_counted_is_no_second_flow() {
        let mut walks = Walks::default();
        let mut seen = record(2000, 1000, RECEIVER);
        seen.stall_window = 7;
        assert_eq!(walk(&mut walks, 7, seen).flows_stalled, 0);
    }

    #[test]
    fn flags_are_counted() {
        let mut walks = Walks::default();
        let mut seen = record(2000, 1990, RECEIVER);
        seen.flags = UNHOOKED | ZERO_WINDOW;
        let taken = walk(&mut walks, 1, seen);
        assert_eq!((taken.flows_unhooked, taken.flows_zero_window), (1, 1));
        assert_eq!(walks.flows_unhooked(), 1);
    }
}
