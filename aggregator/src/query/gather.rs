//! Rows of a plan, from wherever they are, added up step by step.
//!
//! Input: a plan, the store, rows of memory. Output: a sum per step, with where it came from. Limits: the rows of
//! [`CHUNK_MS`] at a time.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::plan::{MINUTE_MS, Plan, SECOND_MS};
use crate::store::{Fold, Folded, Part, Row, Store, StoreError};

/// Rows that are read at a time, by the length of a row: 3,600 seconds, 1,440 minutes.
const CHUNK_MS: [(u64, u64); 2] = [(SECOND_MS, 3_600_000), (MINUTE_MS, 86_400_000)];

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// From what is live.
    Memory,
    /// From roll-ups.
    Store,
    /// The older part from roll-ups, the newer from what is live.
    StoreAndMemory,
}

/// Where rows of a stream are.
#[derive(Debug)]
pub struct Lookup<'a> {
    /// Name of the stream.
    pub stream: &'a str,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its rows that end here or before are complete, Unix ms.
    pub stored_to_ms: u64,
    /// Rows of memory, which has all windows that start here or later.
    pub newest: Option<(u64, Vec<Row>)>,
}

/// Sums of a plan's steps.
#[derive(Debug)]
pub struct Gathered {
    /// Begin, end and sum of each step.
    pub steps: Vec<((u64, u64), Folded)>,
    /// Where it came from.
    pub source: Source,
    /// Parts of windows that came after those had closed.
    pub late_parts: u64,
}

impl Lookup<'_> {
    /// Sums up all rows of a plan.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn gather(&self, plan: &Plan) -> Result<Gathered, StoreError> {
        let split_ms = self
            .newest
            .as_ref()
            .map_or(u64::MAX, |(from_ms, _)| *from_ms);
        let end_ms = plan.ends_ms().last().unwrap_or(plan.from_ms);
        let mut adding = Adding::new(plan);
        let mut at_ms = plan.from_ms;
        for (row_ms, until_ms) in self.tables(plan, split_ms.min(end_ms)) {
            while at_ms < until_ms {
                let next_ms = until_ms.min(chunk_end(at_ms, row_ms));
                let rows = match row_ms {
                    MINUTE_MS => self.store.minutes(self.stream, at_ms, next_ms).await?,
                    _ => self.store.seconds(self.stream, at_ms, next_ms).await?,
                };
                rows.iter().for_each(|row| adding.add(row));
                at_ms = next_ms;
            }
        }
        let newest = self.newest.iter().flat_map(|(_, rows)| rows);
        let newest = newest.filter(|row| (at_ms..end_ms).contains(&row.window_start_ms));
        newest.for_each(|row| adding.add(row));
        let source = match (plan.from_ms < at_ms, at_ms < end_ms) {
            (true, true) => Source::StoreAndMemory,
            (false, true) => Source::Memory,
            (_, false) => Source::Store,
        };
        Ok(adding.done(source))
    }

    /// Tables that are read, each up to a moment: minutes as far as they are complete, then seconds.
    fn tables(&self, plan: &Plan, end_ms: u64) -> [(u64, u64); 2] {
        let minutes_to_ms = match plan.row_ms {
            MINUTE_MS => end_ms.min(self.stored_to_ms) / MINUTE_MS * MINUTE_MS,
            _ => 0,
        };
        [(MINUTE_MS, minutes_to_ms), (SECOND_MS, end_ms)]
    }
}

/// Where a chunk of rows ends: full hours, full days.
fn chunk_end(at_ms: u64, row_ms: u64) -> u64 {
    let known = CHUNK_MS.iter().find(|(length, _)| *length == row_ms);
    let chunk_ms = known.map_or(row_ms, |(_, chunk_ms)| *chunk_ms);
    (at_ms / chunk_ms + 1).saturating_mul(chunk_ms)
}

/// Steps being added up, oldest first.
struct Adding {
    plan: Plan,
    begin_ms: u64,
    fold: Fold,
    steps: Vec<((u64, u64), Folded)>,
    late_parts: u64,
}

impl Adding {
    fn new(plan: &Plan) -> Self {
        Self {
            plan: *plan,
            begin_ms: plan.from_ms,
            fold: Fold::default(),
            steps: Vec::new(),
            late_parts: 0,
        }
    }

    fn add(&mut self, row: &Row) {
        let since_ms = row.window_start_ms.saturating_sub(self.plan.from_ms);
        let begin_ms = self.plan.from_ms + since_ms / self.plan.step_ms * self.plan.step_ms;
        if begin_ms != self.begin_ms {
            self.end_step(begin_ms);
        }
        self.late_parts += u64::from(matches!(row.part, Part::Late { .. }));
        self.fold.push(row);
    }

    /// Ends a step; one without rows is none.
    fn end_step(&mut self, next_ms: u64) {
        let span = (self.begin_ms, self.begin_ms + self.plan.step_ms);
        let folded = std::mem::take(&mut self.fold).finish();
        if folded.sums.windows > 0 {
            self.steps.push((span, folded));
        }
        self.begin_ms = next_ms;
    }

    fn done(mut self, source: Source) -> Gathered {
        self.end_step(u64::MAX);
        Gathered {
            steps: self.steps,
            source,
            late_parts: self.late_parts,
        }
    }
}
