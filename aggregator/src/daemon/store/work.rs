//! What is held between the reader and the store.
//!
//! Input: assignments and batches of events. Output: writes, each tried until the store takes it, then commits. Limits: the open
//! rows of the partitions that are held, and the rows of one write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sampler_event::Event;
use tokio::sync::watch;

use super::places::Found;
use super::storing::{Condition, Held, Storing};
use super::{CHECKPOINT, RETRY, WRITE};
use crate::consume::{self, Arrival, Committer};
use crate::daemon::unix_ms;
use crate::input::Topic;
use crate::merge::{AHEAD_MS, Nodes};
use crate::rollup::{Counts, Options, Partition};
use crate::store::{Batch, Checkpoint, Store, StoreError};

/// A partition without a window for so long is written as it is, without closing its rows.
const SILENCE: Duration = Duration::from_secs(3);
/// Without a window for so long, all that there was is read.
const IDLE: Duration = Duration::from_secs(2);
/// Old rows are dropped so often.
const SWEEP: Duration = Duration::from_secs(60);
/// The last write of a process that stops.
const LAST: Duration = Duration::from_secs(5);

struct Kept {
    rollup: Partition,
    /// When a window last came; none: it has been silent since what is open was written.
    heard: Option<Instant>,
}

pub(super) struct Work {
    store: Arc<dyn Store>,
    storing: Arc<Storing>,
    found: Found,
    committer: Committer,
    options: Options,
    partitions: BTreeMap<i32, Kept>,
    /// Taken from the partitions, and not in the store yet: no checkpoint may come before it.
    owed: Batch,
    nodes: Nodes,
    /// Of partitions that were given back.
    before: Counts,
    newest_ms: u64,
    checkpointed: Instant,
    swept: Instant,
    /// When windows last came.
    read: Instant,
}

impl Work {
    pub(super) fn new(
        store: Arc<dyn Store>,
        storing: Arc<Storing>,
        found: Found,
        committer: Committer,
        options: Options,
    ) -> Self {
        let now = Instant::now();
        Self {
            store,
            storing,
            found,
            committer,
            options,
            partitions: BTreeMap::new(),
            owed: Batch::default(),
            nodes: Nodes::default(),
            before: Counts::default(),
            newest_ms: 0,
            checkpointed: now,
            swept: now,
            read: now,
        }
    }

    /// Goes on with partitions where their checkpoints are; false: it is time to stop.
    pub(super) async fn assigned(
        &mut self,
        partitions: &[consume::Partition],
        stopped: &mut watch::Receiver<bool>,
    ) -> bool {
        let windows = partitions
            .iter()
            .filter(|(topic, _)| *topic == Topic::Window);
        for &(topic, number) in windows {
            let rollup = loop {
                match self.restore(topic, number).await {
                    Ok(rollup) => break rollup,
                    Err(error) => {
                        self.storing.turn(Condition::Paused(error.to_string()));
                        if pause(stopped).await {
                            return false;
                        }
                    }
                }
            };
            let kept = Kept {
                rollup,
                heard: None,
            };
            self.partitions.insert(number, kept);
        }
        self.storing.hold(self.partitions.keys().copied());
        self.storing.turn(Condition::Writing);
        true
    }

    async fn restore(&self, topic: Topic, number: i32) -> Result<Partition, StoreError> {
        let place = self.found.of(number);
        let place = place.ok_or_else(|| {
            StoreError::Unavailable(format!("partition {number} has no place to begin"))
        })?;
        let checkpoint = self.store.checkpoint(topic.name(), number).await?;
        place.partition((topic.name(), number), checkpoint.as_ref(), self.options)
    }

    /// Lets partitions go: their next owner goes on from the checkpoint, and writes over what this one still would.
    pub(super) fn revoked(&mut self, partitions: &[consume::Partition]) {
        for (topic, number) in partitions {
            if *topic == Topic::Window
                && let Some(kept) = self.partitions.remove(number)
            {
                self.before = sum(self.before, kept.rollup.counts());
            }
        }
        self.storing.hold(self.partitions.keys().copied());
    }

    /// Takes events in.
    pub(super) fn take(&mut self, batch: Vec<Arrival>) {
        let (now_ms, mut oldest_ms) = (unix_ms(), u64::MAX);
        for arrival in batch {
            match &arrival.event {
                Event::Window(window) => {
                    oldest_ms = oldest_ms.min(arrival.append_ms);
                    if let Some(kept) = self.partitions.get_mut(&arrival.partition) {
                        kept.rollup.take(window, arrival.offset, arrival.append_ms);
                        kept.heard = Some(Instant::now());
                    }
                }
                Event::Node(heartbeat) => {
                    self.nodes.hear(heartbeat);
                    let start_ms = heartbeat.window_start_ms;
                    let end_ms = start_ms.saturating_add(heartbeat.window_ms.into());
                    if end_ms <= arrival.append_ms.saturating_add(AHEAD_MS) {
                        self.newest_ms = self.newest_ms.max(end_ms);
                    }
                }
                Event::Pulse(_) => {}
            }
        }
        if oldest_ms < u64::MAX {
            self.read = Instant::now();
            self.storing.took(now_ms.saturating_sub(oldest_ms));
        }
    }

    /// Rows that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        let partitions = self.partitions.values();
        let waiting: usize = partitions.map(|kept| kept.rollup.waiting()).sum();
        self.owed.rows() + waiting
    }

    /// Writes what waits, however often it takes; false: it is time to stop.
    pub(super) async fn flush(&mut self, stopped: &mut watch::Receiver<bool>) -> bool {
        self.gather(self.checkpointed.elapsed() >= CHECKPOINT);
        while let Err(error) = self.write(WRITE).await {
            self.storing.failed();
            self.storing.turn(Condition::Paused(error.to_string()));
            if pause(stopped).await {
                return false;
            }
        }
        self.storing.turn(Condition::Writing);
        true
    }

    /// Takes rows from the partitions, and only then their checkpoints, so that these never say more.
    fn gather(&mut self, checkpoints: bool) {
        self.owed.checkpoints.clear();
        for kept in self.partitions.values_mut() {
            let presence = |stream: &str, end_ms| self.nodes.presence(stream, end_ms);
            let rows = kept.rollup.take_rows(presence);
            self.owed.seconds.extend(rows.seconds);
            self.owed.minutes.extend(rows.minutes);
            self.owed.node_minutes.extend(rows.node_minutes);
            if checkpoints {
                let known = kept.rollup.checkpoint();
                let known = known.filter(|known| known.position > 0);
                self.owed.checkpoints.extend(known);
            }
        }
    }

    /// Tries once; what was written is owed no more.
    async fn write(&mut self, patience: Duration) -> Result<(), StoreError> {
        if self.owed.is_empty() {
            return Ok(());
        }
        let begin = Instant::now();
        let written = tokio::time::timeout(patience, self.store.write(&self.owed)).await;
        written
            .unwrap_or_else(|_| Err(StoreError::Unavailable("it does not answer".to_owned())))?;
        let batch = std::mem::take(&mut self.owed);
        self.storing.wrote(&batch, begin.elapsed());
        if !batch.checkpoints.is_empty() {
            self.checkpointed = Instant::now();
        }
        for Checkpoint {
            partition, offset, ..
        } in batch.checkpoints
        {
            self.committer.commit(Topic::Window, partition, offset);
        }
        Ok(())
    }

    /// What is done now and then.
    pub(super) async fn look_around(&mut self, readers: consume::Status, forget_after_ms: u64) {
        for kept in self.partitions.values_mut() {
            if kept.heard.is_some_and(|heard| heard.elapsed() >= SILENCE) {
                kept.heard = None;
                kept.rollup.provisional();
            }
            self.newest_ms = self.newest_ms.max(kept.rollup.watermark_ms());
        }
        self.nodes
            .forget_before(self.newest_ms.saturating_sub(forget_after_ms));
        self.storing.note(readers, self.held());
        if self.read.elapsed() >= IDLE {
            // Nothing waits to be read.
            self.storing.took(0);
        }
        if self.swept.elapsed() >= SWEEP {
            self.swept = Instant::now();
            match self.store.sweep(unix_ms()).await {
                Ok(rows) => self.storing.swept(rows),
                Err(error) => tracing::warn!(%error, "store: old rows stay for now"),
            }
        }
    }

    fn held(&self) -> Held {
        let rollups = || self.partitions.values().map(|kept| &kept.rollup);
        let watermarks = self.partitions.iter();
        let watermarks = watermarks.map(|(number, kept)| (*number, kept.rollup.watermark_ms()));
        Held {
            counts: rollups().map(Partition::counts).fold(self.before, sum),
            missing: rollups().map(|rollup| rollup.sequences().1).sum(),
            given_up: rollups().map(|rollup| rollup.sequences().0.given_up).sum(),
            watermarks_ms: watermarks.filter(|(_, ms)| *ms > 0).collect(),
            open_rows: rollups().map(Partition::open_rows).sum(),
            newest_ms: self.newest_ms,
        }
    }

    /// Writes what waits once more; what the store does not take now is read again.
    pub(super) async fn last(&mut self) {
        self.gather(true);
        if let Err(error) = self.write(LAST).await {
            tracing::warn!(%error, "store: the last rows will be read again");
        }
    }
}

/// Waits before the next try; true: it is time to stop.
async fn pause(stopped: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(RETRY) => false,
        _ = stopped.changed() => true,
    }
}

fn sum(one: Counts, other: Counts) -> Counts {
    Counts {
        merged: one.merged + other.merged,
        late: one.late + other.late,
        duplicate: one.duplicate + other.duplicate,
        passed_over: one.passed_over + other.passed_over,
        crowded: one.crowded + other.crowded,
        again: one.again + other.again,
    }
}
