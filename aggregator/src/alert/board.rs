//! What was said of alerts by anybody: the alert topic as a table.
//!
//! Input: records of the alert topic, of all owners, in their order per key. Output: the newest record of each key, and the newest of each episode. Limits:
//! [`MAX_ALERTS`] keys, [`MAX_EPISODES`] episodes beside them, the oldest are forgotten; what finds no room or cannot be read is counted.

use std::collections::{BTreeMap, VecDeque};

use super::content::Record;
use super::episode::HOLDS_MS;

/// Keys that are kept.
pub const MAX_ALERTS: usize = 16_384;
/// Episodes that are kept after another one took their place.
pub const MAX_EPISODES: usize = 1_024;

/// The table.
#[derive(Debug, Default)]
pub struct Board {
    records: BTreeMap<String, Record>,
    /// Newest record of each episode, by key and id.
    episodes: BTreeMap<(String, String), Record>,
    order: VecDeque<(String, String)>,
    unreadable: u64,
    crowded: u64,
}

impl Board {
    /// Takes in a record; no value takes its key out. Returns the record, if it could be read.
    pub fn take(&mut self, key: &str, value: Option<&[u8]>) -> Option<&Record> {
        let Some(value) = value else {
            self.records.remove(key);
            return None;
        };
        let record: Option<Record> = serde_json::from_slice(value).ok();
        let Some(record) = record.filter(|record| record.key.to_string() == key) else {
            self.unreadable += 1;
            return None;
        };
        if !self.records.contains_key(key) && self.records.len() >= MAX_ALERTS {
            self.crowded += 1;
            return None;
        }
        // A former owner that did not hear of its successor says nothing that counts; unless the successor is heard no more: where
        // the state topic was lost, numbers begin again.
        let former = self.records.get(key).is_some_and(|known| {
            let (known, new) = (&known.notice, &record.notice);
            known.owner_epoch > new.owner_epoch
                && new.said_ms <= known.said_ms.saturating_add(HOLDS_MS)
        });
        if former {
            return None;
        }
        if let Some(id) = &record.notice.episode_id {
            let of = (key.to_owned(), id.clone());
            if self.episodes.insert(of.clone(), record.clone()).is_none() {
                self.order.push_back(of);
            }
            if self.order.len() > MAX_EPISODES
                && let Some(oldest) = self.order.pop_front()
            {
                self.episodes.remove(&oldest);
            }
        }
        self.records.insert(key.to_owned(), record);
        self.records.get(key)
    }

    /// The newest record of every key.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The newest record of an episode.
    #[must_use]
    pub fn episode(&self, key: &str, id: &str) -> Option<&Record> {
        self.episodes.get(&(key.to_owned(), id.to_owned()))
    }

    /// Records that could not be read, and those that found no room.
    #[must_use]
    pub const fn lost(&self) -> (u64, u64) {
        (self.unreadable, self.crowded)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(stream: &str, epoch: u64, state: &str, id: Option<&str>) -> Value {
        json!({
            "rule": "r", "site": "ams1", "stream": stream, "kind": "fired", "state": state,
            "owner_epoch": epoch, "episode_id": id, "said_ms": 5, "starts_at_ms": 1, "ends_at_ms": 9,
            "onset_ms": 1, "fired_by": "rule", "peak": null, "duration_ms": null, "ended": null,
            "labels": {}, "annotations": {},
        })
    }

    fn take(board: &mut Board, stream: &str, value: Option<&Value>) -> bool {
        let text = value.map(Value::to_string);
        let key = format!("r|ams1|{stream}");
        board
            .take(&key, text.as_deref().map(str::as_bytes))
            .is_some()
    }

    #[test]
    fn the_newest_of_the_latest_owner_stands() {
        let mut board = Board::default();
        assert!(take(
            &mut board,
            "s",
            Some(&record("s", 2, "firing", Some("a")))
        ));
        assert!(!take(
            &mut board,
            "s",
            Some(&record("s", 1, "ok", Some("a")))
        ));
        assert!(take(
            &mut board,
            "t",
            Some(&record("t", 1, "pending", None))
        ));
        let states: Vec<_> = board.records().map(|r| r.notice.state).collect();
        assert_eq!(
            states,
            [super::super::State::Firing, super::super::State::Pending]
        );
        assert!(board.episode("r|ams1|s", "a").is_some());
        assert!(board.episode("r|ams1|s", "b").is_none());
        take(&mut board, "s", None);
        assert_eq!(board.records().count(), 1);
        assert!(
            board.episode("r|ams1|s", "a").is_some(),
            "its last word is kept"
        );
    }

    #[test]
    fn junk_is_counted_and_episodes_are_bounded() {
        let mut board = Board::default();
        assert!(board.take("r|ams1|s", Some(b"\xff")).is_none());
        assert!(
            !take(&mut board, "s", Some(&record("t", 1, "ok", None))),
            "another key"
        );
        for number in 0..2 * MAX_EPISODES {
            let id = number.to_string();
            take(&mut board, "s", Some(&record("s", 1, "firing", Some(&id))));
        }
        assert_eq!((board.lost(), board.episodes.len()), ((2, 0), MAX_EPISODES));
    }
}
