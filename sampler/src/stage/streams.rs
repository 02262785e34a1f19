//! Streams, their rate epochs, and the kernel's slots that count them.
//!
//! A flow keeps the rate it was admitted under. So a new rate is a new epoch with a slot of its
//! own; the old slot lives on until its last flow has closed. A stream that is taken away
//! leaves its slots closing: the kernel side closes their flows out, folded, at their next
//! callback. Stream ids and names are never given to another stream in one life of the kernel side,
//! so that its sequences go on if it comes back.

use std::collections::BTreeMap;

use ebpf_abi::{
    control::Slot,
    hash,
    rules::{MAX_STREAMS, StreamEntry},
};

use super::{
    counts::Counts,
    sparse,
    state::{StageState, StreamBooks},
    unseen,
};
use crate::limits::governor::MAX_HALVINGS;

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
    /// Gives a slot to a new epoch: its cells begin at zero, then it is set. So whoever finds a slot in use that no books know,
    /// knows what was in it at the begin.
    Begin(u32, Slot),
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
        "all {0} slots are in use: flows of earlier rates are still open; stop and start to make room"
    )]
    NoSlot(u32),
    /// All ids are in use.
    #[error(
        "{MAX_STREAMS} streams were named since the start; stop and start to forget those that are gone"
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
    /// The same for the books; empty: not made ready.
    words: Vec<u8>,
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
    /// Its flows are followed no longer, wherever they are.
    given_up: bool,
}

impl Epoch {
    /// A new one, in a slot whose cells are zero.
    fn begin(slot: u32, stream: usize, rate_epoch: u32, threshold: u64) -> Self {
        Self {
            slot,
            stream,
            rate_epoch,
            threshold,
            counted: Counts::default(),
            words: Vec::new(),
            pulsed: Counts::default(),
            walked_us: [0; hash::GROUPS],
            active: super::window::ActiveHistory::default(),
            admits: true,
            fresh: true,
            ended_unseen: 0,
            unmet: 0,
            given_up: false,
        }
    }

    /// Moves the baseline to `counted`, from which `delta` came; the one before.
    pub fn count(&mut self, counted: Counts, delta_is_zero: bool) -> Counts {
        if !delta_is_zero {
            self.words.clear();
        }
        std::mem::replace(&mut self.counted, counted)
    }

    /// Makes what was counted ready for the books: right after it was read, since later it comes from memory again, which is most of
    /// the cost.
    pub fn write_books(&mut self) {
        if self.words.is_empty() {
            sparse::put(self.counted.words(), &mut self.words);
        }
    }

    /// Appends what was counted, as the books have it; how many bytes.
    pub fn put_words(&self, to: &mut Vec<u8>) -> usize {
        let before = to.len();
        match self.words.is_empty() {
            true => sparse::put(self.counted.words(), to),
            false => to.extend_from_slice(&self.words),
        }
        to.len() - before
    }

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
    /// for long, and no walk meets any. Or they were given up.
    pub fn is_deserted(&self) -> bool {
        self.given_up || !self.admits && self.unmet >= unseen::WINDOWS
    }
}

/// All streams and epochs.
pub struct Streams {
    slots: u32,
    streams: Vec<Stream>,
    epochs: Vec<Epoch>,
    /// Slots given back at the last edge. Until the next one nobody gets them: the books of the edge before still name them.
    resting: Vec<u32>,
    /// Rates are divided by 2 to this power, because the flow table is near its bound …
    halvings: u32,
    /// … and to this one, because the sampler costs too much.
    cost_halvings: u32,
}

impl Streams {
    /// No streams, and so many slots of the kernel side to give them.
    pub fn new(slots: u32) -> Self {
        Self {
            slots,
            streams: Vec::new(),
            epochs: Vec::new(),
            resting: Vec::new(),
            halvings: 0,
            cost_halvings: 0,
        }
    }

    /// The streams of an earlier life, by its books and by what the kernel side does: `entry` is where a stream's new flows go, `now`
    /// what a slot has counted. What was ordered after the last books is known from the entries: such a slot began at zero.
    /// `None`: the books do not fit, or flows of streams that they do not name are counted.
    pub(super) fn resume(
        slots: u32,
        state: &StageState,
        entry: &dyn Fn(u32) -> StreamEntry,
        now: &dyn Fn(u32) -> Counts,
    ) -> Option<Self> {
        let known = state.streams.len() as u32;
        if (known..MAX_STREAMS as u32).any(|id| entry(id).is_live()) {
            return None;
        }
        let mut all = Self {
            halvings: state.halvings,
            ..Self::new(slots)
        };
        for (books, counted) in state.slots()? {
            let stream = books.stream as usize;
            let entry =
                (books.stream < known && books.slot < slots).then(|| entry(books.stream))?;
            let now = now(books.slot);
            if now.words().iter().zip(counted.words()).any(|(n, c)| n < c) {
                return None;
            }
            all.epochs.push(Epoch {
                counted,
                pulsed: now,
                admits: entry.is_live() && u32::from(entry.slot()) == books.slot,
                ended_unseen: books.ended_unseen,
                ..Epoch::begin(books.slot, stream, books.rate_epoch, books.threshold)
            });
        }
        for (id, books) in (0..).zip(&state.streams) {
            let mut stream = Stream::of(books);
            let entry = entry(id);
            stream.live = entry.is_live();
            if entry.is_live() {
                let (slot, threshold) = (entry.slot().into(), entry.threshold());
                if all.epochs.iter().all(|epoch| epoch.slot != slot) {
                    let epoch = Epoch::begin(slot, id as usize, stream.next_epoch, threshold);
                    all.epochs.push(epoch);
                    stream.next_epoch += 1;
                }
                stream.current = Some(slot);
                stream.threshold = threshold;
            }
            all.streams.push(stream);
        }
        Some(all)
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

    /// How often rates are halved now because of the flow table.
    pub fn halvings(&self) -> u32 {
        self.halvings
    }

    /// How often they are halved in all.
    pub fn all_halvings(&self) -> u32 {
        (self.halvings + self.cost_halvings).min(MAX_HALVINGS)
    }

    /// Makes the streams those of a configuration.
    pub fn apply(
        &mut self,
        wanted: &[Wanted],
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
            if let Err(error) = self.renew(index, slow_changed, orders) {
                failed.push((want.name.clone(), error));
            }
        }
        failed
    }

    /// Gives new flows of a stream another rate.
    ///
    /// # Errors
    /// Without a slot the stream stays as it is.
    pub fn set_rate(
        &mut self,
        id: u32,
        rate: f64,
        orders: &mut Vec<Order>,
    ) -> Result<(), StreamsError> {
        let index = id as usize;
        let stream = &mut self.streams[index];
        let before = std::mem::replace(&mut stream.wanted.rate, rate);
        let degraded = stream.degraded.clone();
        self.renew(index, false, orders).inspect_err(|_| {
            let stream = &mut self.streams[index];
            (stream.wanted.rate, stream.degraded) = (before, degraded);
        })
    }

    /// Gives a stream a slot at the rate it should have, unless it has one.
    fn renew(
        &mut self,
        index: usize,
        slow_changed: bool,
        orders: &mut Vec<Order>,
    ) -> Result<(), StreamsError> {
        let rate = self.streams[index].wanted.rate / f64::from(1 << self.all_halvings());
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
        self.epochs
            .push(Epoch::begin(slot, index, stream.next_epoch, threshold));
        stream.next_epoch += 1;
        stream.current = Some(slot);
        stream.threshold = threshold;
        stream.degraded.clear();
        let rtt_slow_us = stream.wanted.rtt_slow_us;
        orders.push(Order::Begin(
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
        let used =
            |slot: &u32| self.resting.contains(slot) || self.epochs.iter().any(|e| e.slot == *slot);
        (0..self.slots).find(|slot| !used(slot))
    }

    /// Gives back slots that admit nothing and whose last flow has closed.
    pub fn retire(&mut self, mut forget: impl FnMut(u32)) {
        self.resting.clear();
        self.epochs.retain(|epoch| {
            let keep = epoch.admits || epoch.flows_open(&epoch.counted) != 0;
            if !keep {
                forget(epoch.slot);
                self.resting.push(epoch.slot);
            }
            keep
        });
    }

    /// Halves the rates of new flows, or doubles them again, by how full the flow table is:
    /// `true` if something changed. Halving begins at 90 %, doubling below 40 %, so that a
    /// doubled inflow cannot lead straight back.
    pub fn adapt(&mut self, flows_open: u64, max_flows: u32, orders: &mut Vec<Order>) -> bool {
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
        self.renew_all(orders);
        true
    }

    /// Divides the rates of new flows by 2 to this power, besides what the flow table asks for.
    pub fn lower(&mut self, halvings: u32, orders: &mut Vec<Order>) {
        self.cost_halvings = halvings;
        self.renew_all(orders);
    }

    fn renew_all(&mut self, orders: &mut Vec<Order>) {
        for index in 0..self.streams.len() {
            if self.streams[index].live {
                // Without a slot the stream keeps its rate, and says so.
                let _ = self.renew(index, false, orders);
            }
        }
    }

    /// Counts all flows that are open as ended at the next window: nothing will say more of them. For streams that were taken away.
    pub fn give_up(&mut self) {
        for epoch in self.epochs.iter_mut().filter(|e| !e.admits) {
            epoch.given_up = true;
        }
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

    /// As an earlier life left it, until the configuration is applied; losses are counted by life.
    fn of(books: &StreamBooks) -> Self {
        let wanted = Wanted {
            name: books.name.clone(),
            rate: 0.0,
            pulse_ms: 0,
            rtt_slow_us: books.rtt_slow_us,
            labels: BTreeMap::new(),
        };
        Self {
            next_epoch: books.next_epoch,
            ..Self::new(wanted)
        }
    }

    /// Number of its next rate.
    pub(super) fn next_epoch(&self) -> u32 {
        self.next_epoch
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
    use crate::stage::{counts::WORDS, heartbeat::FlowTotals, state::ClockBooks};

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
        let failed = streams.apply(wants, &mut orders);
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

    /// The kernel side as far as entries go: what `orders` made of it.
    fn entries(orders: &[Order]) -> impl Fn(u32) -> StreamEntry {
        let mut entries = BTreeMap::new();
        for order in orders {
            if let Order::Stream(stream, entry) = order {
                entries.insert(*stream, *entry);
            }
        }
        move |stream| entries.get(&stream).copied().unwrap_or(StreamEntry::GONE)
    }

    fn resumed(books: &Streams, orders: &[Order], counted: u64) -> Option<Streams> {
        let clock = ClockBooks::default();
        let state = StageState::of(&FlowTotals::default(), books, clock, 0);
        let now = |_| Counts::from(vec![counted; WORDS]);
        Streams::resume(8, &state, &entries(orders), &now)
    }

    fn numbers(streams: &Streams) -> Vec<(u32, u32, bool, u64)> {
        let epochs = streams.epochs().iter();
        let number = |e: &Epoch| {
            (
                e.slot,
                e.rate_epoch,
                e.admits,
                e.counted.counters().flows_seen,
            )
        };
        epochs.map(number).collect()
    }

    #[test]
    fn the_books_say_what_was_counted_last_whenever_they_were_made_ready() {
        let mut epoch = Epoch::begin(0, 0, 1, 0);
        for (step, (word, ready)) in [(5, true), (5, true), (6, false), (7, true), (8, true)]
            .into_iter()
            .enumerate()
        {
            let counted = Counts::from(vec![word; WORDS]);
            let is_zero = counted.since(&epoch.counted).is_zero();
            epoch.count(counted, is_zero);
            if ready {
                epoch.write_books();
            }
            let mut bytes = vec![9];
            assert_eq!(epoch.put_words(&mut bytes), bytes.len() - 1, "{step}");
            let read = sparse::words(&bytes[1..], WORDS);
            assert_eq!(read, Some(vec![word; WORDS]), "{step}");
        }
    }

    #[test]
    fn another_life_with_the_same_configuration_changes_nothing() {
        let mut streams = Streams::new(8);
        let wants = [wanted("a", 0.1), wanted("b", 1.0)];
        let (orders, _) = apply(&mut streams, &wants);
        streams.epochs[1].counted = Counts::from(vec![5; WORDS]);
        let mut next = resumed(&streams, &orders, 7).expect("the books fit");
        assert_eq!(numbers(&next), [(0, 1, true, 0), (1, 1, true, 5)]);
        assert_eq!(apply(&mut next, &wants).0, []);
        let (orders, _) = apply(&mut next, &[wanted("b", 1.0)]);
        assert_eq!(orders[0], Order::Stream(0, StreamEntry::GONE));
    }

    #[test]
    fn a_rate_that_no_books_know_began_at_zero() {
        let mut streams = Streams::new(8);
        let (mut orders, _) = apply(&mut streams, &[wanted("a", 0.1)]);
        streams.epochs[0].counted = Counts::from(vec![5; WORDS]);
        let changed = [wanted("a", 0.5)];
        let mut later = Streams::new(8);
        apply(&mut later, &[wanted("a", 0.1)]);
        orders.extend(apply(&mut later, &changed).0);
        let mut next = resumed(&streams, &orders, 7).expect("the books fit");
        assert_eq!(numbers(&next), [(0, 1, false, 5), (1, 2, true, 0)]);
        assert_eq!(apply(&mut next, &changed).0, []);
    }

    #[test]
    fn books_that_do_not_fit_are_not_gone_on_from() {
        let mut streams = Streams::new(8);
        let (mut orders, _) = apply(&mut streams, &[wanted("a", 0.1)]);
        streams.epochs[0].counted = Counts::from(vec![5; WORDS]);
        assert!(resumed(&streams, &orders, 5).is_some());
        // The cell was begun anew.
        assert!(resumed(&streams, &orders, 4).is_none());
        // Somebody's flows are counted, and nobody knows whose.
        orders.push(Order::Stream(1, StreamEntry::new(3, 1)));
        assert!(resumed(&streams, &orders, 5).is_none());
    }

    #[test]
    fn a_slot_that_was_given_back_rests_until_the_next_edge() {
        let mut streams = Streams::new(2);
        apply(&mut streams, &[wanted("a", 0.1)]);
        apply(&mut streams, &[wanted("a", 0.5)]);
        streams.retire(|_| ());
        assert_eq!(apply(&mut streams, &[wanted("a", 0.7)]).1, 1);
        streams.retire(|_| ());
        assert_eq!(apply(&mut streams, &[wanted("a", 0.7)]).1, 0);
    }

    #[test]
    fn too_few_slots_are_said() {
        let mut streams = Streams::new(1);
        let (_, failed) = apply(&mut streams, &[wanted("a", 0.1), wanted("b", 0.1)]);
        assert_eq!(failed, 1);
        assert!(streams.streams()[1].degraded.contains("all 1 slots"));
    }

    #[test]
    fn a_cost_lowers_rates_besides_a_full_table() {
        let mut streams = Streams::new(64);
        apply(&mut streams, &[wanted("a", 0.8)]);
        let mut orders = Vec::new();
        let rate = |streams: &Streams| (streams.streams()[0].rate() * 1e6).round() / 1e6;
        streams.lower(1, &mut orders);
        assert_eq!((rate(&streams), orders.len()), (0.4, 2));
        streams.adapt(90, 100, &mut orders);
        assert_eq!((rate(&streams), streams.all_halvings()), (0.2, 2));
        streams.lower(0, &mut orders);
        assert_eq!((rate(&streams), streams.halvings()), (0.4, 1));
        streams.lower(MAX_HALVINGS, &mut orders);
        assert_eq!(streams.all_halvings(), MAX_HALVINGS);
    }

    #[test]
    fn flows_that_are_given_up_hold_no_slot() {
        let mut streams = Streams::new(8);
        apply(&mut streams, &[wanted("a", 0.1)]);
        streams.give_up();
        assert!(!streams.epochs()[0].is_deserted(), "it admits");
        apply(&mut streams, &[]);
        streams.give_up();
        assert!(streams.epochs()[0].is_deserted());
    }

    #[test]
    fn a_rate_that_finds_no_slot_changes_nothing() {
        let mut streams = Streams::new(2);
        apply(&mut streams, &[wanted("a", 0.1)]);
        let mut orders = Vec::new();
        assert_eq!(streams.set_rate(0, 0.1, &mut orders), Ok(()));
        assert_eq!(orders, []);
        assert_eq!(streams.set_rate(0, 0.5, &mut orders), Ok(()));
        assert_eq!((orders.len(), streams.streams()[0].rate_epoch()), (2, 2));
        let error = streams.set_rate(0, 0.7, &mut orders);
        assert_eq!(error, Err(StreamsError::NoSlot(2)));
        let stream = &streams.streams()[0];
        assert_eq!((orders.len(), stream.wanted.rate), (2, 0.5));
        assert_eq!((stream.rate(), stream.degraded.as_str()), (0.5, ""));
    }

    #[test]
    fn a_full_table_halves_and_an_empty_one_doubles() {
        let mut streams = Streams::new(64);
        apply(&mut streams, &[wanted("a", 0.8)]);
        let mut at = |open| {
            let mut orders = Vec::new();
            streams.adapt(open, 100, &mut orders);
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
