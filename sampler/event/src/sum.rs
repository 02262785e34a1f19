//! The sum of windows: any horizon, any set of nodes, one stream.
//!
//! Input: windows of one stream, each once (who reads them drops duplicates by their sequence), or other sums. Output: counters,
//! gauges, histograms, and per stratum what an estimate needs. Histograms are kept apart by source and by sampling rate, so that samples of two
//! sources never merge and quantiles can weigh the rates. Merging is associative and commutative; a refused window or sum changes
//! nothing. Limits: a sum holds as many strata as it is given; who adds windows bounds the horizon.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use thiserror::Error;

use crate::gauges::end_ms;
use crate::stratum::source_of;
use crate::{
    CodecError, Counters, Gauges, Groups, Histogram, HistogramKind, Histograms, Stratum,
    StratumKey, StreamWindow,
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

/// The sum of windows of one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowSum {
    stream: String,
    windows: u64,
    flags: u32,
    start_ms: u64,
    end_ms: u64,
    /// On the heap, since a kilobyte each would be moved about and leave the tree's nodes half empty.
    strata: BTreeMap<StratumKey, Box<Stratum>>,
    histograms: Histograms,
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
            histograms: Histograms::default(),
        }
    }

    /// Whether a window may be added to the empty sum of its stream.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn check(window: &StreamWindow) -> Result<(), SumError> {
        let rate = window.sampling_rate;
        if !((0.0..=1.0).contains(&rate) && rate.is_sign_positive()) {
            return Err(SumError::Rate { rate });
        }
        if let Some((field, length)) = Groups::malformed(window) {
            return Err(SumError::Groups { field, length });
        }
        Histograms::check(window).map_err(|(field, source)| SumError::Histogram { field, source })
    }

    /// Adds a window.
    ///
    /// # Errors
    /// If it is of another stream, is malformed, or contradicts the sum; then nothing is changed.
    pub fn add(&mut self, window: &StreamWindow) -> Result<(), SumError> {
        Self::check(window)?;
        self.add_checked(window)
    }

    /// Adds a window that [`Self::check`] has passed before, as who decodes it does: the check is a tenth of the work.
    ///
    /// # Errors
    /// If it is of another stream or contradicts the sum; then nothing is changed.
    pub fn add_checked(&mut self, window: &StreamWindow) -> Result<(), SumError> {
        debug_assert_eq!(Self::check(window), Ok(()));
        self.same_stream(&window.stream)?;
        let rate = window.sampling_rate;
        let key = StratumKey {
            node: window.node.clone(),
            instance: window.instance,
            rate_epoch: window.rate_epoch,
        };
        match self.strata.entry(key) {
            Entry::Occupied(mut held) => {
                held.get().fits(held.key(), rate, source_of(window))?;
                held.get_mut().add(window);
            }
            Entry::Vacant(new) => new.insert(Box::new(Stratum::empty(rate))).add(window),
        }
        self.histograms.add(window);
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
        self.histograms.merge(&other.histograms);
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
        self.strata.iter().map(|(key, stratum)| (key, &**stratum))
    }

    /// Number of strata.
    #[must_use]
    pub fn strata_count(&self) -> usize {
        self.strata.len()
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

    /// The histograms.
    #[must_use]
    pub const fn histograms(&self) -> &Histograms {
        &self.histograms
    }

    /// All samples of a kind, whatever rate selected them; none if there are none.
    #[must_use]
    pub fn histogram(&self, kind: HistogramKind) -> Option<Histogram> {
        self.histograms.histogram(kind)
    }

    /// Histograms of a kind with the sampling rate of their flows.
    pub fn by_rate(&self, kind: HistogramKind) -> impl Iterator<Item = (f64, &Histogram)> {
        self.histograms.by_rate(kind)
    }

    /// Quantile over all flows: see [`Histograms::quantile_us`].
    #[must_use]
    pub fn quantile_us(&self, kind: HistogramKind, q: f64) -> Option<u64> {
        self.histograms.quantile_us(kind, q)
    }
}
