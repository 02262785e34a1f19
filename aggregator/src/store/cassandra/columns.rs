//! A row's numbers as columns, and back, equal to the last bit.
//!
//! Input: [`Sums`] or [`Counters`]. Output: values in the order of the names that go before them. Counters, gauges and groups are
//! columns of the event's names, so that a SELECT can be read; histograms are the bytes that every store has. `u64` goes into
//! `bigint` bit for bit: no real sum reaches the sign.

use std::collections::BTreeMap;

use sampler_event::{Counters, GROUPS, Gauges, Groups, HistogramKind};
use scylla::value::CqlValue;
use scylla::value::MaybeUnset::{self, Set, Unset};

use crate::store::row::{Pool, PoolKey, Sums};
use crate::store::{StoreError, decode_sums, encode_sums};

/// A value to bind; one that is not set leaves its column as it is.
pub(super) type Bound = MaybeUnset<CqlValue>;
/// A value that was read.
pub(super) type Read = Option<CqlValue>;

const GAUGES: [&str; 8] = [
    "gauges_end_ms",
    "flows_open",
    "flows_unhooked",
    "flows_active",
    "flows_retransmitting",
    "flows_stalled",
    "flows_silent",
    "stalls_open",
];
/// For the eye only, never read by the program.
const QUANTILES: [(&str, f64); 3] = [
    ("rtt_p50_us", 0.5),
    ("rtt_p90_us", 0.9),
    ("rtt_p99_us", 0.99),
];

pub(super) fn bigint(number: u64) -> CqlValue {
    CqlValue::BigInt(number.cast_signed())
}

pub(super) fn int(number: u32) -> CqlValue {
    CqlValue::Int(number.cast_signed())
}

/// Names of the columns of [`Counters`] with windows and flags.
pub(super) fn counter_names() -> Vec<&'static str> {
    let mut names = vec!["windows", "flags"];
    names.extend(Counters::NAMES);
    names
}

/// Values for [`counter_names`].
pub(super) fn bind_counters(windows: u64, flags: u32, counters: &Counters) -> Vec<Bound> {
    let mut values = vec![Set(bigint(windows)), Set(int(flags))];
    values.extend(counters.values().map(|number| Set(bigint(number))));
    values
}

/// Columns of [`Sums`] that the program reads.
pub(super) fn sums_names() -> Vec<&'static str> {
    let mut names = counter_names();
    names.extend(GAUGES);
    names.extend(["pools", "histograms"]);
    names
}

/// Columns that are written beside those of [`sums_names`].
pub(super) fn shown_names() -> impl Iterator<Item = &'static str> {
    QUANTILES.iter().map(|(name, _)| *name)
}

/// Values for [`sums_names`] and then [`shown_names`].
pub(super) fn bind_sums(keyspace: &str, sums: &Sums) -> Vec<Bound> {
    let mut values = bind_counters(sums.windows, sums.flags, &sums.counters);
    values.extend(gauge_values(&sums.gauges).map(|number| Set(bigint(number))));
    let pools = sums.pools.iter();
    let pools = pools.map(|(key, pool)| bind_pool(keyspace, *key, pool));
    values.push(Set(CqlValue::List(pools.collect())));
    let histograms = Sums {
        histograms: sums.histograms.clone(),
        ..Sums::default()
    };
    values.push(Set(CqlValue::Blob(encode_sums(&histograms))));
    let rtt = sums.main_rtt_source().map(HistogramKind::Rtt);
    values.extend(QUANTILES.map(|(_, q)| {
        let quantile = rtt.and_then(|kind| sums.histograms.quantile_us(kind, q));
        quantile.map_or(Unset, |value_us| Set(bigint(value_us)))
    }));
    values
}

fn gauge_values(gauges: &Gauges) -> [u64; GAUGES.len()] {
    [
        gauges.end_ms,
        gauges.flows_open,
        gauges.flows_unhooked,
        gauges.flows_active,
        gauges.flows_retransmitting,
        gauges.flows_stalled,
        gauges.flows_silent,
        gauges.stalls_open,
    ]
}

fn bind_pool(keyspace: &str, key: PoolKey, pool: &Pool) -> CqlValue {
    let named = |name: &str, value| (name.to_owned(), Some(value));
    let mut fields = vec![
        named("sampling_rate", CqlValue::Double(key.sampling_rate())),
        named("rtt_source", CqlValue::Int(key.rtt_source)),
        named("flows_active", bigint(pool.flows_active)),
        named("flows_active_10s", bigint(pool.flows_active_10s)),
    ];
    let groups = Groups::NAMES.iter().zip(pool.groups.fields());
    for (name, sums) in groups.filter(|(_, sums)| sums.iter().any(|sum| *sum > 0)) {
        let list = sums.iter().map(|sum| bigint(*sum)).collect();
        fields.push(named(&format!("g_{name}"), CqlValue::List(list)));
    }
    CqlValue::UserDefinedType {
        keyspace: keyspace.to_owned(),
        name: "pool".to_owned(),
        fields,
    }
}

/// Columns of a row, taken one after another.
pub(super) struct Taker {
    columns: std::vec::IntoIter<Read>,
}

impl Taker {
    pub(super) fn of(row: scylla::value::Row) -> Self {
        Self {
            columns: row.columns.into_iter(),
        }
    }

    fn next(&mut self) -> Read {
        self.columns.next().flatten()
    }

    /// A number; absent is 0.
    pub(super) fn number(&mut self) -> u64 {
        self.next().map_or(0, |value| number(&value))
    }

    /// A number of 32 bits; absent is 0.
    pub(super) fn small(&mut self) -> u32 {
        match self.next() {
            Some(CqlValue::Int(number)) => number.cast_unsigned(),
            _ => 0,
        }
    }

    /// Text; absent is empty.
    pub(super) fn text(&mut self) -> String {
        match self.next() {
            Some(CqlValue::Text(text) | CqlValue::Ascii(text)) => text,
            _ => String::new(),
        }
    }

    /// Bytes; absent is empty.
    pub(super) fn bytes(&mut self) -> Vec<u8> {
        match self.next() {
            Some(CqlValue::Blob(bytes)) => bytes,
            _ => Vec::new(),
        }
    }

    /// A day of CQL's `date`; absent is the first.
    pub(super) fn date(&mut self) -> u32 {
        match self.next() {
            Some(CqlValue::Date(day)) => day.0,
            _ => 0,
        }
    }

    /// Yes or no; absent is no.
    pub(super) fn yes(&mut self) -> bool {
        self.next() == Some(CqlValue::Boolean(true))
    }

    /// What [`counter_names`] names: windows, flags, counters.
    pub(super) fn counters(&mut self) -> (u64, u32, Counters) {
        let (windows, flags) = (self.number(), self.small());
        let numbers: Vec<u64> = Counters::NAMES.iter().map(|_| self.number()).collect();
        (windows, flags, Counters::of_values(&numbers))
    }

    /// What [`sums_names`] names.
    ///
    /// # Errors
    /// If groups or histograms are none.
    pub(super) fn sums(&mut self) -> Result<Sums, StoreError> {
        let (windows, flags, counters) = self.counters();
        let gauges = self.gauges();
        let pools = self.pools()?;
        let histograms = decode_sums(&self.bytes())?.histograms;
        Ok(Sums {
            windows,
            flags,
            counters,
            pools,
            histograms,
            gauges,
        })
    }

    fn gauges(&mut self) -> Gauges {
        let [
            end_ms,
            flows_open,
            flows_unhooked,
            flows_active,
            flows_retransmitting,
            flows_stalled,
            flows_silent,
            stalls_open,
        ] = GAUGES.map(|_| self.number());
        Gauges {
            end_ms,
            flows_open,
            flows_unhooked,
            flows_active,
            flows_retransmitting,
            flows_stalled,
            flows_silent,
            stalls_open,
        }
    }

    fn pools(&mut self) -> Result<BTreeMap<PoolKey, Pool>, StoreError> {
        let Some(CqlValue::List(pools)) = self.next() else {
            return Ok(BTreeMap::new());
        };
        pools.into_iter().map(read_pool).collect()
    }
}

fn number(value: &CqlValue) -> u64 {
    match value {
        CqlValue::BigInt(number) => number.cast_unsigned(),
        CqlValue::Timestamp(time) => time.0.cast_unsigned(),
        _ => 0,
    }
}

fn read_pool(value: CqlValue) -> Result<(PoolKey, Pool), StoreError> {
    let CqlValue::UserDefinedType { fields, .. } = value else {
        return Err(StoreError::Unreadable(
            "a row: a pool that is none".to_owned(),
        ));
    };
    let field = |name: &str| {
        let found = fields.iter().find(|(own, _)| own == name);
        found.and_then(|(_, value)| value.as_ref())
    };
    let (rate, source) = match (field("sampling_rate"), field("rtt_source")) {
        (Some(CqlValue::Double(rate)), Some(CqlValue::Int(source))) => (*rate, *source),
        _ => {
            return Err(StoreError::Unreadable(
                "a row: a pool without its rate or source".to_owned(),
            ));
        }
    };
    let groups: Option<Vec<_>> = Groups::NAMES
        .iter()
        .map(|name| read_groups(field(&format!("g_{name}"))))
        .collect();
    let groups =
        groups.ok_or_else(|| StoreError::Unreadable("a row: groups that are not 16".to_owned()))?;
    let pool = Pool {
        groups: Groups::of_fields(&groups),
        flows_active: field("flows_active").map_or(0, number),
        flows_active_10s: field("flows_active_10s").map_or(0, number),
    };
    Ok((PoolKey::new(rate, source), pool))
}

/// The sums of a list; one that is absent is all zero.
fn read_groups(value: Option<&CqlValue>) -> Option<[u64; GROUPS]> {
    match value {
        None => Some([0; GROUPS]),
        Some(CqlValue::List(list)) => {
            let numbers: Vec<u64> = list.iter().map(number).collect();
            numbers.try_into().ok()
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use scylla::value::Row;

    use super::*;
    use crate::store::testing;

    /// As Cassandra would hand them back.
    fn read_back(bound: Vec<Bound>) -> Taker {
        let columns = bound.into_iter().map(|value| match value {
            Set(value) => Some(value),
            Unset => None,
        });
        Taker::of(Row {
            columns: columns.collect(),
        })
    }

    proptest! {
        #[test]
        fn comes_back_as_it_was(windows in proptest::collection::vec(testing::window(), 0..6)) {
            let mut sums = Sums::default();
            windows.iter().for_each(|window| sums.beside(&Sums::of(window)));
            let bound = bind_sums("flowvitals", &sums);
            prop_assert_eq!(bound.len(), sums_names().len() + shown_names().count());
            prop_assert_eq!(read_back(bound).sums(), Ok(sums));
        }
    }

    #[test]
    fn columns_that_an_older_version_did_not_write_are_zero() {
        let sums = read_back(Vec::new()).sums();
        assert_eq!(sums, Ok(Sums::default()));
    }

    #[test]
    fn groups_that_are_not_sixteen_are_said() {
        let mut bound = bind_sums("k", &Sums::default());
        let at = sums_names().iter().position(|name| *name == "pools");
        let short = CqlValue::UserDefinedType {
            keyspace: "k".to_owned(),
            name: "pool".to_owned(),
            fields: vec![
                ("sampling_rate".to_owned(), Some(CqlValue::Double(1.0))),
                ("rtt_source".to_owned(), Some(CqlValue::Int(0))),
                (
                    "g_rtt_slow".to_owned(),
                    Some(CqlValue::List(vec![bigint(1)])),
                ),
            ],
        };
        bound[at.expect("a column")] = Set(CqlValue::List(vec![short]));
        let read = read_back(bound).sums();
        assert!(matches!(read, Err(StoreError::Unreadable(_))), "{read:?}");
    }
}
