//! The quantities that are estimated over all flows.
//!
//! Input: the sum of a stream's windows over a horizon. Output: an estimate with its interval. Units: segments for totals, none for
//! ratios, which are ratios of sums.

use crate::{Estimate, GROUPS, Groups, Insufficient, Options, Sample, WindowSum, estimate};

/// A quantity that has random groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Segments retransmitted, total.
    RetransSegs,
    /// Segments with payload sent, total.
    DataSegsOut,
    /// Segments retransmitted by segments sent.
    RetransRatio,
    /// Stalled time by busy time.
    StallRatio,
    /// Round-trip samples above the stream's limit by all, of one source: a number of [`RttSource`](crate::RttSource).
    RttSlowRatio(i32),
}

impl Metric {
    /// Estimates the quantity.
    ///
    /// # Errors
    /// If there is too little evidence.
    pub fn estimate(self, sum: &WindowSum, options: &Options) -> Result<Estimate, Insufficient> {
        self.estimate_from(&self.samples(sum), options)
    }

    /// Estimates the quantity from samples that hold its groups.
    ///
    /// # Errors
    /// If there is too little evidence.
    pub fn estimate_from(
        self,
        samples: &[Sample],
        options: &Options,
    ) -> Result<Estimate, Insufficient> {
        match self {
            Self::RetransSegs | Self::DataSegsOut => estimate::total(samples, options),
            Self::RetransRatio | Self::StallRatio | Self::RttSlowRatio(_) => {
                estimate::ratio(samples, options)
            }
        }
    }

    /// What the estimate is made of: one sample per stratum.
    #[must_use]
    pub fn samples(self, sum: &WindowSum) -> Vec<Sample> {
        let horizon_ms = sum
            .span_ms()
            .map_or(0, |(start_ms, end_ms)| end_ms.saturating_sub(start_ms));
        let strata = sum.strata().filter(|(_, stratum)| match self {
            Self::RttSlowRatio(source) => stratum.rtt_source == source,
            _ => true,
        });
        let sample = strata.map(|(_, stratum)| {
            let (y, x) = self.groups(&stratum.groups);
            Sample {
                sampling_rate: stratum.sampling_rate,
                flows: stratum.flows(horizon_ms),
                y,
                x,
            }
        });
        sample.collect()
    }

    /// Numerator and denominator; a total has the denominator 0, which is not read.
    #[must_use]
    pub fn groups(self, groups: &Groups) -> ([u64; GROUPS], [u64; GROUPS]) {
        match self {
            Self::RetransSegs => (groups.retrans_segs, [0; GROUPS]),
            Self::DataSegsOut => (groups.data_segs_out, [0; GROUPS]),
            Self::RetransRatio => (groups.retrans_segs, groups.data_segs_out),
            Self::StallRatio => (groups.stall_ms, groups.busy_ms),
            Self::RttSlowRatio(_) => (groups.rtt_slow, groups.rtt_count),
        }
    }
}
