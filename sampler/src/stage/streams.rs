//! Streams, their rate epochs, and the kernel's slots that count them.
//!
//! A flow keeps the rate it was admitted under. So a new rate is a new epoch with a slot of its
//! own; the old slot lives on until its last flow has closed. A stream that is taken away
//! leaves its slots closing: the kernel side closes their flows out, folded, at their next
//! callback. Stream ids and names are never given to another stream in one life of the daemon,
//! so that its sequences go on if it comes back.

use std::collections::BTreeMap;

use ebpf_abi::{
    control::Slot,
    hash,
    rules::{MAX_STREAMS, StreamEntry},
};

use super::{counts::Counts, unseen};

/// A stream as the configuration wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Rate, 0 to 1, before any halving.
    pub rate: f64,
    /// Pulse length, 0: none.
    pub pulse_ms: u32,
    /// RTT samples above this are slow.
    pub rtt_slow_us: u32,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// What the kernel side is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Sets a slot.
    Slot(u32, Slot),
    /// Sets where a stream's new flows go.
    Stream(u32, StreamEntry),
}

/// Why a stream cannot be counted as wanted.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StreamsError {
    /// All slots are in use.
    #[error(
        "all {0} slots are in use: flows of earlier rates are still open; restart to make room"
    )]
    NoSlot(u32),
    /// All ids are in use.
    #[error(
        "{MAX_STREAMS} streams were named since the start; restart to forget those that are gone"
    )]
    NoStream,
}

/// One stream.
#[derive(Clone, Debug)]
pub struct Stream {
    /// As configured.
    pub wanted: Wanted,
    /// False: taken away by the configuration.
    pub live: bool,
    /// Why it is not sampled as configured; empty when it is.
    pub degraded: String,
    /// Sequence of its next window event.
    pub next_sequence: u64,
    /// Sequence of its next pulse.
    pub next_pulse_sequence: u64,
    /// Cumulative: flows refused at a bound.
    pub lost_flows: u64,
    /// Cumulative: reads that failed.
    pub lost_reads: u64,
    current: Option<u32>,
    next_epoch: u32,
    /// Rate of the current slot.
    threshold: u64,
}

/// One slot in use: a stream at one rate.
#[derive(Clone)]
pub struct Epoch {
    /// The slot.
    pub slot: u32,
    /// Index of its stream.
    pub stream: usize,
    /// Number of the rate within its stream, from 1.
    pub rate_epoch: u32,
    /// Its threshold.
    pub threshold: u64,
    /// What was counted at the last window.
    pub counted: Counts,
    /// What was counted at the last pulse.
    pub pulsed: Counts,
    /// Stalled time of the walk, by group, at the last window.
    pub walked_us: [u64; hash::GROUPS],
    /// Distinct flows of recent windows, newest first.
    pub active: super::window::ActiveHistory,
    /// New flows come here.
    pub admits: bool,
    /// The first event of this slot is still to come.
    pub fresh: bool,
    /// Of the flows that the slot counts as open: those that have ended unseen.
    pub ended_unseen: u64,
    /// Windows in a row in which the walk met none of its flows.
    unmet: u8,
}

impl Epoch {
    /// Takes in how many of its flows a walk met.
    pub fn walked(&mut self, met: u64) {
        self.unmet = match met {
            0 => self.unmet.saturating_add(1),
            _ => 0,
        };
    }

    /// Its open flows by these counts.
    pub fn flows_open(&self, counts: &Counts) -> u64 {
        counts.flows_open().saturating_sub(self.ended_unseen)
    }

    /// Whether flows that are still open by the counts have all ended unseen: none has come
    /// for long, and no walk meets any.
    pub fn is_deserted(&self) -> bool {
        !self.admits && self.unmet >= unseen::WINDOWS
    }
}

/// All streams and epochs.
pub struct Streams {
    slots: u32,
    streams: Vec<Stream>,
    epochs: Vec<Epoch>,
    /// Rates are divided by 2 to this power.
    halvings: u32,
}

/// Rates are halved at most this often: 1/1024.
const MAX_HALVINGS: u32 = 10;

impl Streams {
    /// No streams, and so many slots of the kernel side to give them.
    pub fn new(slots: u32) -> Self {
        Self {
            slots,
            streams: Vec::new(),
            epochs: Vec::new(),
            halvings: 0,
        }
    }

    /// All streams that were ever named, in the order of their ids.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// One stream, to count what it lost or sent.
    pub fn stream_mut(&mut self, index: usize) -> &mut Stream {
        &mut self.streams[index]
    }

    /// Slots in use.
    pub fn epochs_mut(&mut self) -> (&mut [Stream], &mut [Epoch]) {
        (&mut self.streams, &mut self.epochs)
    }

    /// Slots in use.
    pub fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    /// Id by name, of streams that are live.
    pub fn id(&self, name: &str) -> Option<u32> {
        let index = self
            .streams
            .iter()
            .position(|s| s.live && s.wanted.name == name)?;
        Some(index as u32)
    }

    /// How often rates are halved now.
    pub fn halvings(&self) -> u32 {
        self.halvings
    }

    /// Makes the streams those of a configuration. `baseline` reads a slot that is to be used:
    /// what it counted for an earlier owner is not the new one's.
    pub fn apply(
        &mut self,
        wanted: &[Wanted],
        baseline: &mut dyn FnMut(u32) -> Counts,
        orders: &mut Vec<Order>,
    ) -> Vec<(String, StreamsError)> {
        let mut failed = Vec::new();
        for index in 0..self.streams.len() {
            let name = &self.streams[index].wanted.name;
            if self.streams[index].live && !wanted.iter().any(|w| w.name == *name) {
                self.take_away(index, orders);
            }
        }
        for want in wanted {
            let known = self.streams.iter().position(|s| s.wanted.name == want.name);
            let index = match known {
                Some(index) => index,
                None if self.streams.len() < MAX_STREAMS => {
                    self.streams.push(Stream::new(want.clone()));
                    self.streams.len() - 1
                }
                None => {
                    failed.push((want.name.clone(), StreamsError::NoStream));
                    continue;
                }
            };
            let stream = &mut self.streams[index];
            let slow_changed = stream.wanted.rtt_slow_us != want.rtt_slow_us;
            stream.wanted = want.clone();
            stream.live = true;
            if let Err(error) = self.renew(index, slow_changed, baseline, orders) {
                failed.push((want.name.clone(), error));
            }
        }
        failed
    }

    /// Gives a stream a slot at the rate it should have, unless it has one.
    fn renew(
        &mut self,
        index: usize,
        slow_changed: bool,
        baseline: &mut dyn FnMut(u32) -> Counts,
        orders: &mut Vec<Order>,
    ) -> Result<(), StreamsError> {
        let rate = self.streams[index].wanted.rate / f64::from(1 << self.halvings);
        let threshold = hash::threshold(rate);
        let stream = &self.streams[index];
        if stream.current.is_some() && stream.threshold == threshold && !slow_changed {
            return Ok(());
        }
        let Some(slot) = self.free_slot() else {
            let error = StreamsError::NoSlot(self.slots);
            self.streams[index].degraded = error.to_string();
            return Err(error);
        };
        for epoch in &mut self.epochs {
            epoch.admits &= epoch.stream != index;
        }
        let stream = &mut self.streams[index];
        let counted = baseline(slot);
        self.epochs.push(Epoch {
            slot,
            stream: index,
            rate_epoch: stream.next_epoch,
            threshold,
            pulsed: counted.clone(),
            // What an earlier epoch of the slot has left behind.
            ended_unseen: counted.flows_open(),
            unmet: 0,
            counted,
            walked_us: [0; hash::GROUPS],
            active: super::window::ActiveHistory::default(),
            admits: true,
            fresh: true,
        });
        stream.next_epoch += 1;
        stream.current = Some(slot);
        stream.threshold = threshold;
        stream.degraded.clear();
        let rtt_slow_us = stream.wanted.rtt_slow_us;
        orders.push(Order::Slot(
            slot,
            Slot {
                rtt_slow_us,
                live: 1,
            },
        ));
        let entry = StreamEntry::new(slot as u16, threshold);
        orders.push(Order::Stream(index as u32, entry));
        Ok(())
    }

    fn take_away(&mut self, index: usize, orders: &mut Vec<Order>) {
        let stream = &mut self.streams[index];
        stream.live = false;
        stream.current = None;
        orders.push(Order::Stream(index as u32, StreamEntry::GONE));
        for epoch in self.epochs.iter_mut().filter(|e| e.stream == index) {
            epoch.admits = false;
            orders.push(Order::Slot(
                epoch.slot,
                Slot {
                    rtt_slow_us: 0,
                    live: 0,
                },
            ));
        }
    }

    fn free_slot(&self) -> Option<u32> {
        (0..self.slots).find(|slot| self.epochs.iter().all(|e| e.slot != *slot))
    }

    /// Gives back slots that admit nothing and whose last flow has closed.
    pub fn retire(&mut self, mut forget: impl FnMut(u32)) {
        self.epochs.retain(|epoch| {
            let keep = epoch.admits || epoch.flows_open(&epoch.counted) != 0;
            if !keep {
                forget(epoch.slot);
            }
            keep
        });
    }

    /// Halves the rates of new flows, or doubles them again, by how full the flow table is:
    /// `true` if something changed. Halving begins at 90 %, doubling below 40 %, so that a
    /// doubled inflow cannot lead straight back.
    pub fn adapt(
        &mut self,
        flows_open: u64,
        max_flows: u32,
        baseline: &mut dyn FnMut(u32) -> Counts,
        orders: &mut Vec<Order>,
    ) -> bool {
        let max = u64::from(max_flows);
        let halvings = if flows_open * 10 >= max * 9 {
            (self.halvings + 1).min(MAX_HALVINGS)
        } else if flows_open * 10 < max * 4 {
            self.halvings.saturating_sub(1)
        } else {
            self.halvings
        };
        if halvings == self.halvings {
            return false;
        }
        self.halvings = halvings;
        for index in 0..self.streams.len() {
            if self.streams[index].live {
                // Without a slot the stream keeps its rate, and says so.
                let _ = self.renew(index, false, baseline, orders);
            }
        }
        true
    }
}

impl Stream {
    fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            live: true,
            degraded: String::new(),
            next_sequence: 0,
            next_pulse_sequence: 0,
            lost_flows: 0,
            lost_reads: 0,
            current: None,
            next_epoch: 1,
            threshold: 0,
        }
    }

    /// Rate at which new flows are selected.
    pub fn rate(&self) -> f64 {
        hash::rate(self.threshold)
    }

    /// Number of that rate.
    pub fn rate_epoch(&self) -> u32 {
        self.next_epoch.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, rate: f64) -> Wanted {
        Wanted {
            name: name.to_owned(),
            rate,
            pulse_ms: 0,
            rtt_slow_us: 200_000,
            labels: BTreeMap::new(),
        }
    }

    fn apply(streams: &mut Streams, wants: &[Wanted]) -> (Vec<Order>, usize) {
        let mut orders = Vec::new();
        let failed = streams.apply(wants, &mut |_| Counts::default(), &mut orders);
        (orders, failed.len())
    }

    #[test]
    fn the_same_configuration_changes_nothing() {
        let mut streams = Streams::new(8);
        let wants = [wanted("a", 0.1), wanted("b", 1.0)];
        assert_eq!(apply(&mut streams, &wants).0.len(), 4);
        assert_eq!(apply(&mut streams, &wants).0, []);
        assert_eq!(streams.id("b"), Some(1));
    }

    #[test]
    fn a_new_rate_is_a_new_epoch_and_the_old_one_drains() {
        let mut streams = Streams::new(8);
        apply(&mut streams, &[wanted("a", 0.1)]);
        let (orders, _) = apply(&mut streams, &[wanted("a", 0.5)]);
        assert_eq!(orders.len(), 2);
        let epochs: Vec<_> = streams
            .epochs()
            .iter()
            .map(|e| (e.slot, e.rate_epoch, e.admits))
            .collect();
        assert_eq!(epochs, [(0, 1, false), (1, 2, true)]);
        let mut freed = Vec::new();
        streams.retire(|slot| freed.push(slot));
        assert_eq!(freed, [0]);
    }

    #[test]
    fn a_stream_that_comes_back_goes_on() {
        let mut streams = Streams::new(8);
        apply(&mut streams, &[wanted("a", 0.1), wanted("b", 0.1)]);
        streams.stream_mut(1).next_sequence = 17;
        let (orders, _) = apply(&mut streams, &[wanted("a", 0.1)]);
        assert_eq!(orders[0], Order::Stream(1, StreamEntry::GONE));
        assert!(matches!(orders[1], Order::Slot(1, Slot { live: 0, .. })));
        assert_eq!(streams.id("b"), None);
        apply(&mut streams, &[wanted("a", 0.1), wanted("b", 0.1)]);
        assert_eq!(streams.id("b"), Some(1));
        assert_eq!(streams.streams()[1].next_sequence, 17);
    }

    #[test]
    fn too_few_slots_are_said() {
        let mut streams = Streams::new(1);
        let (_, failed) = apply(&mut streams, &[wanted("a", 0.1), wanted("b", 0.1)]);
        assert_eq!(failed, 1);
        assert!(streams.streams()[1].degraded.contains("all 1 slots"));
    }

    #[test]
    fn a_full_table_halves_and_an_empty_one_doubles() {
        let mut streams = Streams::new(64);
        apply(&mut streams, &[wanted("a", 0.8)]);
        let mut at = |open| {
            let mut orders = Vec::new();
            streams.adapt(open, 100, &mut |_| Counts::default(), &mut orders);
            (
                streams.halvings(),
                (streams.streams()[0].rate() * 1000.0).round(),
            )
        };
        assert_eq!(at(89), (0, 800.0));
        assert_eq!(at(90), (1, 400.0));
        assert_eq!(at(100), (2, 200.0));
        assert_eq!(at(50), (2, 200.0));
        assert_eq!(at(39), (1, 400.0));
        assert_eq!(at(0), (0, 800.0));
        assert_eq!(at(0), (0, 800.0));
    }
}
