//! Values of the embedded store's tables: protobuf messages, to which fields may be added.

use prost::Message;
use sampler_event::Counters;

use super::keys::{KeyBytes, KeyReader, Table};
use crate::store::wire::{decode_sums, encode_sums};
use crate::store::{AlertRow, Checkpoint, EvidenceRow, NodeRow, Row, StoreError};

#[derive(Clone, PartialEq, Message)]
struct StoredRow {
    #[prost(uint64, tag = "1")]
    version_us: u64,
    #[prost(bool, tag = "2")]
    provisional: bool,
    #[prost(uint32, tag = "3")]
    nodes_expected: u32,
    #[prost(uint32, tag = "4")]
    nodes_reported: u32,
    #[prost(bytes = "vec", tag = "5")]
    sums: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredNodeRow {
    #[prost(uint64, tag = "1")]
    version_us: u64,
    #[prost(bool, tag = "2")]
    provisional: bool,
    #[prost(uint64, tag = "3")]
    windows: u64,
    #[prost(uint32, tag = "4")]
    flags: u32,
    #[prost(uint64, repeated, tag = "5")]
    counters: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredCheckpoint {
    #[prost(uint64, tag = "1")]
    version_us: u64,
    #[prost(int64, tag = "2")]
    offset: i64,
    #[prost(int64, tag = "3")]
    position: i64,
    #[prost(uint64, tag = "4")]
    watermark_ms: u64,
    #[prost(bytes = "vec", tag = "5")]
    state: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredAlert {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    episode: String,
    #[prost(uint64, tag = "3")]
    at_ms: u64,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(string, tag = "5")]
    state: String,
    #[prost(bytes = "vec", tag = "6")]
    value: Vec<u8>,
}

/// Only its version, which stands first in every value that has one.
#[derive(Clone, PartialEq, Message)]
struct Versioned {
    #[prost(uint64, tag = "1")]
    version_us: u64,
}

/// The version of a value; 0 if it cannot be read, so that it is written anew.
pub(super) fn version_us(value: &[u8]) -> u64 {
    Versioned::decode(value).map_or(0, |value| value.version_us)
}

fn unreadable(table: Table) -> StoreError {
    StoreError::Unreadable(format!("a row of {} is damaged", table.name()))
}

fn message<M: Message + Default>(table: Table, value: &[u8]) -> Result<M, StoreError> {
    M::decode(value).map_err(|_| unreadable(table))
}

pub(super) fn row_key(table: Table, row: &Row) -> Vec<u8> {
    let key = KeyBytes::bucket(table, row.window_start_ms).name(&row.stream);
    let part = row.part.to_string();
    key.number(row.window_start_ms).name(&part).done()
}

pub(super) fn row_value(row: &Row) -> Vec<u8> {
    let stored = StoredRow {
        version_us: row.version_us,
        provisional: row.provisional,
        nodes_expected: row.nodes_expected,
        nodes_reported: row.nodes_reported,
        sums: encode_sums(&row.sums),
    };
    stored.encode_to_vec()
}

pub(super) fn read_row(table: Table, key: &[u8], value: &[u8]) -> Result<Row, StoreError> {
    let stored: StoredRow = message(table, value)?;
    let mut key = KeyReader(key);
    let mut place = || {
        key.number()?;
        let stream = key.name()?.to_owned();
        Some((stream, key.number()?, key.name()?.parse().ok()?))
    };
    let (stream, window_start_ms, part) = place().ok_or_else(|| unreadable(table))?;
    Ok(Row {
        stream,
        window_start_ms,
        part,
        version_us: stored.version_us,
        provisional: stored.provisional,
        nodes_expected: stored.nodes_expected,
        nodes_reported: stored.nodes_reported,
        sums: decode_sums(&stored.sums)?,
    })
}

pub(super) fn node_row_key(row: &NodeRow) -> Vec<u8> {
    let key = KeyBytes::bucket(Table::NodeMinute, row.window_start_ms).name(&row.stream);
    let key = key.number(row.window_start_ms).name(&row.node);
    key.name(&row.part.to_string()).done()
}

pub(super) fn node_row_value(row: &NodeRow) -> Vec<u8> {
    let stored = StoredNodeRow {
        version_us: row.version_us,
        provisional: row.provisional,
        windows: row.windows,
        flags: row.flags,
        counters: row.counters.values().to_vec(),
    };
    stored.encode_to_vec()
}

pub(super) fn read_node_row(key: &[u8], value: &[u8]) -> Result<NodeRow, StoreError> {
    let table = Table::NodeMinute;
    let stored: StoredNodeRow = message(table, value)?;
    let mut key = KeyReader(key);
    let mut place = || {
        key.number()?;
        let stream = key.name()?.to_owned();
        let start_ms = key.number()?;
        let node = key.name()?.to_owned();
        Some((stream, start_ms, node, key.name()?.parse().ok()?))
    };
    let (stream, window_start_ms, node, part) = place().ok_or_else(|| unreadable(table))?;
    Ok(NodeRow {
        stream,
        window_start_ms,
        node,
        part,
        version_us: stored.version_us,
        provisional: stored.provisional,
        windows: stored.windows,
        flags: stored.flags,
        counters: Counters::of_values(&stored.counters),
    })
}

pub(super) fn checkpoint_key(topic: &str, partition: i32) -> Vec<u8> {
    let number = u64::try_from(partition).unwrap_or(u64::MAX);
    KeyBytes::default().name(topic).number(number).done()
}

pub(super) fn checkpoint_value(checkpoint: &Checkpoint) -> Vec<u8> {
    let stored = StoredCheckpoint {
        version_us: checkpoint.version_us,
        offset: checkpoint.offset,
        position: checkpoint.position,
        watermark_ms: checkpoint.watermark_ms,
        state: checkpoint.state.clone(),
    };
    stored.encode_to_vec()
}

pub(super) fn read_checkpoint(key: &[u8], value: &[u8]) -> Result<Checkpoint, StoreError> {
    let table = Table::Checkpoint;
    let stored: StoredCheckpoint = message(table, value)?;
    let mut key = KeyReader(key);
    let topic = key.name().ok_or_else(|| unreadable(table))?.to_owned();
    let number = key.number().and_then(|number| i32::try_from(number).ok());
    Ok(Checkpoint {
        topic,
        partition: number.ok_or_else(|| unreadable(table))?,
        offset: stored.offset,
        position: stored.position,
        watermark_ms: stored.watermark_ms,
        version_us: stored.version_us,
        state: stored.state,
    })
}

pub(super) fn alert_key(row: &AlertRow) -> Vec<u8> {
    let key = KeyBytes::default().name(&row.key).name(&row.episode);
    key.number(row.at_ms)
        .number(row.offset.cast_unsigned())
        .done()
}

pub(super) fn alert_time_key(row: &AlertRow) -> Vec<u8> {
    let key = KeyBytes::default().number(row.at_ms);
    let key = key.number(row.offset.cast_unsigned()).name(&row.key);
    key.name(&row.episode).done()
}

pub(super) fn alert_value(row: &AlertRow) -> Vec<u8> {
    let stored = StoredAlert {
        key: row.key.clone(),
        episode: row.episode.clone(),
        at_ms: row.at_ms,
        offset: row.offset,
        state: row.state.clone(),
        value: row.value.clone(),
    };
    stored.encode_to_vec()
}

pub(super) fn read_alert(value: &[u8]) -> Result<AlertRow, StoreError> {
    let stored: StoredAlert = message(Table::Alert, value)?;
    Ok(AlertRow {
        key: stored.key,
        episode: stored.episode,
        at_ms: stored.at_ms,
        offset: stored.offset,
        state: stored.state,
        value: stored.value,
    })
}

pub(super) fn evidence_key(row: &EvidenceRow) -> Vec<u8> {
    let key = KeyBytes::default().name(&row.key).name(&row.episode);
    key.number(row.window_start_ms).name(&row.id).done()
}

pub(super) fn read_evidence(key: &[u8], value: &[u8]) -> Result<EvidenceRow, StoreError> {
    let mut key = KeyReader(key);
    let mut place = || {
        let (alert, episode) = (key.name()?.to_owned(), key.name()?.to_owned());
        Some((alert, episode, key.number()?, key.name()?.to_owned()))
    };
    let place = place().ok_or_else(|| unreadable(Table::Evidence))?;
    let (key, episode, window_start_ms, id) = place;
    Ok(EvidenceRow {
        key,
        episode,
        window_start_ms,
        id,
        event: value.to_vec(),
    })
}

/// The day as the version: a later one stands.
pub(super) fn stream_value(day: u64) -> Vec<u8> {
    Versioned { version_us: day }.encode_to_vec()
}

pub(super) fn read_stream_day(value: &[u8]) -> u64 {
    version_us(value)
}
