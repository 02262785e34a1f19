//! Rows out of tables: one question per partition, a few at a time, in order.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlDate, CqlTimestamp, CqlValue, Row as Columns};

use super::columns::{Taker, bigint};
use super::connect::Connected;
use super::words;
use crate::store::row::{NodeRow, Part, Row};
use crate::store::{Checkpoint, Progress, StoreError};

const HOUR_MS: u64 = 3_600_000;
pub(super) const DAY_MS: u64 = 86_400_000;
/// Hours and days that a question reaches back from its end: all that is kept, and then some.
const REACH_MS: [(u64, u64); 2] = [(HOUR_MS, 1_000 * HOUR_MS), (DAY_MS, 400 * DAY_MS)];
/// Partitions that are asked at the same time.
const PARTITIONS: usize = 16;
/// Day 0 of CQL's `date`.
const EPOCH_DATE: u32 = 1 << 31;
/// Sites that share a partition are those whose bytes add up to the same, modulo this.
const SITE_BUCKETS: u32 = 16;

/// The hour of a moment, as a column.
pub(super) fn hour(at_ms: u64) -> CqlValue {
    let start_ms = at_ms / HOUR_MS * HOUR_MS;
    CqlValue::Timestamp(CqlTimestamp(start_ms.cast_signed()))
}

/// The day of a moment, as a column.
pub(super) fn date(at_ms: u64) -> CqlValue {
    let days = u32::try_from(at_ms / DAY_MS).unwrap_or(u32::MAX);
    CqlValue::Date(CqlDate(EPOCH_DATE.saturating_add(days)))
}

/// Which partition of a stream's day a site's rows are in.
pub(super) fn site_bucket(site: &str) -> i32 {
    let sum: u32 = site.bytes().map(u32::from).sum();
    (sum % SITE_BUCKETS).cast_signed()
}

/// Starts of the partitions of `length_ms` that a span touches, and what of the span is asked for.
fn partitions(from_ms: u64, to_ms: u64, length_ms: u64) -> (u64, Vec<u64>) {
    let reach = REACH_MS.iter().find(|(length, _)| *length == length_ms);
    let reach_ms = reach.map_or(length_ms, |(_, reach_ms)| *reach_ms);
    let from_ms = from_ms.max(to_ms.saturating_sub(reach_ms));
    if from_ms >= to_ms {
        return (from_ms, Vec::new());
    }
    let (first, last) = (from_ms / length_ms, (to_ms - 1) / length_ms);
    (from_ms, (first..=last).map(|n| n * length_ms).collect())
}

/// Starts of the days that a span touches.
pub(super) fn days_of(from_ms: u64, to_ms: u64) -> Vec<u64> {
    partitions(from_ms, to_ms, DAY_MS).1
}

pub(super) fn text(text: &str) -> CqlValue {
    CqlValue::Text(text.to_owned())
}

impl Connected {
    /// All rows of one question.
    pub(super) async fn ask(
        &self,
        statement: &PreparedStatement,
        values: Vec<CqlValue>,
    ) -> Result<Vec<Taker>, StoreError> {
        let pager = self.session.execute_iter(statement.clone(), values).await;
        let pager = pager.map_err(|error| StoreError::Unavailable(words::of_pager(&error)))?;
        let rows = pager
            .rows_stream::<Columns>()
            .map_err(|error| StoreError::Unreadable(error.to_string()))?;
        let takers = rows.map_ok(Taker::of).try_collect();
        takers
            .await
            .map_err(|error| StoreError::Unavailable(words::of_row(&error)))
    }

    /// All rows of one question per partition.
    async fn ask_each(
        &self,
        statement: &PreparedStatement,
        questions: impl Iterator<Item = Vec<CqlValue>>,
    ) -> Result<Vec<Taker>, StoreError> {
        let answers: Vec<Vec<Taker>> = stream::iter(questions)
            .map(|values| self.ask(statement, values))
            .buffered(PARTITIONS)
            .try_collect()
            .await?;
        Ok(answers.into_iter().flatten().collect())
    }

    pub(super) async fn seconds(
        &self,
        stream: &str,
        from_ms: u64,
        to_ms: u64,
    ) -> Result<Vec<Row>, StoreError> {
        let (from_ms, hours) = partitions(from_ms, to_ms, HOUR_MS);
        let questions = hours.into_iter().map(|start_ms| {
            let (from, to) = (bigint(from_ms), bigint(to_ms));
            vec![text(&self.site), text(stream), hour(start_ms), from, to]
        });
        let rows = self.ask_each(&self.statements.seconds, questions).await?;
        read_rows(stream, rows)
    }

    pub(super) async fn minutes(
        &self,
        stream: &str,
        from_ms: u64,
        to_ms: u64,
    ) -> Result<Vec<Row>, StoreError> {
        let (from_ms, days) = partitions(from_ms, to_ms, DAY_MS);
        let questions = days.into_iter().map(|start_ms| {
            vec![
                text(stream),
                date(start_ms),
                CqlValue::Int(site_bucket(&self.site)),
                bigint(from_ms),
                bigint(to_ms),
                text(&self.site),
            ]
        });
        let rows = self.ask_each(&self.statements.minutes, questions).await?;
        read_rows(stream, rows)
    }

    pub(super) async fn node_minutes(
        &self,
        stream: &str,
        from_ms: u64,
        to_ms: u64,
    ) -> Result<Vec<NodeRow>, StoreError> {
        let (from_ms, days) = partitions(from_ms, to_ms, DAY_MS);
        let questions = days.into_iter().map(|start_ms| {
            let day = date(start_ms);
            vec![
                text(&self.site),
                text(stream),
                day,
                bigint(from_ms),
                bigint(to_ms),
            ]
        });
        let rows = self
            .ask_each(&self.statements.node_minutes, questions)
            .await?;
        let rows = rows.into_iter().map(|row| read_node_row(stream, row));
        rows.collect()
    }

    pub(super) async fn streams(&self, since_ms: u64) -> Result<Vec<String>, StoreError> {
        let CqlValue::Date(since) = date(since_ms) else {
            return Ok(Vec::new());
        };
        let rows = self
            .ask(&self.statements.streams, vec![text(&self.site)])
            .await?;
        let named = rows.into_iter().map(|mut row| (row.text(), row.date()));
        let mut streams: Vec<_> = named
            .filter(|(_, day)| *day >= since.0)
            .map(|(stream, _)| stream)
            .collect();
        streams.sort();
        Ok(streams)
    }

    pub(super) async fn checkpoint(
        &self,
        topic: &str,
        partition: i32,
    ) -> Result<Option<Checkpoint>, StoreError> {
        let key = vec![text(&self.site), text(topic), CqlValue::Int(partition)];
        let rows = self.ask(&self.statements.checkpoint, key).await?;
        Ok(rows.into_iter().next().map(|mut row| Checkpoint {
            topic: topic.to_owned(),
            partition,
            offset: row.number().cast_signed(),
            position: row.number().cast_signed(),
            watermark_ms: row.number(),
            state: row.bytes(),
            version_us: row.number(),
        }))
    }

    pub(super) async fn progress(&self, topic: &str) -> Result<Vec<Progress>, StoreError> {
        let key = vec![text(&self.site), text(topic)];
        let rows = self.ask(&self.statements.progress, key).await?;
        let progress = rows.into_iter().map(|mut row| Progress {
            partition: row.small().cast_signed(),
            position: row.number().cast_signed(),
            watermark_ms: row.number(),
        });
        Ok(progress.collect())
    }
}

fn part(row: &mut Taker) -> Result<Part, StoreError> {
    let part = row.text().parse();
    part.map_err(|error| StoreError::Unreadable(format!("a row: {error}")))
}

fn read_rows(stream: &str, rows: Vec<Taker>) -> Result<Vec<Row>, StoreError> {
    let rows = rows.into_iter().map(|mut row| {
        Ok(Row {
            stream: stream.to_owned(),
            window_start_ms: row.number(),
            part: part(&mut row)?,
            version_us: row.number(),
            nodes_expected: row.small(),
            nodes_reported: row.small(),
            provisional: row.yes(),
            sums: row.sums()?,
        })
    });
    rows.collect()
}

fn read_node_row(stream: &str, mut row: Taker) -> Result<NodeRow, StoreError> {
    let (window_start_ms, node) = (row.number(), row.text());
    let part = part(&mut row)?;
    let (version_us, provisional) = (row.number(), row.yes());
    let (windows, flags, counters) = row.counters();
    Ok(NodeRow {
        stream: stream.to_owned(),
        window_start_ms,
        node,
        part,
        version_us,
        provisional,
        windows,
        flags,
        counters,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_touches_these_partitions() {
        let hours = |from_ms, to_ms| partitions(from_ms, to_ms, HOUR_MS).1;
        assert_eq!(hours(0, 1), [0]);
        assert_eq!(hours(HOUR_MS - 1, HOUR_MS + 1), [0, HOUR_MS]);
        assert_eq!(hours(HOUR_MS, 2 * HOUR_MS), [HOUR_MS]);
        assert!(hours(5, 5).is_empty());
        assert!(hours(6, 5).is_empty());
        // However long it is, there is an end.
        let (from_ms, days) = partitions(0, u64::MAX, DAY_MS);
        assert_eq!(days.len(), 401);
        assert_eq!(from_ms, u64::MAX - 400 * DAY_MS);
    }

    #[test]
    fn days_and_buckets_are_as_the_schema_says() {
        let noon_ms = 1_700_000_000_000;
        assert_eq!(date(noon_ms), CqlValue::Date(CqlDate((1 << 31) + 19_675)));
        let start_ms = 1_699_999_200_000;
        assert_eq!(hour(noon_ms), CqlValue::Timestamp(CqlTimestamp(start_ms)));
        assert_eq!(site_bucket("ams1"), (97 + 109 + 115 + 49) % 16);
        assert_eq!(site_bucket(""), 0);
    }
}
