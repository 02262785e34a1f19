//! Which streams get series of their own. Pure; time comes with the windows.
//!
//! Input: flows seen by stream and window. Output: a bounded set of streams.
//! Limits: `top:N` holds N streams at most; it changes at most once a minute, by the flows of the last five, so that
//! series do not come and go with every scrape. Free places are given away at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Length of a slot, ms.
const SLOT_MS: u64 = 60_000;
/// Slots that count.
const SLOTS: usize = 5;

/// Which streams get series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamSeries {
    /// The N streams with the most flows.
    Top(usize),
    /// All.
    All,
    /// None.
    Off,
}

/// The choice.
#[derive(Debug)]
pub struct Selection {
    series: StreamSeries,
    slot: u64,
    seen: BTreeMap<String, VecDeque<u64>>,
    chosen: BTreeSet<String>,
}

impl Selection {
    /// A choice of no streams yet.
    pub fn new(series: StreamSeries) -> Self {
        Self {
            series,
            slot: 0,
            seen: BTreeMap::new(),
            chosen: BTreeSet::new(),
        }
    }

    /// A window of `stream` saw so many flows.
    pub fn observe(&mut self, stream: &str, window_start_ms: u64, flows_seen: u64) {
        let StreamSeries::Top(most) = self.series else {
            return;
        };
        let slot = window_start_ms / SLOT_MS;
        if slot > self.slot {
            self.turn(slot, most);
        }
        if !self.seen.contains_key(stream) {
            self.seen.insert(stream.to_owned(), VecDeque::from([0]));
            if self.chosen.len() < most {
                self.chosen.insert(stream.to_owned());
            }
        }
        if let Some(newest) = self.seen.get_mut(stream).and_then(VecDeque::back_mut) {
            *newest = newest.saturating_add(flows_seen);
        }
    }

    /// Begins a slot: chooses anew by those that are over.
    fn turn(&mut self, slot: u64, most: usize) {
        let mut order: Vec<(u64, bool, &String)> = self
            .seen
            .iter()
            .map(|(stream, slots)| {
                (
                    slots
                        .iter()
                        .fold(0, |sum: u64, seen| sum.saturating_add(*seen)),
                    self.chosen.contains(stream),
                    stream,
                )
            })
            .collect();
        // Most flows first; of equals the one that is in stays in, then by name.
        order.sort_by(|left, right| {
            right
                .0
                .cmp(&left.0)
                .then(right.1.cmp(&left.1))
                .then(left.2.cmp(right.2))
        });
        self.chosen = order
            .into_iter()
            .take(most)
            .map(|(_, _, stream)| stream.clone())
            .collect();
        let passed = usize::try_from(slot - self.slot)
            .unwrap_or(SLOTS)
            .min(SLOTS);
        for slots in self.seen.values_mut() {
            slots.extend(std::iter::repeat_n(0, passed));
            while slots.len() > SLOTS {
                slots.pop_front();
            }
        }
        self.slot = slot;
    }

    /// Forgets streams that are no longer configured.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.seen.retain(|stream, _| keep(stream));
        self.chosen.retain(|stream| keep(stream));
    }

    /// Whether `stream` gets series.
    pub fn contains(&self, stream: &str) -> bool {
        match self.series {
            StreamSeries::All => true,
            StreamSeries::Off => false,
            StreamSeries::Top(_) => self.chosen.contains(stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(selection: &Selection) -> Vec<&str> {
        selection.chosen.iter().map(String::as_str).collect()
    }

    #[test]
    fn the_busiest_of_the_last_minutes() {
        let mut top = Selection::new(StreamSeries::Top(2));
        for (stream, flows) in [("a", 1), ("b", 5), ("c", 9)] {
            top.observe(stream, 60_000, flows);
        }
        assert_eq!(
            chosen(&top),
            ["a", "b"],
            "places are given away as streams come"
        );
        top.observe("c", 119_000, 1);
        assert_eq!(chosen(&top), ["a", "b"], "no change inside a minute");
        top.observe("a", 120_000, 1);
        assert_eq!(chosen(&top), ["b", "c"]);
        for minute in 3..9 {
            top.observe("a", minute * SLOT_MS, 2);
        }
        assert_eq!(
            chosen(&top),
            ["a", "c"],
            "what was five minutes ago is forgotten; of equals the one that is in stays"
        );
        top.retain(|stream| stream != "a");
        assert_eq!(chosen(&top), ["c"]);
        top.observe("d", 8 * SLOT_MS, 0);
        assert_eq!(
            chosen(&top),
            ["c", "d"],
            "a free place is given away at once"
        );
    }

    #[test]
    fn all_and_off() {
        let [mut all, mut off] = [StreamSeries::All, StreamSeries::Off].map(Selection::new);
        all.observe("a", 0, 1);
        off.observe("a", 0, 1);
        assert!(all.contains("anything") && !off.contains("a") && all.seen.is_empty());
    }
}
