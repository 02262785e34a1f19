//! fjall, as the embedded store uses it.
//!
//! Input: keys and values per table. Output: the same, in the order of the keys. A write is one batch, whole or not at all, on the
//! disk when it returns. Limits: some 16 MiB of cache, [`MEMTABLE_BYTES`] a table in memory, 64 MiB of journal.
//!
//! Why fjall and not redb, measured with our row shapes (`benches stores`: 200 streams of a site of 100 nodes, 600 batches, each
//! synced; a loaded machine with 2 cores): 190 MB of rows take 159 MB on the disk instead of 240, for which 581 MB are written
//! instead of 1902; a row of a span is read in 3.1 µs instead of 7.8. (redb with keys that begin with the time writes 354 MB, but
//! then reads 47 µs a row.) redb needs half the memory (28 MB instead of 63) and opens in 12 ms instead of 0.4 s. Rows of 48 hours
//! are what matters here: compressed and given back to the disk when they are swept. Both keep every acknowledged batch over
//! kill -9, are MIT or Apache-2.0, and ask for Rust 1.90.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::keys::Table;
use super::values;
use crate::store::StoreError;

/// A table's newest rows that lie in memory.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// Blocks of the files kept in memory.
const CACHE_BYTES: u64 = 16 << 20;
/// The least that fjall takes.
const JOURNAL_BYTES: u64 = 64 << 20;

/// One change of a batch.
#[derive(Debug)]
pub(super) struct Change {
    table: Table,
    key: Vec<u8>,
    /// None: the key goes.
    value: Option<Vec<u8>>,
    /// Only if what is there has no greater version.
    versioned: bool,
}

impl Change {
    pub(super) fn put(table: Table, key: Vec<u8>, value: Vec<u8>) -> Self {
        Self {
            table,
            key,
            value: Some(value),
            versioned: false,
        }
    }

    pub(super) fn put_newer(table: Table, key: Vec<u8>, value: Vec<u8>) -> Self {
        Self {
            versioned: true,
            ..Self::put(table, key, value)
        }
    }

    pub(super) fn remove(table: Table, key: Vec<u8>) -> Self {
        Self {
            table,
            key,
            value: None,
            versioned: false,
        }
    }
}

/// The open files.
pub(super) struct Engine {
    database: Database,
    tables: Vec<Keyspace>,
}

fn failed(error: fjall::Error) -> StoreError {
    StoreError::Unavailable(match error {
        fjall::Error::Storage(error) => error.to_string(),
        fjall::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    })
}

impl Engine {
    /// Opens the files of a directory, which nobody else has open.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let database = Database::builder(directory.join("rows"))
            .cache_size(CACHE_BYTES)
            .worker_threads(1)
            .max_journaling_size(JOURNAL_BYTES)
            .open()
            .map_err(failed)?;
        let table = |table: Table| {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
            database.keyspace(table.name(), options).map_err(failed)
        };
        let tables = Table::ALL
            .into_iter()
            .map(table)
            .collect::<Result<_, _>>()?;
        Ok(Self { database, tables })
    }

    fn table(&self, table: Table) -> &Keyspace {
        &self.tables[table as usize]
    }

    /// Writes all changes, or none.
    pub(super) fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for change in changes {
            let table = self.table(change.table);
            let Some(value) = change.value else {
                batch.remove(table, change.key);
                continue;
            };
            if change.versioned {
                let known = table.get(&change.key).map_err(failed)?;
                let known = known.map_or(0, |known| values::version_us(&known));
                if known > values::version_us(&value) {
                    continue;
                }
            }
            batch.insert(table, change.key, value);
        }
        batch.commit().map_err(failed)
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.table(table).get(key).map_err(failed)?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Shows the rows of a half-open range until one is answered with false.
    pub(super) fn scan(
        &self,
        table: Table,
        (from, to): (Vec<u8>, Vec<u8>),
        visit: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        show(self.table(table).range(from..to), visit)
    }

    /// As [`Self::scan`], the last row first.
    pub(super) fn scan_back(
        &self,
        table: Table,
        (from, to): (Vec<u8>, Vec<u8>),
        visit: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        show(self.table(table).range(from..to).rev(), visit)
    }

    /// Bytes on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }
}

fn show(
    rows: impl Iterator<Item = fjall::Guard>,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    for row in rows {
        let (key, value) = row.into_inner().map_err(failed)?;
        if !visit(&key, &value)? {
            break;
        }
    }
    Ok(())
}
