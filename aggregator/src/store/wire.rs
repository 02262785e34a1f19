//! The bytes of a row's sums: one form for every store.
//!
//! Input: [`Sums`]. Output: a protobuf message, and back, equal to the last bit. Numbers that are absent read as 0; fields are only
//! added, so that a newer version's rows can be read and an older one's too. Groups that are all zero and empty buckets take no room.

use prost::Message;
use sampler_event::{
    Counters, GROUPS, Gauges, Groups, Histogram, HistogramKind, Histograms, Layout, codec,
};

use super::StoreError;
use super::row::{Pool, PoolKey, Sums};

#[derive(Clone, PartialEq, Message)]
struct StoredSums {
    #[prost(uint64, tag = "1")]
    windows: u64,
    #[prost(uint32, tag = "2")]
    flags: u32,
    /// In the order of [`Counters::NAMES`].
    #[prost(uint64, repeated, tag = "3")]
    counters: Vec<u64>,
    #[prost(message, repeated, tag = "4")]
    pools: Vec<StoredPool>,
    #[prost(message, repeated, tag = "5")]
    histograms: Vec<StoredHistogram>,
    /// `end_ms` first, then as [`Gauges`] has them.
    #[prost(uint64, repeated, tag = "6")]
    gauges: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredPool {
    #[prost(double, tag = "1")]
    sampling_rate: f64,
    #[prost(int32, tag = "2")]
    rtt_source: i32,
    #[prost(uint64, tag = "3")]
    flows_active: u64,
    #[prost(uint64, tag = "4")]
    flows_active_10s: u64,
    /// Bit n: field n of [`Groups::NAMES`] is not all zero, and has 16 numbers in `groups`.
    #[prost(uint32, tag = "5")]
    present: u32,
    #[prost(uint64, repeated, tag = "6")]
    groups: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredHistogram {
    /// 1 round trips, 2 handshakes, 3 least round trips.
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(int32, tag = "2")]
    rtt_source: i32,
    #[prost(double, tag = "3")]
    sampling_rate: f64,
    #[prost(uint64, tag = "4")]
    min_us: u64,
    #[prost(uint64, tag = "5")]
    max_us: u64,
    /// As an event's `rtt_counts`.
    #[prost(sint64, repeated, tag = "6")]
    counts: Vec<i64>,
}

/// The bytes of sums.
#[must_use]
pub fn encode_sums(sums: &Sums) -> Vec<u8> {
    let gauges = &sums.gauges;
    let stored = StoredSums {
        windows: sums.windows,
        flags: sums.flags,
        counters: sums.counters.values().to_vec(),
        pools: sums.pools.iter().map(pool).collect(),
        histograms: sums.histograms.iter().map(histogram).collect(),
        gauges: vec![
            gauges.end_ms,
            gauges.flows_open,
            gauges.flows_unhooked,
            gauges.flows_active,
            gauges.flows_retransmitting,
            gauges.flows_stalled,
            gauges.flows_silent,
            gauges.stalls_open,
        ],
    };
    stored.encode_to_vec()
}

fn pool((key, pool): (&PoolKey, &Pool)) -> StoredPool {
    let (mut present, mut groups) = (0, Vec::new());
    for (bit, field) in pool.groups.fields().into_iter().enumerate() {
        if field.iter().any(|sum| *sum > 0) {
            present |= 1 << bit;
            groups.extend_from_slice(field);
        }
    }
    StoredPool {
        sampling_rate: key.sampling_rate(),
        rtt_source: key.rtt_source,
        flows_active: pool.flows_active,
        flows_active_10s: pool.flows_active_10s,
        present,
        groups,
    }
}

fn histogram((kind, sampling_rate, of): (HistogramKind, f64, &Histogram)) -> StoredHistogram {
    let (kind, rtt_source) = match kind {
        HistogramKind::Rtt(source) => (1, source),
        HistogramKind::Handshake => (2, 0),
        HistogramKind::Least => (3, 0),
    };
    let bounds = of.bounds_us();
    StoredHistogram {
        kind,
        rtt_source,
        sampling_rate,
        min_us: bounds.as_ref().map_or(0, |bounds| *bounds.start()),
        max_us: bounds.as_ref().map_or(0, |bounds| *bounds.end()),
        counts: codec::encode(of),
    }
}

/// The sums of bytes.
///
/// # Errors
/// [`StoreError::Unreadable`] with what is wrong.
pub fn decode_sums(bytes: &[u8]) -> Result<Sums, StoreError> {
    let wrong = |what: &dyn std::fmt::Display| StoreError::Unreadable(format!("a row: {what}"));
    let stored = StoredSums::decode(bytes).map_err(|error| wrong(&error))?;
    let mut sums = Sums {
        windows: stored.windows,
        flags: stored.flags,
        counters: Counters::of_values(&stored.counters),
        gauges: gauges(&stored.gauges),
        ..Sums::default()
    };
    for pool in &stored.pools {
        let groups = groups(pool).ok_or_else(|| wrong(&"groups that are not 16"))?;
        let key = PoolKey::new(pool.sampling_rate, pool.rtt_source);
        let pool = Pool {
            groups,
            flows_active: pool.flows_active,
            flows_active_10s: pool.flows_active_10s,
        };
        sums.pools.insert(key, pool);
    }
    for stored in &stored.histograms {
        put_histogram(&mut sums.histograms, stored).map_err(|what| wrong(&what))?;
    }
    Ok(sums)
}

fn gauges(numbers: &[u64]) -> Gauges {
    let number = |index: usize| numbers.get(index).copied().unwrap_or(0);
    Gauges {
        end_ms: number(0),
        flows_open: number(1),
        flows_unhooked: number(2),
        flows_active: number(3),
        flows_retransmitting: number(4),
        flows_stalled: number(5),
        flows_silent: number(6),
        stalls_open: number(7),
    }
}

fn groups(stored: &StoredPool) -> Option<Groups> {
    let mut chunks = stored.groups.chunks_exact(GROUPS);
    let mut fields = Vec::new();
    for bit in 0..u32::BITS - stored.present.leading_zeros() {
        fields.push(match stored.present & (1 << bit) {
            0 => [0; GROUPS],
            _ => chunks.next()?.try_into().ok()?,
        });
    }
    Some(Groups::of_fields(&fields))
}

fn put_histogram(histograms: &mut Histograms, stored: &StoredHistogram) -> Result<(), String> {
    let kind = match stored.kind {
        1 => HistogramKind::Rtt(stored.rtt_source),
        2 => HistogramKind::Handshake,
        3 => HistogramKind::Least,
        other => return Err(format!("a histogram of kind {other}")),
    };
    let layout: Layout = kind.layout();
    let mut histogram = codec::decode(layout, &stored.counts).map_err(|error| error.to_string())?;
    histogram.tighten(stored.min_us, stored.max_us);
    histograms.put(kind, stored.sampling_rate, &histogram);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;
    use proptest::prelude::*;

    #[test]
    fn names_keep_their_places() {
        // Rows that lie in stores have their numbers in this order: new names go to the end.
        assert_eq!(Counters::NAMES.len(), 27);
        assert_eq!(Counters::NAMES[0], "flows_seen");
        assert_eq!(Counters::NAMES[9], "retrans_segs");
        assert_eq!(Counters::NAMES[26], "sndbuf_limited_us");
        assert_eq!(
            Groups::NAMES,
            [
                "retrans_segs",
                "data_segs_out",
                "stall_ms",
                "busy_ms",
                "rtt_count",
                "rtt_slow"
            ]
        );
    }

    #[test]
    fn junk_is_said_and_not_taken() {
        assert!(decode_sums(&[0xff; 9]).is_err());
        let mut stored = StoredSums::default();
        stored.pools.push(StoredPool {
            present: 3,
            groups: vec![1; 17],
            ..StoredPool::default()
        });
        assert!(decode_sums(&stored.encode_to_vec()).is_err());
        stored.pools.clear();
        stored.histograms.push(StoredHistogram {
            kind: 1,
            counts: vec![9999, 1],
            ..StoredHistogram::default()
        });
        assert!(decode_sums(&stored.encode_to_vec()).is_err());
        assert_eq!(decode_sums(&[]), Ok(Sums::default()));
    }

    proptest! {
        #[test]
        fn comes_back_as_it_was(windows in proptest::collection::vec(testing::window(), 0..6)) {
            let mut sums = Sums::default();
            windows.iter().for_each(|window| sums.beside(&Sums::of(window)));
            prop_assert_eq!(decode_sums(&encode_sums(&sums)), Ok(sums));
        }

        #[test]
        fn ends_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_sums(&bytes);
        }
    }
}
