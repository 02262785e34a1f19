//! A row: what all nodes said of a stream in one second or minute, ready to be added up.
//!
//! Input: windows, each once; or other rows' sums. Output: counters, histograms bit for bit, gauges at the end, and the 16 random
//! groups pooled by sampling rate. Every number but the distinct flows adds up in any order: that is what makes parts of a window,
//! windows of a minute and rows of a horizon one thing. No window is refused: what contradicts its node (another rate, another
//! source of round trips) goes where its own numbers say.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use sampler_event::{
    Counters, Gauges, Groups, HistogramKind, Histograms, Metric, Sample, StreamWindow, source_of,
};

/// The length of windows that most nodes have.
const SECOND_MS: u32 = 1_000;

/// Which part of a window a row is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Everything that came before the window closed; in text `0`, and `0/5000` for windows of 5 s and so on: nodes with windows of
    /// another length have a row of their own, that closes when it can.
    Closed {
        /// Length of the windows.
        window_ms: u32,
    },
    /// An event that came later; in text `node/instance/sequence`, the instance in 16 hex digits.
    Late {
        /// Name of the node.
        node: String,
        /// Life of its daemon.
        instance: u64,
        /// Sequence of the event.
        sequence: u64,
    },
}

impl Part {
    /// Closed windows of a length.
    #[must_use]
    pub const fn closed(window_ms: u32) -> Self {
        Self::Closed { window_ms }
    }

    /// The part that an event is by itself.
    #[must_use]
    pub fn of(window: &StreamWindow) -> Self {
        Self::Late {
            node: window.node.clone(),
            instance: window.instance,
            sequence: window.sequence,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed {
                window_ms: SECOND_MS,
            } => f.write_str("0"),
            Self::Closed { window_ms } => write!(f, "0/{window_ms}"),
            Self::Late {
                node,
                instance,
                sequence,
            } => write!(f, "{node}/{instance:016x}/{sequence}"),
        }
    }
}

/// No part of a window is written so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no part of a window")]
pub struct NoPart(String);

impl FromStr for Part {
    type Err = NoPart;

    fn from_str(text: &str) -> Result<Self, NoPart> {
        let part = || {
            if text == "0" {
                return Some(Self::closed(SECOND_MS));
            }
            let (rest, sequence) = text.rsplit_once('/')?;
            let Some((node, instance)) = rest.rsplit_once('/') else {
                return Some(Self::closed(sequence.parse().ok().filter(|_| rest == "0")?));
            };
            Some(Self::Late {
                node: node.to_owned(),
                instance: u64::from_str_radix(instance, 16).ok()?,
                sequence: sequence.parse().ok()?,
            })
        };
        part().ok_or_else(|| NoPart(text.to_owned()))
    }
}

/// A row of `stream_second` or `stream_minute`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Name of the stream.
    pub stream: String,
    /// Start of the windows in it, or of the minute in which they start, Unix ms.
    pub window_start_ms: u64,
    /// Which part of it.
    pub part: Part,
    /// Grows with every write of the same row: microseconds that follow the broker's time of the newest event in it.
    pub version_us: u64,
    /// More may come in time: the row will be written again.
    pub provisional: bool,
    /// Nodes that should be in it, as far as their heartbeats said when it was written.
    pub nodes_expected: u32,
    /// Nodes that are.
    pub nodes_reported: u32,
    /// The sums.
    pub sums: Sums,
}

/// A row of `node_minute`: the counters alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Name of the stream.
    pub stream: String,
    /// Start of the minute, Unix ms.
    pub window_start_ms: u64,
    /// Name of the node.
    pub node: String,
    /// Which part of it.
    pub part: Part,
    /// As [`Row::version_us`].
    pub version_us: u64,
    /// As [`Row::provisional`].
    pub provisional: bool,
    /// Windows in it.
    pub windows: u64,
    /// All their flags.
    pub flags: u32,
    /// Their sums.
    pub counters: Counters,
}

/// Flows that are pooled: of one sampling rate and, for round trips, of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// 0: the groups that are no round trips. Otherwise those that are, of this number of
    /// [`RttSource`](sampler_event::RttSource).
    pub rtt_source: i32,
    /// Bits of the sampling rate, which sort as the rates do.
    pub rate_bits: u64,
}

impl PoolKey {
    /// Of a rate and a source.
    #[must_use]
    pub const fn new(sampling_rate: f64, rtt_source: i32) -> Self {
        Self {
            rtt_source,
            rate_bits: sampling_rate.to_bits(),
        }
    }

    /// The sampling rate.
    #[must_use]
    pub const fn sampling_rate(self) -> f64 {
        f64::from_bits(self.rate_bits)
    }
}

/// The groups of a pool, and the least number of distinct flows behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Sums per group; a pool of a source has round trips alone, one of source 0 everything else.
    pub groups: Groups,
    /// Distinct flows with data in a window, at least.
    pub flows_active: u64,
    /// Distinct flows with data in the 10 s that end with a window, at least.
    pub flows_active_10s: u64,
}

/// Sums over windows of one stream, of sampled flows and not scaled; `flows_seen` is exact.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Windows in them.
    pub windows: u64,
    /// All their flags, bits of [`Flag`](sampler_event::Flag).
    pub flags: u32,
    /// The counters.
    pub counters: Counters,
    /// The groups.
    pub pools: BTreeMap<PoolKey, Pool>,
    /// The histograms.
    pub histograms: Histograms,
    /// State at the end of the newest windows, added up over nodes.
    pub gauges: Gauges,
}

impl Sums {
    /// One window.
    #[must_use]
    pub fn of(window: &StreamWindow) -> Self {
        let mut sums = Self::default();
        sums.add(window);
        let pools = sums.pools.values_mut();
        pools.for_each(|pool| pool.see(window.flows_active, window.flows_active_10s));
        sums.gauges = Gauges::of(window);
        sums
    }

    /// Adds what adds up. Distinct flows and gauges do not: who adds several windows of a node knows how.
    pub fn add(&mut self, window: &StreamWindow) {
        self.windows = self.windows.saturating_add(1);
        self.flags |= window.flags;
        self.counters.add(window);
        self.histograms.add(window);
        let mut all = Groups::default();
        all.add(window);
        self.pool(window.sampling_rate, source_of(window), &all);
    }

    /// Adds groups of flows that were selected at a rate, whose round trips are of a source.
    pub(crate) fn pool(&mut self, sampling_rate: f64, rtt_source: i32, all: &Groups) {
        let (round_trips, others) = split(all);
        let mut pool = |source, groups: &Groups| {
            let key = PoolKey::new(sampling_rate, source);
            self.pools.entry(key).or_default().groups.merge(groups);
        };
        pool(0, &others);
        // Round trips without samples say nothing of their source: they stay with the others.
        pool(rtt_source, &round_trips);
    }

    /// Adds another part of the same window: other events, so that their flows are others, at least for the greater part.
    pub fn beside(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
    }

    /// Adds windows of another time: a flow may be in both.
    pub fn after(&mut self, other: &Self) {
        self.combine(other, u64::max);
    }

    fn combine(&mut self, other: &Self, flows: impl Fn(u64, u64) -> u64) {
        self.windows = self.windows.saturating_add(other.windows);
        self.flags |= other.flags;
        self.counters.merge(&other.counters);
        self.histograms.merge(&other.histograms);
        for (key, theirs) in &other.pools {
            let mine = self.pools.entry(*key).or_default();
            mine.groups.merge(&theirs.groups);
            mine.flows_active = flows(mine.flows_active, theirs.flows_active);
            mine.flows_active_10s = flows(mine.flows_active_10s, theirs.flows_active_10s);
        }
        add_gauges(&mut self.gauges, &other.gauges);
    }

    /// What an estimate of a quantity is made of: one sample per rate.
    #[must_use]
    pub fn samples(&self, metric: Metric, horizon_ms: u64) -> Vec<Sample> {
        let source = match metric {
            Metric::RttSlowRatio(source) => source,
            _ => 0,
        };
        let pools = self.pools.iter();
        let pools = pools.filter(|(key, _)| key.rtt_source == source);
        let sample = pools.map(|(key, pool)| {
            let (y, x) = metric.groups(&pool.groups);
            let long = match horizon_ms >= 10_000 {
                true => pool.flows_active_10s,
                false => 0,
            };
            Sample {
                sampling_rate: key.sampling_rate(),
                flows: pool.flows_active.max(long),
                y,
                x,
            }
        });
        sample.collect()
    }

    /// The source of most round-trip samples: two sources never merge.
    #[must_use]
    pub fn main_rtt_source(&self) -> Option<i32> {
        let mut counts = BTreeMap::<i32, u64>::new();
        for (kind, _, histogram) in self.histograms.iter() {
            if let HistogramKind::Rtt(source) = kind {
                let count = counts.entry(source).or_default();
                *count = count.saturating_add(histogram.count());
            }
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        most.map(|(source, _)| source)
    }
}

impl Pool {
    /// Distinct flows of one more node.
    pub(crate) fn see(&mut self, flows_active: u64, flows_active_10s: u64) {
        self.flows_active = self.flows_active.saturating_add(flows_active);
        self.flows_active_10s = self.flows_active_10s.saturating_add(flows_active_10s);
    }
}

/// Gauges of the newer moment; of the same, added up.
pub(crate) fn add_gauges(sum: &mut Gauges, other: &Gauges) {
    match other.end_ms.cmp(&sum.end_ms) {
        std::cmp::Ordering::Greater => *sum = *other,
        std::cmp::Ordering::Equal => sum.merge(other),
        std::cmp::Ordering::Less => {}
    }
}

/// Round trips, and everything else.
fn split(all: &Groups) -> (Groups, Groups) {
    let round_trips = Groups {
        rtt_count: all.rtt_count,
        rtt_slow: all.rtt_slow,
        ..Groups::default()
    };
    let others = Groups {
        rtt_count: Default::default(),
        rtt_slow: Default::default(),
        ..*all
    };
    (round_trips, others)
}
