//! The unit of an estimate: flows of one node and one life that were selected at one rate.
//!
//! Input: windows of one (node, instance, rate epoch), or other sums of it. Output: sums, groups, gauges and the least number of
//! distinct flows. The number of an epoch means nothing without node and instance.

use crate::{Counters, Gauges, Groups, RttSource, StreamWindow, SumError};

/// What makes a stratum: flows of one node and life that were selected at one rate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StratumKey {
    /// Name of the node.
    pub node: String,
    /// Life of its daemon.
    pub instance: u64,
    /// Number of the rate in that life.
    pub rate_epoch: u32,
}

/// Sums of one stratum.
#[derive(Clone, Debug, PartialEq)]
pub struct Stratum {
    /// Probability with which its flows were selected.
    pub sampling_rate: f64,
    /// Source of its round-trip samples, a number of [`RttSource`]; 0 while it has none.
    pub rtt_source: i32,
    /// Sums of the counters.
    pub counters: Counters,
    /// Sums per random group.
    pub groups: Groups,
    /// State at the end of its newest window.
    pub gauges: Gauges,
    /// Most distinct flows with data in one window.
    pub peak_flows_active: u64,
    /// Most distinct flows with data in any 10 s that end with a window.
    pub peak_flows_active_10s: u64,
}

impl Stratum {
    pub(crate) fn empty(sampling_rate: f64) -> Self {
        Self {
            sampling_rate,
            rtt_source: RttSource::Unspecified.into(),
            counters: Counters::default(),
            groups: Groups::default(),
            gauges: Gauges::default(),
            peak_flows_active: 0,
            peak_flows_active_10s: 0,
        }
    }

    /// Distinct sampled flows with data, at least: a flow of several windows cannot be told from several flows, so the peak stands.
    /// The peak of 10 s counts only if the horizon is that long.
    #[must_use]
    pub fn flows(&self, horizon_ms: u64) -> u64 {
        let long = if horizon_ms >= 10_000 {
            self.peak_flows_active_10s
        } else {
            0
        };
        self.peak_flows_active.max(long)
    }

    /// Whether a window or stratum of the same key may be added.
    pub(crate) fn fits(
        &self,
        key: &StratumKey,
        sampling_rate: f64,
        rtt_source: i32,
    ) -> Result<(), SumError> {
        if self.sampling_rate.to_bits() != sampling_rate.to_bits() {
            let (epoch, left) = (key.rate_epoch, self.sampling_rate);
            return Err(SumError::RateConflict {
                node: key.node.clone(),
                epoch,
                left,
                right: sampling_rate,
            });
        }
        if self.rtt_source != 0 && rtt_source != 0 && self.rtt_source != rtt_source {
            return Err(SumError::RttSource {
                node: key.node.clone(),
                left: self.rtt_source,
                right: rtt_source,
            });
        }
        Ok(())
    }

    fn learn_source(&mut self, rtt_source: i32) {
        if self.rtt_source == 0 {
            self.rtt_source = rtt_source;
        }
    }

    pub(crate) fn add(&mut self, window: &StreamWindow) {
        self.learn_source(source_of(window));
        self.counters.add(window);
        self.groups.add(window);
        self.gauges.keep_newest(&Gauges::of(window));
        self.peak_flows_active = self.peak_flows_active.max(window.flows_active);
        self.peak_flows_active_10s = self.peak_flows_active_10s.max(window.flows_active_10s);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.learn_source(other.rtt_source);
        self.counters.merge(&other.counters);
        self.groups.merge(&other.groups);
        self.gauges.keep_newest(&other.gauges);
        self.peak_flows_active = self.peak_flows_active.max(other.peak_flows_active);
        self.peak_flows_active_10s = self.peak_flows_active_10s.max(other.peak_flows_active_10s);
    }
}

/// The source of a window's samples, a number of [`RttSource`]; a window without samples has none.
#[must_use]
pub fn source_of(window: &StreamWindow) -> i32 {
    if window.rtt_counts.is_empty() {
        RttSource::Unspecified.into()
    } else {
        window.rtt_source
    }
}
