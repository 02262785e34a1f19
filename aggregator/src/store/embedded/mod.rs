//! The embedded store: files of this process in one directory.
//!
//! Input: rows. Output: rows of a span. Limits: one process a directory (a lock says who); every write is synced before it is
//! acknowledged. What an answer waits for happens in threads that may block. After an error of the disk the files are opened anew
//! at the next call; until that goes well every call says what is the matter.

mod engine;
mod keys;
mod lock;
mod values;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::engine::{Change, Engine};
use self::keys::{KeyBytes, Table, prefix, ranges};
use self::lock::Lock;
use super::{
    ALERTS_KEPT_MS, AlertRow, Batch, Checkpoint, EvidenceRow, Future, MINUTES_KEPT_MS,
    NODE_MINUTES_KEPT_MS, NodeRow, Progress, Row, SECONDS_KEPT_MS, Store, StoreError,
};

/// Keys dropped in one step of a sweep.
const SWEEP_STEP: usize = 10_000;

/// The store; clones are the same.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    engine: Mutex<Option<Arc<Engine>>>,
    /// Day of each stream's last row, as far as it was written by this process.
    stream_days: Mutex<HashMap<String, u64>>,
    _lock: Lock,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Embedded")
            .field(&self.inner.directory)
            .finish()
    }
}

impl Embedded {
    /// Opens the store of a directory, which is made if it is not there. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Held`] if another process has it, others if it cannot be made, read or written.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let lock = Lock::take(directory)?;
        let engine = Engine::open(directory)?;
        let inner = Inner {
            directory: directory.to_path_buf(),
            engine: Mutex::new(Some(Arc::new(engine))),
            stream_days: Mutex::default(),
            _lock: lock,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Does something in a thread that may block.
    fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Inner, &Engine) -> Result<T, StoreError> + Send + 'static,
    ) -> Future<'static, T> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || {
                let engine = inner.engine()?;
                let done = job(&inner, &engine);
                if matches!(done, Err(StoreError::Unavailable(_))) {
                    inner.drop_engine();
                }
                done
            });
            let done = done.await;
            done.map_err(|error| StoreError::Unavailable(error.to_string()))?
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn engine(&self) -> Result<Arc<Engine>, StoreError> {
        let mut engine = lock(&self.engine);
        if let Some(engine) = &*engine {
            return Ok(Arc::clone(engine));
        }
        let opened = Arc::new(Engine::open(&self.directory)?);
        *engine = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// After an error nothing is known of what the files' owner has in memory.
    fn drop_engine(&self) {
        *lock(&self.engine) = None;
    }

    /// Notes the streams whose day is a new one.
    fn note_streams<'a>(&self, rows: impl Iterator<Item = &'a Row>, changes: &mut Vec<Change>) {
        let mut days = lock(&self.stream_days);
        for row in rows {
            let day = row.window_start_ms / Table::Stream.bucket_ms();
            if days.get(&row.stream).is_none_or(|known| *known < day) {
                days.insert(row.stream.clone(), day);
                changes.push(Change::put_newer(
                    Table::Stream,
                    row.stream.clone().into_bytes(),
                    values::stream_value(day),
                ));
            }
        }
    }
}

/// The rows of a stream's span.
fn read_span<R>(
    engine: &Engine,
    table: Table,
    stream: &str,
    (from_ms, to_ms): (u64, u64),
    read: impl Fn(&[u8], &[u8]) -> Result<R, StoreError>,
) -> Result<Vec<R>, StoreError> {
    let mut rows = Vec::new();
    for range in ranges(table, stream, from_ms, to_ms) {
        engine.scan(table, range, |key, value| {
            rows.push(read(key, value)?);
            Ok(true)
        })?;
    }
    Ok(rows)
}

impl Store for Embedded {
    fn name(&self) -> String {
        format!("embedded {}", self.inner.directory.display())
    }

    fn write<'a>(&'a self, batch: &'a Batch) -> Future<'a, ()> {
        let mut changes = Vec::with_capacity(batch.rows() + 1);
        for (table, rows) in [
            (Table::Second, &batch.seconds),
            (Table::Minute, &batch.minutes),
        ] {
            let put = |row| {
                let (key, value) = (values::row_key(table, row), values::row_value(row));
                Change::put_newer(table, key, value)
            };
            changes.extend(rows.iter().map(put));
        }
        changes.extend(batch.node_minutes.iter().map(|row| {
            let (key, value) = (values::node_row_key(row), values::node_row_value(row));
            Change::put_newer(Table::NodeMinute, key, value)
        }));
        for checkpoint in &batch.checkpoints {
            changes.push(Change::put_newer(
                Table::Checkpoint,
                values::checkpoint_key(&checkpoint.topic, checkpoint.partition),
                values::checkpoint_value(checkpoint),
            ));
        }
        let rows = batch.seconds.iter().chain(&batch.minutes);
        self.inner.note_streams(rows, &mut changes);
        self.run(move |inner, engine| {
            let written = engine.write(changes);
            if written.is_err() {
                lock(&inner.stream_days).clear();
            }
            written
        })
    }

    fn seconds<'a>(&'a self, stream: &'a str, from_ms: u64, to_ms: u64) -> Future<'a, Vec<Row>> {
        self.rows(Table::Second, stream, from_ms, to_ms)
    }

    fn minutes<'a>(&'a self, stream: &'a str, from_ms: u64, to_ms: u64) -> Future<'a, Vec<Row>> {
        self.rows(Table::Minute, stream, from_ms, to_ms)
    }

    fn node_minutes<'a>(
        &'a self,
        stream: &'a str,
        from_ms: u64,
        to_ms: u64,
    ) -> Future<'a, Vec<NodeRow>> {
        let stream = stream.to_owned();
        self.run(move |_, engine| {
            let span = (from_ms, to_ms);
            read_span(
                engine,
                Table::NodeMinute,
                &stream,
                span,
                values::read_node_row,
            )
        })
    }

    fn streams(&self, since_ms: u64) -> Future<'_, Vec<String>> {
        self.run(move |_, engine| {
            let day = since_ms / Table::Stream.bucket_ms();
            let mut streams = Vec::new();
            engine.scan(Table::Stream, (Vec::new(), vec![u8::MAX]), |key, value| {
                if values::read_stream_day(value) >= day {
                    streams.push(String::from_utf8_lossy(key).into_owned());
                }
                Ok(true)
            })?;
            Ok(streams)
        })
    }

    fn checkpoint<'a>(&'a self, topic: &'a str, partition: i32) -> Future<'a, Option<Checkpoint>> {
        let key = values::checkpoint_key(topic, partition);
        self.run(move |_, engine| {
            let value = engine.get(Table::Checkpoint, &key)?;
            let read = |value: Vec<u8>| values::read_checkpoint(&key, &value);
            value.map(read).transpose()
        })
    }

    fn progress<'a>(&'a self, topic: &'a str) -> Future<'a, Vec<Progress>> {
        let range = prefix(KeyBytes::default().name(topic).done());
        self.run(move |_, engine| {
            let mut all = Vec::new();
            engine.scan(Table::Checkpoint, range, |key, value| {
                let checkpoint = values::read_checkpoint(key, value)?;
                all.push(Progress {
                    partition: checkpoint.partition,
                    position: checkpoint.position,
                    watermark_ms: checkpoint.watermark_ms,
                });
                Ok(true)
            })?;
            Ok(all)
        })
    }

    fn write_alerts<'a>(&'a self, rows: &'a [AlertRow]) -> Future<'a, ()> {
        let both = |row| {
            let value = values::alert_value(row);
            let by_time = (Table::AlertTime, values::alert_time_key(row), value.clone());
            [(Table::Alert, values::alert_key(row), value), by_time]
        };
        let changes = rows.iter().flat_map(both);
        let changes = changes.map(|(table, key, value)| Change::put(table, key, value));
        let changes = changes.collect();
        self.run(move |_, engine| engine.write(changes))
    }

    fn write_evidence<'a>(&'a self, rows: &'a [EvidenceRow]) -> Future<'a, ()> {
        let put = |row| {
            let key = values::evidence_key(row);
            Change::put(Table::Evidence, key, row.event.clone())
        };
        let changes = rows.iter().map(put).collect();
        self.run(move |_, engine| engine.write(changes))
    }

    fn alert<'a>(&'a self, key: &'a str, episode: &'a str) -> Future<'a, Vec<AlertRow>> {
        let range = prefix(KeyBytes::default().name(key).name(episode).done());
        self.run(move |_, engine| {
            let mut rows = Vec::new();
            engine.scan(Table::Alert, range, |_, value| {
                rows.push(values::read_alert(value)?);
                Ok(true)
            })?;
            Ok(rows)
        })
    }

    fn alerts(&self, from_ms: u64, to_ms: u64, limit: usize) -> Future<'_, Vec<AlertRow>> {
        let key = |moment_ms| KeyBytes::default().number(moment_ms).done();
        let range = (key(from_ms), key(to_ms));
        self.run(move |_, engine| {
            let mut rows = Vec::new();
            engine.scan_back(Table::AlertTime, range, |_, value| {
                if rows.len() < limit {
                    rows.push(values::read_alert(value)?);
                }
                Ok(rows.len() < limit)
            })?;
            Ok(rows)
        })
    }

    fn evidence<'a>(&'a self, key: &'a str, episode: &'a str) -> Future<'a, Vec<EvidenceRow>> {
        let range = prefix(KeyBytes::default().name(key).name(episode).done());
        self.run(move |_, engine| {
            let mut rows = Vec::new();
            engine.scan(Table::Evidence, range, |key, value| {
                rows.push(values::read_evidence(key, value)?);
                Ok(true)
            })?;
            Ok(rows)
        })
    }

    fn ping(&self) -> Future<'_, ()> {
        self.run(|_, engine| engine.get(Table::Checkpoint, &[]).map(drop))
    }

    fn sweep(&self, now_ms: u64) -> Future<'_, u64> {
        self.run(move |_, engine| sweep(engine, now_ms))
    }

    fn bytes(&self) -> Option<u64> {
        lock(&self.inner.engine)
            .as_ref()
            .map(|engine| engine.bytes())
    }
}

impl Embedded {
    fn rows(
        &self,
        table: Table,
        stream: &str,
        from_ms: u64,
        to_ms: u64,
    ) -> Future<'static, Vec<Row>> {
        let stream = stream.to_owned();
        self.run(move |_, engine| {
            let read = |key: &[u8], value: &[u8]| values::read_row(table, key, value);
            read_span(engine, table, &stream, (from_ms, to_ms), read)
        })
    }
}

/// Drops whole hours and days that are too old, and old alerts with their evidence.
fn sweep(engine: &Engine, now_ms: u64) -> Result<u64, StoreError> {
    let mut dropped = 0;
    for (table, kept_ms) in [
        (Table::Second, SECONDS_KEPT_MS),
        (Table::Minute, MINUTES_KEPT_MS),
        (Table::NodeMinute, NODE_MINUTES_KEPT_MS),
    ] {
        let end = KeyBytes::bucket(table, now_ms.saturating_sub(kept_ms)).done();
        dropped += drop_range(engine, table, (Vec::new(), end))?;
    }
    let cutoff_ms = now_ms.saturating_sub(ALERTS_KEPT_MS);
    let old = (Vec::new(), KeyBytes::default().number(cutoff_ms).done());
    let (mut episodes, mut changes) = (BTreeSet::new(), Vec::new());
    engine.scan(Table::AlertTime, old, |key, value| {
        let row = values::read_alert(value)?;
        changes.push(Change::remove(Table::AlertTime, key.to_vec()));
        changes.push(Change::remove(Table::Alert, values::alert_key(&row)));
        episodes.insert((row.key, row.episode));
        Ok(changes.len() < SWEEP_STEP)
    })?;
    for (key, episode) in episodes {
        let begin = KeyBytes::default().name(&key).name(&episode);
        let old = (begin.clone().done(), begin.number(cutoff_ms).done());
        dropped += drop_range(engine, Table::Evidence, old)?;
    }
    dropped += changes.len() as u64 / 2;
    engine.write(changes)?;
    Ok(dropped)
}

fn drop_range(
    engine: &Engine,
    table: Table,
    (from, to): (Vec<u8>, Vec<u8>),
) -> Result<u64, StoreError> {
    let mut dropped = 0;
    loop {
        let mut changes = Vec::new();
        engine.scan(table, (from.clone(), to.clone()), |key, _| {
            changes.push(Change::remove(table, key.to_vec()));
            Ok(changes.len() < SWEEP_STEP)
        })?;
        if changes.is_empty() {
            return Ok(dropped);
        }
        dropped += changes.len() as u64;
        engine.write(changes)?;
    }
}

#[cfg(test)]
mod tests;
