//! Where the store's reading begins.
//!
//! Input: what there is of partitions, and the store's checkpoints. Output: an offset each: the checkpoint's, else what the group
//! committed, else the start of the log. Limits: the store gets [`TIMEOUT`] to answer for all of them; nothing is guessed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::consume::{Extent, Places};
use crate::rollup::{Begin, Options, Partition};
use crate::store::{Checkpoint, Store, StoreError};

/// How long the store may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where reading of a partition began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    offset: i64,
    /// The checkpoint is of another log: that of a topic which was since made anew.
    ignore: bool,
}

impl Place {
    /// Of a partition and its checkpoint.
    fn of(extent: &Extent, checkpoint: Option<&Checkpoint>) -> Self {
        let (low, high) = (extent.low, extent.high);
        let ours = checkpoint.filter(|known| known.offset <= high);
        let committed = extent.committed.filter(|offset| *offset <= high);
        let wanted = ours.map(|known| known.offset).or(committed);
        Self {
            offset: wanted.unwrap_or(low).max(low),
            ignore: checkpoint.is_some() && ours.is_none(),
        }
    }

    /// The partition as it is there. The checkpoint may be a newer one than the place was found with: what lies before its offset
    /// is known to be in rows.
    pub(super) fn partition(
        self,
        (topic, number): (&str, i32),
        checkpoint: Option<&Checkpoint>,
        options: Options,
    ) -> Result<Partition, StoreError> {
        let begin = |whole| match whole {
            true => Begin::Log,
            false => Begin::Middle,
        };
        match checkpoint.filter(|_| !self.ignore) {
            Some(known) => Partition::restore(known, begin(self.offset <= known.offset), options),
            None => Ok(Partition::new(
                topic,
                number,
                begin(self.offset == 0),
                options,
            )),
        }
    }
}

/// Places of partitions, shared by the reader's thread and the role.
#[derive(Clone, Debug, Default)]
pub(super) struct Found(Arc<Mutex<BTreeMap<i32, Place>>>);

impl Found {
    /// Where a partition's reading began.
    pub(super) fn of(&self, partition: i32) -> Option<Place> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(&partition).copied()
    }
}

/// Asks the store.
pub(super) struct Ask {
    pub(super) store: Arc<dyn Store>,
    pub(super) found: Found,
    pub(super) runtime: Handle,
}

impl Ask {
    async fn all(&self, of: &[Extent]) -> Result<Vec<Place>, StoreError> {
        let mut places = Vec::with_capacity(of.len());
        for extent in of {
            let (topic, number) = extent.partition;
            let checkpoint = self.store.checkpoint(topic.name(), number).await?;
            places.push(Place::of(extent, checkpoint.as_ref()));
        }
        Ok(places)
    }
}

impl Places for Ask {
    fn places(&mut self, of: &[Extent]) -> Result<Vec<i64>, String> {
        let asked = async { tokio::time::timeout(TIMEOUT, self.all(of)).await };
        let places = match self.runtime.block_on(asked) {
            Ok(places) => places.map_err(|error| error.to_string())?,
            Err(_) => return Err("the store does not answer".to_owned()),
        };
        let mut found = self.found.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (extent, place) in of.iter().zip(&places) {
            let number = extent.partition.1;
            if place.ignore {
                tracing::warn!(
                    partition = number,
                    "the checkpoint is of another log: reading begins with what is there"
                );
            }
            found.insert(number, *place);
        }
        Ok(places.into_iter().map(|place| place.offset).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Topic;

    fn check(checkpoint: Option<i64>, committed: Option<i64>, expected: (i64, bool)) {
        let extent = Extent {
            partition: (Topic::Window, 3),
            low: 100,
            high: 200,
            committed,
        };
        let checkpoint = checkpoint.map(|offset| Checkpoint {
            offset,
            position: offset + 5,
            ..Checkpoint::default()
        });
        let place = Place::of(&extent, checkpoint.as_ref());
        assert_eq!((place.offset, place.ignore), expected);
    }

    #[test]
    fn checkpoint_then_commit_then_log() {
        check(Some(150), Some(170), (150, false));
        check(None, Some(170), (170, false));
        check(None, None, (100, false));
        // Gone, or of another log.
        check(Some(50), None, (100, false));
        check(None, Some(50), (100, false));
        check(Some(201), None, (100, true));
        check(Some(201), Some(120), (120, true));
        check(None, Some(201), (100, false));
    }
}
