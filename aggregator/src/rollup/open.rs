//! A row that still grows.
//!
//! Input: windows, each once. Output: the row as it is now. What does not add up over the windows of a node, its distinct flows and
//! its gauges, is kept by node and rate until the row is taken. Limits: an entry per (node, life, rate).

use std::collections::{BTreeMap, BTreeSet};

use sampler_event::{Counters, Gauges, StreamWindow, source_of};

use crate::merge::Presence;
use crate::store::{NodeRow, Part, PoolKey, Row, Sums, add_gauges};

/// What is common to rows that grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    /// The lowest offset of an event in it.
    pub(super) first_offset: i64,
    /// It holds something that was not written yet.
    pub(super) changed: bool,
}

impl Growth {
    fn at(offset: i64) -> Self {
        Self {
            first_offset: offset,
            changed: true,
        }
    }

    fn grow(&mut self, offset: i64) {
        self.first_offset = self.first_offset.min(offset);
        self.changed = true;
    }
}

/// A row of a stream.
#[derive(Clone, Debug)]
pub(super) struct OpenRow {
    pub(super) growth: Growth,
    sums: Sums,
    strata: BTreeMap<StratumId, Seen>,
}

/// Flows of one node and life that were selected at one rate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct StratumId {
    node: String,
    instance: u64,
    rate_bits: u64,
    rate_epoch: u32,
}

/// What a stratum's windows said that does not add up.
#[derive(Clone, Debug, Default)]
struct Seen {
    gauges: Gauges,
    flows_active: u64,
    flows_active_10s: u64,
    /// Sources of its round-trip samples.
    rtt_sources: BTreeSet<i32>,
}

impl OpenRow {
    pub(super) fn new(offset: i64) -> Self {
        Self {
            growth: Growth::at(offset),
            sums: Sums::default(),
            strata: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, window: &StreamWindow, offset: i64) {
        self.growth.grow(offset);
        self.sums.add(window);
        let id = StratumId {
            node: window.node.clone(),
            instance: window.instance,
            rate_bits: window.sampling_rate.to_bits(),
            rate_epoch: window.rate_epoch,
        };
        let seen = self.strata.entry(id).or_default();
        seen.gauges.keep_newest(&Gauges::of(window));
        seen.flows_active = seen.flows_active.max(window.flows_active);
        seen.flows_active_10s = seen.flows_active_10s.max(window.flows_active_10s);
        let source = source_of(window);
        if source != 0 {
            seen.rtt_sources.insert(source);
        }
    }

    /// The row as it is now.
    pub(super) fn row(&self, write: Write<'_>, presence: Presence) -> Row {
        let mut sums = self.sums.clone();
        let mut nodes = BTreeSet::new();
        for (id, seen) in &self.strata {
            nodes.insert(id.node.as_str());
            add_gauges(&mut sums.gauges, &seen.gauges);
            for rtt_source in seen.rtt_sources.iter().chain([&0]) {
                let key = PoolKey {
                    rtt_source: *rtt_source,
                    rate_bits: id.rate_bits,
                };
                let pool = sums.pools.entry(key).or_default();
                pool.see(seen.flows_active, seen.flows_active_10s);
            }
        }
        write.row(sums, presence, nodes.len() as u64)
    }
}

/// A row of one node.
#[derive(Clone, Debug)]
pub(super) struct OpenNodeRow {
    pub(super) growth: Growth,
    windows: u64,
    flags: u32,
    counters: Counters,
}

impl OpenNodeRow {
    pub(super) fn new(offset: i64) -> Self {
        Self {
            growth: Growth::at(offset),
            windows: 0,
            flags: 0,
            counters: Counters::default(),
        }
    }

    pub(super) fn add(&mut self, window: &StreamWindow, offset: i64) {
        self.growth.grow(offset);
        self.windows = self.windows.saturating_add(1);
        self.flags |= window.flags;
        self.counters.add(window);
    }

    /// The row as it is now.
    pub(super) fn row(&self, write: Write<'_>, node: &str) -> NodeRow {
        NodeRow {
            stream: write.stream.to_owned(),
            window_start_ms: write.window_start_ms,
            node: node.to_owned(),
            part: write.part,
            version_us: write.version_us,
            provisional: write.provisional,
            windows: self.windows,
            flags: self.flags,
            counters: self.counters,
        }
    }
}

/// Which row is written, and how.
#[derive(Clone, Debug)]
pub(super) struct Write<'a> {
    pub(super) stream: &'a str,
    pub(super) window_start_ms: u64,
    pub(super) part: Part,
    pub(super) version_us: u64,
    pub(super) provisional: bool,
}

impl Write<'_> {
    /// A row of a stream, with windows of so many nodes in it.
    pub(super) fn row(self, sums: Sums, presence: Presence, nodes: u64) -> Row {
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let reported = presence.reported.max(nodes);
        Row {
            stream: self.stream.to_owned(),
            window_start_ms: self.window_start_ms,
            part: self.part,
            version_us: self.version_us,
            provisional: self.provisional,
            nodes_expected: number(presence.expected.max(reported)),
            nodes_reported: number(reported),
            sums,
        }
    }
}
