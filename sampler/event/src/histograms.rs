//! The histograms of windows added up, apart by kind and by sampling rate.
//!
//! Input: windows, or other histograms. Output: all samples of a kind, and quantiles over all flows. Samples of two sources never
//! merge, and the rates stay known, so that a quantile can weigh them. Merging is associative and commutative.

use std::collections::BTreeMap;

use crate::{CodecError, Histogram, Layout, StreamWindow, codec};

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

/// Histograms by kind and sampling rate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histograms {
    /// By kind and by the bits of the sampling rate, which sort as the rates do.
    parts: BTreeMap<(HistogramKind, u64), Histogram>,
}

impl Histograms {
    /// The first list of a window that is no histogram, by the name of its field.
    ///
    /// # Errors
    /// The field, and what is wrong with it.
    pub fn check(window: &StreamWindow) -> Result<(), (&'static str, CodecError)> {
        fields(window)
            .into_iter()
            .try_for_each(|(field, kind, list)| {
                codec::check(kind.layout(), list).map_err(|error| (field, error))
            })
    }

    /// Adds the histograms of a window that [`Self::check`] has passed; of any other, the parts before its errors.
    pub fn add(&mut self, window: &StreamWindow) {
        let rate = window.sampling_rate;
        for (_, kind, list) in fields(window) {
            if list.is_empty() {
                continue;
            }
            let known_us = (window.rtt_min_us, window.rtt_max_us);
            let known_us = matches!(kind, HistogramKind::Rtt(_)).then_some(known_us);
            codec::add_to(self.part(kind, rate), list, known_us);
        }
    }

    /// Adds one histogram, of flows selected at a rate; one of another layout than its kind's is left out.
    pub fn put(&mut self, kind: HistogramKind, sampling_rate: f64, histogram: &Histogram) {
        // The layouts differ only if the caller mistook the kind.
        let _ = self.part(kind, sampling_rate).merge(histogram);
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        for ((kind, rate_bits), theirs) in &other.parts {
            self.put(*kind, f64::from_bits(*rate_bits), theirs);
        }
    }

    fn part(&mut self, kind: HistogramKind, rate: f64) -> &mut Histogram {
        let part = self.parts.entry((kind, rate.to_bits()));
        part.or_insert_with(|| Histogram::new(kind.layout()))
    }

    /// All parts: kind, sampling rate, histogram.
    pub fn iter(&self) -> impl Iterator<Item = (HistogramKind, f64, &Histogram)> {
        let parts = self.parts.iter();
        parts.map(|((kind, rate_bits), part)| (*kind, f64::from_bits(*rate_bits), part))
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
        let rates = self.parts.range((kind, 0)..=(kind, u64::MAX));
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
fn fields(window: &StreamWindow) -> [(&'static str, HistogramKind, &[i64]); 3] {
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
