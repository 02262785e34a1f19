//! The sum of windows: any horizon, any set of nodes, one stream.
//!
//! Input: windows of one stream, each once (who reads them drops duplicates by their sequence), or other sums. Output: counters,
//! gauges, histograms, and per stratum what an estimate needs. Histograms are kept apart by source and by sampling rate, so that samples of two
//! sources never merge and quantiles can weigh the rates. Merging is associative and commutative; a refused window or sum changes
//! nothing. Limits: a sum holds as many strata as it is given; who adds windows bounds the horizon.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::gauges::end_ms;
use crate::stratum::source_of;
use crate::{
    CodecError, Counters, Gauges, Groups, Histogram, Layout, Stratum, StratumKey, StreamWindow,
    codec,
};

/// Why a window or a sum cannot be added.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SumError {
    /// It is about another stream.
    #[error("window of stream {found:?} in a sum of {expected:?}")]
    Stream {
        /// Stream of the sum.
        expected: String,
        /// Stream that was to be added.
        found: String,
    },
    /// The sampling rate is not a probability.
    #[error("sampling rate {rate} is not between 0 and 1")]
    Rate {
        /// The rate.
        rate: f64,
    },
    /// One epoch of one node has two rates.
    #[error("epoch {epoch} of node {node:?} has the sampling rates {left} and {right}")]
    RateConflict {
        /// Node.
        node: String,
        /// Rate epoch.
        epoch: u32,
        /// The one rate.
        left: f64,
        /// The other rate.
        right: f64,
    },
    /// One life of one node has two sources of round-trip samples.
    #[error("node {node:?} has round-trip samples of the sources {left} and {right}")]
    RttSource {
        /// Node.
        node: String,
        /// The one source.
        left: i32,
        /// The other source.
        right: i32,
    },
    /// A group field has neither 16 numbers nor none.
    #[error("{field} has {length} groups")]
    Groups {
        /// Name of the field.
        field: &'static str,
        /// Numbers that it has.
        length: usize,
    },
    /// A histogram cannot be read.
    #[error("{field}: {source}")]
    Histogram {
        /// Name of the field.
        field: &'static str,
        /// What is wrong.
        source: CodecError,
    },
}

/// Which of the histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HistogramKind {
    /// Round-trip times of one source, a number of [`RttSource`](crate::RttSource).
    Rtt(i32),
    /// Round-trip times of handshakes.
    Handshake,
    /// Flows' least round-trip times, one per flow and window.
    Least,
}

impl HistogramKind {
    /// Layout of its histograms.
    #[must_use]
    pub const fn layout(self) -> Layout {
        match self {
            Self::Rtt(_) => Layout::RTT,
            Self::Handshake | Self::Least => Layout::COARSE,
        }
    }
}

/// The sum of windows of one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowSum {
    stream: String,
    windows: u64,
    flags: u32,
    start_ms: u64,
    end_ms: u64,
    strata: BTreeMap<StratumKey, Stratum>,
    /// By kind and by the bits of the sampling rate, which sort as the rates do.
    histograms: BTreeMap<(HistogramKind, u64), Histogram>,
}

impl WindowSum {
    /// The empty sum of a stream.
    #[must_use]
    pub fn new(stream: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            windows: 0,
            flags: 0,
            start_ms: u64::MAX,
            end_ms: 0,
            strata: BTreeMap::new(),
            histograms: BTreeMap::new(),
        }
    }

    /// Adds a window.
    ///
    /// # Errors
    /// If it is of another stream, is malformed, or contradicts the sum; then nothing is changed.
    pub fn add(&mut self, window: &StreamWindow) -> Result<(), SumError> {
        let rate = window.sampling_rate;
        let key = StratumKey {
            node: window.node.clone(),
            instance: window.instance,
            rate_epoch: window.rate_epoch,
        };
        self.same_stream(&window.stream)?;
        if !((0.0..=1.0).contains(&rate) && rate.is_sign_positive()) {
            return Err(SumError::Rate { rate });
        }
        if let Some((field, length)) = Groups::malformed(window) {
            return Err(SumError::Groups { field, length });
        }
        let histograms = histograms_of(window);
        for (field, kind, list) in histograms {
            codec::check(kind.layout(), list)
                .map_err(|source| SumError::Histogram { field, source })?;
        }
        if let Some(stratum) = self.strata.get(&key) {
            stratum.fits(&key, rate, source_of(window))?;
        }

        self.strata
            .entry(key)
            .or_insert_with(|| Stratum::empty(rate))
            .add(window);
        for (_, kind, list) in histograms
            .into_iter()
            .filter(|(_, _, list)| !list.is_empty())
        {
            let sum = self
                .histograms
                .entry((kind, rate.to_bits()))
                .or_insert_with(|| Histogram::new(kind.layout()));
            let known_us = (window.rtt_min_us, window.rtt_max_us);
            codec::add_to(
                sum,
                list,
                matches!(kind, HistogramKind::Rtt(_)).then_some(known_us),
            );
        }
        self.cover(1, window.flags, window.window_start_ms, end_ms(window));
        Ok(())
    }

    /// Adds another sum.
    ///
    /// # Errors
    /// If it is of another stream or contradicts this one; then nothing is changed.
    pub fn merge(&mut self, other: &Self) -> Result<(), SumError> {
        self.same_stream(&other.stream)?;
        for (key, theirs) in &other.strata {
            if let Some(mine) = self.strata.get(key) {
                mine.fits(key, theirs.sampling_rate, theirs.rtt_source)?;
            }
        }

        for (key, theirs) in &other.strata {
            match self.strata.get_mut(key) {
                Some(mine) => mine.merge(theirs),
                None => drop(self.strata.insert(key.clone(), theirs.clone())),
            }
        }
        for (key, theirs) in &other.histograms {
            let sum = self
                .histograms
                .entry(*key)
                .or_insert_with(|| Histogram::new(key.0.layout()));
            sum.merge(theirs).expect("the kind gives the layout");
        }
        self.cover(other.windows, other.flags, other.start_ms, other.end_ms);
        Ok(())
    }

    fn same_stream(&self, found: &str) -> Result<(), SumError> {
        if self.stream == found {
            return Ok(());
        }
        Err(SumError::Stream {
            expected: self.stream.clone(),
            found: found.to_owned(),
        })
    }

    fn cover(&mut self, windows: u64, flags: u32, start_ms: u64, end_ms: u64) {
        self.windows = self.windows.saturating_add(windows);
        self.flags |= flags;
        self.start_ms = self.start_ms.min(start_ms);
        self.end_ms = self.end_ms.max(end_ms);
    }

    /// Name of the stream.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Number of windows added.
    #[must_use]
    pub const fn windows(&self) -> u64 {
        self.windows
    }

    /// All flags of all windows, as bits of [`Flag`](crate::Flag).
    #[must_use]
    pub const fn flags(&self) -> u32 {
        self.flags
    }

    /// Start of the first and end of the last window, Unix time; none while empty.
    #[must_use]
    pub fn span_ms(&self) -> Option<(u64, u64)> {
        (self.windows > 0).then_some((self.start_ms, self.end_ms))
    }

    /// The strata, in order of their keys.
    pub fn strata(&self) -> impl Iterator<Item = (&StratumKey, &Stratum)> {
        self.strata.iter()
    }

    /// Sums of the counters over all strata, of sampled flows and not scaled.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.strata
            .values()
            .for_each(|stratum| sum.merge(&stratum.counters));
        sum
    }

    /// Gauges of all strata that were heard of at a moment or after it, added up. Give the end of the newest complete window: an
    /// epoch or a life that ended before it is no longer there to be counted.
    #[must_use]
    pub fn gauges_since(&self, moment_ms: u64) -> Gauges {
        let mut sum = Gauges::default();
        let heard = self
            .strata
            .values()
            .filter(|stratum| stratum.gauges.end_ms >= moment_ms);
        heard.for_each(|stratum| sum.merge(&stratum.gauges));
        sum
    }

    /// Distinct sampled flows with data, at least.
    #[must_use]
    pub fn flows(&self) -> u64 {
        let horizon_ms = self.end_ms.saturating_sub(self.start_ms);
        self.strata.values().fold(0, |sum, stratum| {
            sum.saturating_add(stratum.flows(horizon_ms))
        })
    }

    /// All samples of a kind, whatever rate selected them; none if there are none.
    #[must_use]
    pub fn histogram(&self, kind: HistogramKind) -> Option<Histogram> {
        self.by_rate(kind)
            .map(|(_, histogram)| histogram.clone())
            .reduce(|mut sum, part| {
                sum.merge(&part).expect("the kind gives the layout");
                sum
            })
    }

    /// Histograms of a kind with the sampling rate of their flows.
    pub fn by_rate(&self, kind: HistogramKind) -> impl Iterator<Item = (f64, &Histogram)> {
        let rates = self.histograms.range((kind, 0)..=(kind, u64::MAX));
        rates.map(|((_, rate_bits), histogram)| (f64::from_bits(*rate_bits), histogram))
    }

    /// Quantile over all flows: nearest rank, where a sample selected at rate p stands for 1/p samples. With one rate it is exactly
    /// the quantile of the histogram.
    #[must_use]
    pub fn quantile_us(&self, kind: HistogramKind, q: f64) -> Option<u64> {
        let rates: Vec<_> = self.by_rate(kind).filter(|(rate, _)| *rate > 0.0).collect();
        let all = self.histogram(kind)?;
        if rates.len() <= 1 {
            return all.quantile_us(q);
        }
        let weight = |index: usize| {
            rates
                .iter()
                .map(|(rate, part)| part.counts()[index] as f64 / rate)
                .sum::<f64>()
        };
        let rank = q.clamp(0.0, 1.0) * all.iter().map(|bucket| weight(bucket.index)).sum::<f64>();
        let mut seen = 0.0;
        let reached = all.iter().find(|bucket| {
            seen += weight(bucket.index);
            seen >= rank
        });
        // Rounding can leave the last bucket a hair below the rank.
        reached
            .or_else(|| all.iter().last())
            .map(|bucket| all.value_us(bucket.index))
    }
}

/// The histogram fields of a window.
fn histograms_of(window: &StreamWindow) -> [(&'static str, HistogramKind, &[i64]); 3] {
    [
        (
            "rtt_counts",
            HistogramKind::Rtt(window.rtt_source),
            &window.rtt_counts,
        ),
        (
            "rtt_handshake_counts",
            HistogramKind::Handshake,
            &window.rtt_handshake_counts,
        ),
        (
            "rtt_min_counts",
            HistogramKind::Least,
            &window.rtt_min_counts,
        ),
    ]
}
