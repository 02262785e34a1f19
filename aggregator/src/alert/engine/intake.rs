//! What comes in: pulses, heartbeats, streams that were not known.
//!
//! Input: events that were seen for the first time. Output: what each stream knows; suspicions are said at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use sampler_event::{LifeCycle, NodeHeartbeat, StreamPulse};

use super::stream::Stream;
use super::tracked::Tracked;
use super::{Engine, MAX_TRACKED};
use crate::alert::nodata::{NoData, Said as NodeSaid};
use crate::alert::rule::{Key, Rule, RuleMetric};
use crate::alert::suspect::{Design, StreamDetector};
use crate::input::partition_of;
use crate::merge::Live;

impl Engine {
    /// A window or pulse of a stream came from a partition.
    pub fn saw(&mut self, stream: &str, partition: i32) {
        if !self.seen.contains_key(stream) && self.seen.len() < crate::merge::MAX_STREAMS {
            self.seen.insert(stream.to_owned(), partition);
        }
    }

    /// A heartbeat that was not seen before.
    pub fn heartbeat(&mut self, heartbeat: &NodeHeartbeat) {
        self.changes.hear(heartbeat);
        let length_ms = u64::from(heartbeat.window_ms);
        let end_ms = heartbeat.window_start_ms.saturating_add(length_ms);
        let stopping = heartbeat.life_cycle() == LifeCycle::Stopping;
        let mut named = BTreeSet::new();
        for state in &heartbeat.streams {
            let said = match (stopping, state.silent) {
                (true, _) => NodeSaid::Leaves,
                (false, true) => NodeSaid::Silent,
                (false, false) => NodeSaid::Data,
            };
            named.insert(state.stream.as_str());
            if let Some(no_data) = self.expectation(&state.stream) {
                no_data.hear(&heartbeat.node, end_ms, said);
            }
        }
        // Streams that the node has configured no more.
        for (stream, no_data) in &mut self.no_data {
            if no_data.expects(&heartbeat.node) && !named.contains(stream.as_str()) {
                no_data.hear(&heartbeat.node, end_ms, NodeSaid::Leaves);
            }
        }
    }

    /// The nodes of a stream, if a rule asks for them.
    fn expectation(&mut self, stream: &str) -> Option<&mut NoData> {
        if !self.no_data.contains_key(stream) {
            let wanted = |rule: &&Arc<Rule>| rule.metric == RuleMetric::NoData;
            let asks = self.rules.iter().filter(wanted).any(|r| r.watches(stream));
            if !asks || self.no_data.len() >= crate::merge::MAX_STREAMS {
                return None;
            }
            self.no_data.insert(stream.to_owned(), NoData::default());
        }
        self.no_data.get_mut(stream)
    }

    /// A pulse that was not seen before.
    pub fn pulse(&mut self, pulse: &StreamPulse, partition: i32, live: &Live, now_ms: u64) {
        if !self.streams.contains_key(&pulse.stream) {
            self.saw(&pulse.stream, partition);
            self.add(&pulse.stream);
        }
        let held = self.held.get(&partition);
        let Some(live_now) = held.map(|held| held.reading.is_empty()) else {
            return;
        };
        let (streams, mut saying) = self.parts(live, now_ms);
        if let Some(stream) = streams.get_mut(&pulse.stream) {
            stream.pulse(pulse, live_now, &mut saying);
        }
    }

    /// All streams that are heard of.
    pub(super) fn discover(&mut self, live: &Live) {
        let mut names: BTreeSet<String> = BTreeSet::new();
        names.extend(live.nodes().streams().into_iter().map(str::to_owned));
        names.extend(live.streams().map(|(name, _)| name.to_owned()));
        names.extend(self.no_data.keys().cloned());
        for name in names {
            if !self.streams.contains_key(&name) {
                self.add(&name);
            }
        }
    }

    fn partition(&self, stream: &str) -> Option<i32> {
        let seen = self.seen.get(stream).copied();
        seen.or_else(|| partition_of(stream.as_bytes(), self.partitions?))
    }

    /// Adds a stream, if it is ours and a rule watches it.
    pub(super) fn add(&mut self, name: &str) {
        let Some(partition) = self.partition(name) else {
            return;
        };
        let Some(held) = self.held.get_mut(&partition).filter(|h| !h.superseded) else {
            return;
        };
        let watching: Vec<_> = self.rules.iter().filter(|r| r.watches(name)).collect();
        if watching.is_empty() {
            return;
        }
        let (site, epoch) = (&self.site, held.owner_epoch);
        let stream = self
            .streams
            .entry(name.to_owned())
            .or_insert_with(|| Stream::new(name.to_owned(), partition, epoch));
        if let Some(saved) = held.saved.remove(name) {
            stream.restore(saved);
        }
        if watching.iter().any(|rule| rule.fast) {
            stream
                .detector
                .get_or_insert_with(|| StreamDetector::new(Design::default()));
        }
        for rule in watching {
            let known = stream.tracked.get(&rule.name);
            if known.is_some_and(|known| !known.gives_way()) {
                continue;
            }
            if known.is_none() && self.tracked >= MAX_TRACKED {
                self.counts.crowded += 1;
                continue;
            }
            self.tracked += u64::from(known.is_none()) as usize;
            let key = Key {
                rule: rule.name.clone(),
                site: site.clone(),
                stream: name.to_owned(),
            };
            let mut tracked = Tracked::new(Arc::clone(rule), key, epoch);
            tracked.published_ms = known.and_then(|known| known.published_ms);
            stream.tracked.insert(rule.name.clone(), tracked);
        }
    }

    /// Streams of a partition that are there already get what they lack.
    pub(super) fn add_all(&mut self, partition: i32) {
        let of_partition = self
            .streams
            .iter()
            .filter(|(_, s)| s.partition == partition);
        let names: Vec<String> = of_partition.map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.add(name));
    }
}
