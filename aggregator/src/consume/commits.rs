//! Offsets that the owner is done with, on their way to the reader's thread.
//!
//! Input: offsets, from any thread, as often as the owner likes. Output: the newest of each partition, when the reader asks.
//! Limits: one offset a partition.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Partition;
use crate::input::Topic;

/// The handle; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Committer {
    wanted: Arc<Mutex<BTreeMap<Partition, i64>>>,
}

impl Committer {
    /// Commits a partition up to an offset: the lowest one that is still needed. It goes out within a second, or when the
    /// partition is revoked; a newer one takes its place until then. For a partition of another member nothing happens.
    pub fn commit(&self, topic: Topic, partition: i32, offset: i64) {
        self.with(|wanted| wanted.insert((topic, partition), offset));
    }

    /// Takes what there is to commit.
    pub(super) fn take(&self) -> BTreeMap<Partition, i64> {
        self.with(std::mem::take)
    }

    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<Partition, i64>) -> T) -> T {
        change(&mut self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
