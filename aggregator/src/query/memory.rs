//! What is in memory, as rows: the newest end of an answer whose older part comes from the store.
//!
//! Input: the sums of a stream by the start of their windows. Output: a row each, pooled by rate as the roll-up pools them.

use sampler_event::{Stratum, WindowSum};

use crate::merge::Live;
use crate::store::{Part, PoolKey, Row, Sums, add_gauges};

/// Rows of windows that start in a span, in their order.
#[must_use]
pub fn rows(live: &Live, stream: &str, from_ms: u64, to_ms: u64) -> Vec<Row> {
    let windows = live.windows(stream, from_ms, to_ms);
    let row = |(start_ms, sum): (u64, &WindowSum)| {
        let end_ms = sum.span_ms().map_or(start_ms, |(_, end_ms)| end_ms);
        let presence = live.nodes().presence(stream, end_ms);
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Row {
            stream: stream.to_owned(),
            window_start_ms: start_ms,
            part: Part::closed(1_000),
            version_us: 0,
            provisional: end_ms > live.watermark_ms(),
            nodes_expected: number(presence.expected),
            nodes_reported: number(presence.reported),
            sums: sums(sum),
        }
    };
    windows.map(row).collect()
}

fn sums(sum: &WindowSum) -> Sums {
    let mut sums = Sums {
        windows: sum.windows(),
        flags: sum.flags(),
        counters: sum.counters(),
        histograms: sum.histograms().clone(),
        ..Sums::default()
    };
    for (_, stratum) in sum.strata() {
        pool(&mut sums, stratum);
    }
    sums
}

fn pool(sums: &mut Sums, stratum: &Stratum) {
    let (rate, source) = (stratum.sampling_rate, stratum.rtt_source);
    add_gauges(&mut sums.gauges, &stratum.gauges);
    sums.pool(rate, source, &stratum.groups);
    let mut see = |source| {
        let pool = sums.pools.entry(PoolKey::new(rate, source)).or_default();
        pool.see(stratum.peak_flows_active, stratum.peak_flows_active_10s);
    };
    see(0);
    if source != 0 {
        see(source);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merge::{Added, LiveOptions, Presence};
    use crate::rollup::{Begin, Options, Partition};
    use crate::store::testing::{BEGIN_MS, window};

    proptest! {
        #[test]
        fn a_row_of_memory_is_the_row_that_is_stored(
            windows in proptest::collection::vec(window(), 1..40),
        ) {
            let mut live = Live::new(LiveOptions::default());
            let mut partition = Partition::new("t", 0, Begin::Log, Options { lateness_ms: 60_000 });
            for (sequence, mut window) in (1_u64..).zip(windows) {
                (window.stream, window.sequence) = ("sport".to_owned(), sequence);
                // A life of a node has one source.
                window.rtt_source = [1, 2][(window.instance % 2) as usize];
                if matches!(live.add(&window, BEGIN_MS + 30_000), Added::Merged | Added::Late) {
                    partition.take(&window, sequence.cast_signed(), BEGIN_MS + 30_000);
                }
            }
            partition.provisional();
            let stored = partition.take_rows(|_, _| Presence::default()).seconds;
            let (from_ms, to_ms) = (BEGIN_MS, BEGIN_MS + 20_000);
            let here = rows(&live, "sport", from_ms, to_ms);
            let sums = |rows: &[Row]| {
                let sums = rows.iter().map(|row| (row.window_start_ms, row.sums.clone()));
                sums.collect::<Vec<_>>()
            };
            prop_assert_eq!(sums(&here), sums(&stored));
        }
    }
}
