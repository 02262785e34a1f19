//! Rows added up to what the API answers.
//!
//! Input: rows of one stream, by their start. Output: the same [`Answer`] and [`Point`] as from memory, with the same estimators; the
//! strata are the sampling rates. Pure. Limits: one sum, whatever the number of rows.

use sampler_event::{Flag, HistogramKind, Insufficient, Options};

use super::row::{Row, Sums};
use crate::merge::{Answer, Evidence, Point, Presence, Quantity};

/// Rows being added up.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    before: Sums,
    /// Parts of the newest window so far.
    newest: Sums,
    newest_start_ms: Option<u64>,
    presence: Presence,
    provisional: bool,
}

impl Fold {
    /// Adds a row; its start is that of the row before or a later one.
    pub fn push(&mut self, row: &Row) {
        if self.newest_start_ms != Some(row.window_start_ms) {
            self.before.after(&std::mem::take(&mut self.newest));
            self.newest_start_ms = Some(row.window_start_ms);
            self.presence = Presence::default();
        }
        self.newest.beside(&row.sums);
        self.provisional |= row.provisional;
        let presence = &mut self.presence;
        presence.expected = presence.expected.max(row.nodes_expected.into());
        presence.reported = presence.reported.max(row.nodes_reported.into());
    }

    /// The sum of all.
    #[must_use]
    pub fn finish(mut self) -> Folded {
        self.before.after(&self.newest);
        Folded {
            sums: self.before,
            presence: self.presence,
            provisional: self.provisional,
        }
    }
}

/// Rows of a span, added up.
#[derive(Clone, Debug, Default)]
pub struct Folded {
    /// Their sums.
    pub sums: Sums,
    /// Nodes at the end of the span.
    pub presence: Presence,
    /// A row will be written again.
    pub provisional: bool,
}

impl Folded {
    /// Adds up rows that are ordered by their start.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut fold = Fold::default();
        rows.into_iter().for_each(|row| fold.push(row));
        fold.finish()
    }

    /// What all flows did in a span; windows that end after `watermark_ms` may still come.
    #[must_use]
    pub fn answer(
        &self,
        quantity: Quantity,
        (from_ms, to_ms): (u64, u64),
        watermark_ms: u64,
        options: &Options,
    ) -> Answer {
        let estimate = match self.sums.main_rtt_source() {
            None if quantity == Quantity::RttSlowRatio => Err(Insufficient::Denominator),
            source => {
                let metric = quantity.metric(source.unwrap_or_default());
                let samples = self.sums.samples(metric, to_ms - from_ms);
                metric.estimate_from(&samples, options)
            }
        };
        let evidence = Evidence {
            presence: self.presence,
            flows_seen: self.sums.counters.flows_seen,
            biased: self.sums.flags & Flag::Biased as u32 != 0,
            provisional: self.provisional || to_ms > watermark_ms,
        };
        Answer::new(estimate, (from_ms, to_ms), evidence)
    }

    /// One step of a series; none if nobody had anything to say.
    #[must_use]
    pub fn point(
        &self,
        (from_ms, to_ms): (u64, u64),
        watermark_ms: u64,
        options: &Options,
    ) -> Option<Point> {
        if self.sums.windows == 0 {
            return None;
        }
        let rtt = self.sums.main_rtt_source().map(HistogramKind::Rtt);
        let ratio = self.answer(
            Quantity::RetransRatio,
            (from_ms, to_ms),
            watermark_ms,
            options,
        );
        let quantile = |q| rtt.and_then(|kind| self.sums.histograms.quantile_us(kind, q));
        let gauges = &self.sums.gauges;
        Some(Point {
            from_ms,
            to_ms,
            counters: self.sums.counters,
            retrans_ratio: ratio,
            rtt_p50_us: quantile(0.5),
            rtt_p90_us: quantile(0.9),
            rtt_p99_us: quantile(0.99),
            flows_open: gauges.flows_open,
            stalls_open: gauges.stalls_open,
        })
    }
}
