//! Where an answer about a stream comes from: memory, the store, or both.
//!
//! Input: the site, a question. Output: a total or a series with its source. What memory holds whole is answered from memory. The
//! store is asked for the rest; where it does not answer, memory answers what it would without one.

use std::sync::Arc;

use sampler_event::Options;
use serde::Serialize;
use service::topics;
use utoipa::ToSchema;

use super::ApiError;
use crate::daemon::Site;
use crate::input::partition_of;
use crate::merge::{Answer, Point, Quantity};
use crate::query::{Gathered, Lookup, NoPlan, Plan, Source, rows_in_memory};
use crate::store::{Folded, Store, StoreError};

/// A total, and where it came from.
#[derive(Debug, Serialize, ToSchema)]
pub struct Total {
    /// The estimate.
    #[serde(flatten)]
    pub answer: Answer,
    /// Where it came from.
    pub source: Source,
    /// Parts of windows in it that came when those had closed; of what is in memory they are not told apart.
    pub late_parts: u64,
}

/// Steps of a series, and where they came from.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) points: Vec<Point>,
    pub(super) source: Source,
    pub(super) late_parts: u64,
}

impl From<NoPlan> for ApiError {
    fn from(no: NoPlan) -> Self {
        match no {
            NoPlan::Empty | NoPlan::TooLong => Self::Unprocessable(no.to_string()),
            NoPlan::Forgotten | NoPlan::TooOld => Self::NotFound(no.to_string()),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(format!("store: {error}"))
    }
}

/// A question about a stream of a site.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) site: &'a Site,
    pub(super) stream: &'a str,
}

impl Question<'_> {
    /// One quantity over the `over_ms` that end at `at_ms`, or now.
    pub(super) async fn total(
        &self,
        quantity: Quantity,
        over_ms: u64,
        at_ms: Option<u64>,
    ) -> Result<Total, ApiError> {
        let now_ms = self.site.now_ms();
        let is_known = at_ms.is_some() || now_ms > 0;
        let at_ms = at_ms.unwrap_or(now_ms);
        let from_ms = (at_ms / 1_000 * 1_000).saturating_sub(over_ms);
        let options = Options::default();
        let from_memory = || {
            let live = self.site.live();
            let answer = live.total(self.stream, quantity, over_ms, Some(at_ms), &options);
            answer.map(|answer| Total {
                answer,
                source: Source::Memory,
                late_parts: 0,
            })
        };
        let not_found = |error: crate::merge::Unknown| ApiError::NotFound(error.to_string());
        let Some(store) = self.store(from_ms)? else {
            self.in_horizon(from_ms)?;
            return from_memory().map_err(not_found);
        };
        if !is_known {
            return Err(ApiError::Unavailable("no event has come yet".to_owned()));
        }
        let plan = Plan::total(at_ms, over_ms, now_ms)?;
        let (gathered, settled_ms) = match self.gather(&store, &plan).await {
            Ok(found) => found,
            Err(error) => return self.without(from_ms, error, || from_memory().ok()),
        };
        let span = (plan.from_ms, plan.to_ms);
        let step = gathered.steps.first().map(|(_, folded)| folded);
        if step.is_none() {
            // Silent: memory knows at least who should have said something.
            if let Ok(total) = from_memory() {
                return Ok(total);
            }
            self.is_stored(&store).await?;
        }
        let nothing = Folded::default();
        let folded = step.unwrap_or(&nothing);
        Ok(Total {
            answer: folded.answer(quantity, span, settled_ms, &options),
            source: gathered.source,
            late_parts: gathered.late_parts,
        })
    }

    /// Steps of a span.
    pub(super) async fn series(
        &self,
        (from_ms, to_ms): (u64, u64),
        step_ms: u64,
    ) -> Result<Steps, ApiError> {
        let options = Options::default();
        let from_memory = || {
            let live = self.site.live();
            self.is_live().then(|| Steps {
                points: live.series(self.stream, from_ms, to_ms, step_ms, &options),
                source: Source::Memory,
                late_parts: 0,
            })
        };
        let Some(store) = self.store(from_ms)? else {
            return from_memory().ok_or_else(unknown);
        };
        let plan = Plan::series(from_ms, to_ms, step_ms, self.site.now_ms())?;
        let (gathered, settled_ms) = match self.gather(&store, &plan).await {
            Ok(found) => found,
            Err(error) => return self.without(from_ms, error, from_memory),
        };
        if gathered.steps.is_empty() {
            // The store has not come so far, or nothing was said: memory knows, if anything does.
            match from_memory() {
                Some(steps) if !steps.points.is_empty() => return Ok(steps),
                Some(_) => {}
                None => self.is_stored(&store).await?,
            }
        }
        let points = gathered.steps.iter();
        let points = points.filter_map(|(span, sum)| sum.point(*span, settled_ms, &options));
        Ok(Steps {
            points: points.collect(),
            source: gathered.source,
            late_parts: gathered.late_parts,
        })
    }

    /// The store, if it must be asked: memory does not hold the span whole. None: memory is all there is.
    fn store(&self, from_ms: u64) -> Result<Option<Arc<dyn Store>>, ApiError> {
        let held_from_ms = self.site.held_from_ms(self.stream);
        if held_from_ms.is_some_and(|held_ms| held_ms <= from_ms) {
            return Ok(None);
        }
        if let Some(store) = self.site.store() {
            return Ok(Some(store));
        }
        if self.is_live() && from_ms >= self.site.live().begin_ms() {
            return Ok(None);
        }
        match self.site.store_away() {
            Some(why) => Err(ApiError::Unavailable(why)),
            None => Ok(None),
        }
    }

    /// Whether memory reaches back so far.
    fn in_horizon(&self, from_ms: u64) -> Result<(), ApiError> {
        if from_ms >= self.site.live().begin_ms() {
            return Ok(());
        }
        let longest_s = self.site.horizon_ms() / 1_000;
        Err(ApiError::NotFound(format!(
            "the span lies before the {longest_s} s that are kept in memory, and there is no store"
        )))
    }

    /// What memory can say when the store cannot.
    fn without<T>(
        &self,
        from_ms: u64,
        error: StoreError,
        from_memory: impl FnOnce() -> Option<T>,
    ) -> Result<T, ApiError> {
        let in_reach = from_ms >= self.site.live().begin_ms() && self.is_live();
        let answer = in_reach.then(from_memory).flatten();
        answer.ok_or_else(|| error.into())
    }

    /// Sums up the rows of a plan; and up to when nothing more should come.
    async fn gather(
        &self,
        store: &Arc<dyn Store>,
        plan: &Plan,
    ) -> Result<(Gathered, u64), StoreError> {
        // Before the lock is taken: it is not taken twice.
        let held_from_ms = self.site.held_from_ms(self.stream);
        let (newest, live_ms) = {
            let live = self.site.live();
            let newest = held_from_ms.map(|held_ms| {
                let from_ms = held_ms.max(plan.from_ms);
                (
                    held_ms,
                    rows_in_memory(&live, self.stream, from_ms, plan.to_ms),
                )
            });
            (newest, live.watermark_ms())
        };
        let stored_to_ms = self.stored_to_ms(store).await?;
        let split_ms = newest.as_ref().map_or(u64::MAX, |(held_ms, _)| *held_ms);
        let lookup = Lookup {
            stream: self.stream,
            store: Arc::clone(store),
            stored_to_ms,
            newest,
        };
        let gathered = lookup.gather(plan).await?;
        let settled_ms = match stored_to_ms >= split_ms {
            true => live_ms,
            false => stored_to_ms,
        };
        Ok((gathered, settled_ms))
    }

    /// Windows that end here or before are closed in the store, Unix ms; 0 if that is not known.
    async fn stored_to_ms(&self, store: &Arc<dyn Store>) -> Result<u64, StoreError> {
        let count = self.site.window_partitions().unwrap_or_default();
        let partition = partition_of(self.stream.as_bytes(), count);
        let progress = store.progress(topics::WINDOW).await?;
        let own = progress.iter().find(|one| Some(one.partition) == partition);
        Ok(own.map_or(0, |own| own.watermark_ms))
    }

    /// Whether memory has heard of the stream.
    fn is_live(&self) -> bool {
        let live = self.site.live();
        live.nodes().streams().contains(self.stream)
            || live.streams().any(|(name, _)| name == self.stream)
    }

    /// Whether the store has.
    async fn is_stored(&self, store: &Arc<dyn Store>) -> Result<(), ApiError> {
        let names = store.streams(0).await?;
        match names.iter().any(|name| name == self.stream) {
            true => Ok(()),
            false => Err(unknown()),
        }
    }
}

fn unknown() -> ApiError {
    ApiError::NotFound("no such stream".to_owned())
}
