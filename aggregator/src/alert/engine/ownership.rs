//! Which partitions are ours, from when to when.
//!
//! Input: partitions that come and go, the records that former owners saved, words of later owners. Output: state that is restored, claimed
//! and saved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::saved::{Claim, Saved, SavedStream, ghost, stream_key};
use super::stream::Stream;
use super::tracked::Tracked;
use super::{Engine, Out};
use crate::alert::episode::Episode;
use crate::alert::rule::Key;
use crate::input::Topic;
use crate::merge::Live;

/// A partition that is owned.
pub(super) struct Held {
    pub owner_epoch: u64,
    /// Topics whose history is still being read.
    pub reading: BTreeSet<Topic>,
    /// A later owner was heard of.
    pub superseded: bool,
    /// What was read of streams that are not there yet.
    pub saved: BTreeMap<String, SavedStream>,
}

impl Engine {
    /// Partitions of the window topic are ours. `records` are those of the state topic's partitions of the same numbers, in their order;
    /// `topics` those whose history will be read now.
    pub fn assign(
        &mut self,
        partition: i32,
        records: &[(String, Vec<u8>)],
        topics: impl IntoIterator<Item = Topic>,
        now_ms: u64,
    ) {
        let mut newest: BTreeMap<&str, Saved> = BTreeMap::new();
        let mut owner_epoch = 0;
        for (key, value) in records {
            match Saved::read(&self.site, key, value) {
                Ok(None) => {}
                Err(_) => self.counts.state_unreadable += 1,
                Ok(Some(saved)) => {
                    owner_epoch = owner_epoch.max(saved.owner_epoch());
                    // What a former owner wrote last does not count.
                    let known = newest.get(key.as_str()).map(Saved::owner_epoch);
                    if known.is_none_or(|epoch| epoch <= saved.owner_epoch()) {
                        newest.insert(key, saved);
                    }
                }
            }
        }
        let owner_epoch = owner_epoch + 1;
        self.held.insert(
            partition,
            Held {
                owner_epoch,
                reading: topics.into_iter().collect(),
                superseded: false,
                saved: BTreeMap::new(),
            },
        );
        let claim = Claim { owner_epoch };
        if let Ok(value) = serde_json::to_string(&claim) {
            self.out.push(Out::Save {
                partition,
                key: stream_key(&self.site, ""),
                value: Some(value),
            });
        }
        for saved in newest.into_values() {
            self.restore(partition, owner_epoch, saved, now_ms);
        }
        self.add_all(partition);
    }

    fn restore(&mut self, partition: i32, owner_epoch: u64, saved: Saved, now_ms: u64) {
        match saved {
            Saved::Claim(_) => {}
            Saved::Stream(name, mut saved) => {
                if let Some(theirs) = saved.no_data.take() {
                    self.no_data.entry(name.clone()).or_default().merge(&theirs);
                }
                if let Some(held) = self.held.get_mut(&partition) {
                    held.saved.insert(name, *saved);
                }
            }
            Saved::Episode(saved) => {
                let key = saved.episode.key().clone();
                let restored = Episode::restore(saved.episode.clone(), owner_epoch, now_ms);
                let Ok(episode) = restored else { return };
                let rule = self.rules.iter().find(|rule| rule.name == key.rule);
                let rule =
                    rule.filter(|rule| rule.watches(&key.stream) && rule.metric == saved.metric);
                let gone = rule.is_none();
                let rule = rule.map_or_else(|| ghost(&key, &saved), Arc::clone);
                let tracked = Tracked::restored(rule, gone, episode, &saved, now_ms);
                self.seen.insert(key.stream.clone(), partition);
                let stream = self
                    .streams
                    .entry(key.stream.clone())
                    .or_insert_with(|| Stream::new(key.stream, partition, owner_epoch));
                stream.tracked.insert(key.rule, tracked);
            }
        }
    }

    /// The history of a topic's partition is read.
    pub fn caught_up(&mut self, topic: Topic, partition: i32, live: &Live, now_ms: u64) {
        self.discover(live);
        let Some(held) = self.held.get_mut(&partition) else {
            return;
        };
        if !held.reading.remove(&topic) || !held.reading.is_empty() {
            return;
        }
        let longest_ms = self
            .rules
            .iter()
            .map(|rule| rule.hold_ms)
            .max()
            .unwrap_or(0);
        let back_ms = longest_ms + self.options.lateness_ms + 1_000;
        let since_ms = live.now_ms().saturating_sub(back_ms) / 1_000 * 1_000;
        let no_data = std::mem::take(&mut self.no_data);
        let (streams, mut saying) = self.parts(live, now_ms);
        for (name, stream) in streams.iter_mut().filter(|(_, s)| s.partition == partition) {
            // Far enough back to prove again what has to hold.
            stream.evaluated_ms = stream.evaluated_ms.max(since_ms);
            stream.caught_up(no_data.get(name), &mut saying);
        }
        self.no_data = no_data;
        // A rule that took the place of one that is gone.
        self.add_all(partition);
    }

    /// Partitions are ours no more: what is known of them is saved, and not a word is said.
    pub fn revoke(&mut self, partition: i32) {
        let Some(held) = self.held.remove(&partition) else {
            return;
        };
        let of_partition = |_: &String, stream: &mut Stream| stream.partition == partition;
        self.out.retain(|out| !is_of(out, partition, &self.streams));
        for (name, stream) in self.streams.extract_if(.., of_partition) {
            if !held.superseded {
                stream.save(&self.site, self.no_data.get(&name), &mut self.out);
            }
        }
        self.seen.retain(|_, of| *of != partition);
        self.count_tracked();
    }

    /// Saves all that was learned: the end is near.
    pub fn save_all(&mut self) {
        for (name, stream) in &self.streams {
            stream.save(&self.site, self.no_data.get(name), &mut self.out);
        }
    }

    /// A record of the state topic, of whoever wrote it. If that is a later owner, we have lost the partition and fall silent.
    pub fn hear_owner(&mut self, partition: i32, key: &str, value: &[u8]) {
        let Some(held) = self.held.get_mut(&partition) else {
            return;
        };
        // Every kind of record has the number of its owner, and that is all that matters here.
        let ours = key.split('|').nth(1) == Some(&*self.site);
        let claim = serde_json::from_slice::<Claim>(value).ok().filter(|_| ours);
        let later = claim.is_some_and(|claim| claim.owner_epoch > held.owner_epoch);
        if later && !held.superseded {
            held.superseded = true;
            self.counts.superseded += 1;
            self.out.retain(|out| !is_of(out, partition, &self.streams));
            self.streams
                .retain(|_, stream| stream.partition != partition);
            self.count_tracked();
        }
    }

    pub(super) fn count_tracked(&mut self) {
        self.tracked = self.streams.values().map(|s| s.tracked.len()).sum();
    }
}

/// Whether something that waits to be done is about a partition.
fn is_of(out: &Out, partition: i32, streams: &BTreeMap<String, Stream>) -> bool {
    let of = |key: &Key| streams.get(&key.stream).map(|stream| stream.partition) == Some(partition);
    match out {
        Out::Say(said) => of(&said.record.key),
        Out::Forget(key) => of(key),
        Out::Save { partition: of, .. } => *of == partition,
    }
}
