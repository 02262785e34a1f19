//! Batches into tables: the streams' days, then the rows, then the checkpoints.

use futures_util::stream::{FuturesUnordered, StreamExt, TryStreamExt};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlValue;
use scylla::value::MaybeUnset::Set;

use super::alerts::{bind_alert, bind_evidence};
use super::columns::{Bound, bigint, bind_counters, bind_sums, int};
use super::connect::Connected;
use super::read::{DAY_MS, date, hour, site_bucket, text};
use super::words;
use crate::store::row::{NodeRow, Row};
use crate::store::{AlertRow, Batch, Checkpoint, EvidenceRow, StoreError};

/// One row for one table.
#[derive(Clone, Copy)]
pub(super) enum Write<'a> {
    LastDay(&'a str, u64),
    Second(&'a Row),
    Minute(&'a Row),
    NodeMinute(&'a NodeRow),
    Checkpoint(&'a Checkpoint),
    Alert(&'a AlertRow),
    AlertByDay(&'a AlertRow),
    Evidence(&'a EvidenceRow),
}

impl Connected {
    pub(super) async fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let days = self.new_days(batch);
        let notes = days
            .iter()
            .map(|(stream, day)| Write::LastDay(stream, *day));
        self.write_all(notes.collect()).await?;
        self.remember(days);
        let seconds = batch.seconds.iter().map(Write::Second);
        let minutes = batch.minutes.iter().map(Write::Minute);
        let nodes = batch.node_minutes.iter().map(Write::NodeMinute);
        let rows = seconds.chain(minutes).chain(nodes).collect();
        self.write_all(rows).await?;
        // After the rows: who goes on from one must find them.
        let checkpoints = batch.checkpoints.iter().map(Write::Checkpoint);
        self.write_all(checkpoints.collect()).await
    }

    /// Writes with a bounded number under way; ends at the first error.
    pub(super) async fn write_all(&self, writes: Vec<Write<'_>>) -> Result<(), StoreError> {
        let failed = |error| StoreError::Unavailable(words::of(&error));
        let mut under_way = FuturesUnordered::new();
        for write in writes {
            if under_way.len() >= self.in_flight {
                under_way.next().await.transpose().map_err(failed)?;
            }
            let (statement, values) = self.bind(write);
            under_way.push(self.session.execute_unpaged(statement, values));
        }
        under_way.try_collect::<Vec<_>>().await.map_err(failed)?;
        Ok(())
    }

    fn bind(&self, write: Write<'_>) -> (&PreparedStatement, Vec<Bound>) {
        let statements = &self.statements;
        match write {
            Write::LastDay(stream, day) => {
                (&statements.insert_last_day, self.bind_last_day(stream, day))
            }
            Write::Second(row) => (&statements.insert_second, self.bind_second(row)),
            Write::Minute(row) => (&statements.insert_minute, self.bind_minute(row)),
            Write::NodeMinute(row) => (&statements.insert_node_minute, self.bind_node_minute(row)),
            Write::Checkpoint(one) => (&statements.insert_checkpoint, self.bind_checkpoint(one)),
            Write::Alert(row) => (&statements.insert_alert, bind_alert(row)),
            Write::AlertByDay(row) => {
                let mut values = vec![Set(text(&self.site)), Set(date(row.at_ms))];
                values.extend(bind_alert(row));
                (&statements.insert_alert_by_day, values)
            }
            Write::Evidence(row) => (&statements.insert_evidence, bind_evidence(row)),
        }
    }

    /// Streams whose newest day in the batch was not noted yet.
    fn new_days(&self, batch: &Batch) -> Vec<(String, u64)> {
        let noted = self
            .noted
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut days = std::collections::HashMap::new();
        for row in batch.seconds.iter().chain(&batch.minutes) {
            let day = row.window_start_ms / DAY_MS;
            if noted.get(&row.stream).is_none_or(|known| *known < day) {
                let newest: &mut u64 = days.entry(row.stream.clone()).or_default();
                *newest = day.max(*newest);
            }
        }
        days.into_iter().collect()
    }

    fn remember(&self, days: Vec<(String, u64)>) {
        let mut noted = self
            .noted
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        noted.extend(days);
    }

    fn bind_last_day(&self, stream: &str, day: u64) -> Vec<Bound> {
        let start_ms = day * DAY_MS;
        vec![
            Set(text(&self.site)),
            Set(text(stream)),
            Set(date(start_ms)),
            // The later day stands, whoever writes last.
            Set(bigint(start_ms.saturating_mul(1_000))),
        ]
    }

    fn bind_second(&self, row: &Row) -> Vec<Bound> {
        let mut values = vec![
            Set(text(&self.site)),
            Set(text(&row.stream)),
            Set(hour(row.window_start_ms)),
            Set(bigint(row.window_start_ms)),
            Set(text(&row.part.to_string())),
        ];
        self.bind_row(&mut values, row);
        values
    }

    fn bind_minute(&self, row: &Row) -> Vec<Bound> {
        let mut values = vec![
            Set(text(&row.stream)),
            Set(date(row.window_start_ms)),
            Set(CqlValue::Int(site_bucket(&self.site))),
            Set(bigint(row.window_start_ms)),
            Set(text(&self.site)),
            Set(text(&row.part.to_string())),
        ];
        self.bind_row(&mut values, row);
        values
    }

    fn bind_row(&self, values: &mut Vec<Bound>, row: &Row) {
        values.push(Set(int(row.nodes_expected)));
        values.push(Set(int(row.nodes_reported)));
        values.push(Set(CqlValue::Boolean(row.provisional)));
        values.extend(bind_sums(&self.keyspace, &row.sums));
        values.push(Set(bigint(row.version_us)));
    }

    fn bind_node_minute(&self, row: &NodeRow) -> Vec<Bound> {
        let mut values = vec![
            Set(text(&self.site)),
            Set(text(&row.stream)),
            Set(date(row.window_start_ms)),
            Set(bigint(row.window_start_ms)),
            Set(text(&row.node)),
            Set(text(&row.part.to_string())),
            Set(CqlValue::Boolean(row.provisional)),
        ];
        values.extend(bind_counters(row.windows, row.flags, &row.counters));
        values.push(Set(bigint(row.version_us)));
        values
    }

    fn bind_checkpoint(&self, checkpoint: &Checkpoint) -> Vec<Bound> {
        vec![
            Set(text(&self.site)),
            Set(text(&checkpoint.topic)),
            Set(CqlValue::Int(checkpoint.partition)),
            Set(CqlValue::BigInt(checkpoint.offset)),
            Set(CqlValue::BigInt(checkpoint.position)),
            Set(bigint(checkpoint.watermark_ms)),
            Set(CqlValue::Blob(checkpoint.state.clone())),
            Set(bigint(checkpoint.version_us)),
        ]
    }
}
