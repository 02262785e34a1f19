//! All rules on all streams of the partitions that this aggregator owns.
//!
//! Input: events that were seen for the first time, the merged data after they were taken in, and the time. Output: [`Out`]s, in the
//! order in which they are to be done. Pure: no clock, no waiting.
//!
//! A rule looks at every whole second (or every common multiple of the nodes' windows) of its stream once, as early as the data allow:
//! when all expected nodes have reported it, or else when the watermark has passed it. Pulses go to the change detector at once; no slow
//! node is waited for there. A partition is owned from [`Engine::assign`] to [`Engine::revoke`]; nothing is judged before the history of
//! its topics is read ([`Engine::caught_up`]), and nothing is said any more once a later owner is heard of ([`Engine::hear_owner`]).
//! Limits: [`MAX_TRACKED`] pairs of rule and stream; those that find no room are counted.

mod saved;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sampler_event::{LifeCycle, NodeHeartbeat, StreamPulse};

use self::saved::{Claim, Saved, SavedStream, ghost, stream_key};
use self::stream::{Saying, Stream, Tracked};
use super::changes::{Changes, LOOK_BACK_MS};
use super::content::{Alert, Record};
use super::episode::{Episode, State};
use super::nodata::{NoData, Said as NodeSaid};
use super::rule::{Key, Rule, RuleMetric};
use super::suspect::{Design, StreamDetector};
use crate::input::{Topic, partition_of};
use crate::merge::Live;

/// Pairs of a rule and a stream.
pub const MAX_TRACKED: usize = 65_536;
/// What was learned is saved so often, ms.
const SAVE_EVERY_MS: u64 = 45_000;

/// How the engine works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Events of a window may arrive this long after its end, ms.
    pub lateness_ms: u64,
    /// A node that was silent for so long is missed no more, ms.
    pub node_forget_after_ms: u64,
    /// A record of what is over leaves the alert topic after so long, ms.
    pub tombstone_after_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lateness_ms: 2_000,
            node_forget_after_ms: 900_000,
            tombstone_after_ms: 24 * 3_600_000,
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Out {
    /// To be said to everybody.
    Say(Box<Said>),
    /// To be taken out of the alert topic.
    Forget(Key),
    /// To be put into the state topic; no value: taken out of it.
    Save {
        /// Partition of the state topic: the one of the stream's windows.
        partition: i32,
        /// Key of the record.
        key: String,
        /// JSON.
        value: Option<String>,
    },
}

/// Something that is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// For the alert topic.
    pub record: Record,
    /// For Alertmanager, if it is to hear of it.
    pub alert: Option<Alert>,
}

/// What was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Observations that a rule has judged.
    pub evaluations: u64,
    /// Suspicions that began.
    pub suspects: u64,
    /// Records of the state topic that could not be read.
    pub state_unreadable: u64,
    /// Partitions lost to a later owner.
    pub superseded: u64,
    /// Pairs of a rule and a stream that found no room.
    pub crowded: u64,
}

/// How many pairs of rule and stream are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States {
    /// Nothing is on.
    pub ok: u64,
    /// Above the threshold, not for long enough.
    pub pending: u64,
    /// On.
    pub firing: u64,
    /// On, and falling.
    pub resolving: u64,
    /// Suspected, beside whatever the rule says.
    pub suspect: u64,
}

/// A partition that is owned.
struct Held {
    owner_epoch: u64,
    /// Topics whose history is still being read.
    reading: BTreeSet<Topic>,
    /// A later owner was heard of.
    superseded: bool,
    /// What was read of streams that are not there yet.
    saved: BTreeMap<String, SavedStream>,
}

/// The engine.
pub struct Engine {
    site: String,
    options: Options,
    rules: Vec<Arc<Rule>>,
    /// Partitions of the window topic; none: not known.
    partitions: Option<i32>,
    held: BTreeMap<i32, Held>,
    /// Partition of streams whose windows or pulses came.
    seen: BTreeMap<String, i32>,
    streams: BTreeMap<String, Stream>,
    no_data: BTreeMap<String, NoData>,
    changes: Changes,
    tracked: usize,
    counts: Counts,
    out: Vec<Out>,
}

impl Engine {
    /// Owns nothing yet.
    #[must_use]
    pub fn new(site: impl Into<String>, rules: Vec<Arc<Rule>>, options: Options) -> Self {
        Self {
            site: site.into(),
            options,
            rules,
            partitions: None,
            held: BTreeMap::new(),
            seen: BTreeMap::new(),
            streams: BTreeMap::new(),
            no_data: BTreeMap::new(),
            changes: Changes::default(),
            tracked: 0,
            counts: Counts::default(),
            out: Vec::new(),
        }
    }

    /// How many partitions the window topic has: who owns a stream follows from it, also while no window comes.
    pub const fn set_partitions(&mut self, partitions: i32) {
        self.partitions = Some(partitions);
    }

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

    /// Streams of a partition that are there already get what they lack.
    fn add_all(&mut self, partition: i32) {
        let of_partition = self
            .streams
            .iter()
            .filter(|(_, s)| s.partition == partition);
        let names: Vec<String> = of_partition.map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.add(name));
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
        let (streams, mut saying) = self.parts(live, now_ms);
        for stream in streams.values_mut().filter(|s| s.partition == partition) {
            // Far enough back to prove again what has to hold.
            stream.evaluated_ms = stream.evaluated_ms.max(since_ms);
            stream.caught_up(&mut saying);
        }
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

    fn parts<'a>(
        &'a mut self,
        live: &'a Live,
        now_ms: u64,
    ) -> (&'a mut BTreeMap<String, Stream>, Saying<'a>) {
        let saying = Saying {
            live,
            changes: &self.changes,
            now_ms,
            tombstone_after_ms: self.options.tombstone_after_ms,
            out: &mut self.out,
        };
        (&mut self.streams, saying)
    }

    /// All streams that are heard of.
    fn discover(&mut self, live: &Live) {
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
    fn add(&mut self, name: &str) {
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

    fn count_tracked(&mut self) {
        self.tracked = self.streams.values().map(|s| s.tracked.len()).sum();
    }

    /// Looks at every moment that is complete, or waited for long enough. To be called when windows or heartbeats were taken in.
    pub fn evaluate(&mut self, live: &Live, now_ms: u64) {
        let ready = |held: &Held| held.reading.is_empty() && !held.superseded;
        let ours: BTreeSet<i32> = self
            .held
            .iter()
            .filter(|(_, held)| ready(held))
            .map(|(partition, _)| *partition)
            .collect();
        let mut evaluations = 0;
        let (streams, mut saying) = self.parts(live, now_ms);
        for stream in streams.values_mut().filter(|s| ours.contains(&s.partition)) {
            evaluations += look_at_all(stream, live, &mut saying);
        }
        self.counts.evaluations += evaluations;
    }

    /// The time passes; to be called about once a second. `consuming` says whether this aggregator is connected and has read what there is: one
    /// that is cut off does not know who is missing.
    pub fn tick(&mut self, live: &Live, now_ms: u64, consuming: bool) {
        let forget_ms = now_ms.saturating_sub(self.options.node_forget_after_ms);
        self.no_data
            .values_mut()
            .for_each(|n| n.forget_before(forget_ms));
        self.no_data.retain(|_, no_data| no_data.expected() > 0);
        self.changes
            .forget_before(now_ms.saturating_sub(LOOK_BACK_MS));
        self.discover(live);
        let at_ms = now_ms.saturating_sub(self.options.lateness_ms) / 1_000 * 1_000;
        let no_data = std::mem::take(&mut self.no_data);
        let reading: BTreeSet<i32> = self
            .held
            .iter()
            .filter(|(_, held)| !held.reading.is_empty())
            .map(|(partition, _)| *partition)
            .collect();
        let site = self.site.clone();
        let (streams, mut saying) = self.parts(live, now_ms);
        for (name, stream) in streams {
            if reading.contains(&stream.partition) {
                continue;
            }
            let nodes = no_data.get(name);
            if let Some(nodes) = nodes {
                stream.look_for_nodes(nodes, at_ms, consuming, &mut saying);
            }
            stream.tick(nodes, &mut saying);
            if now_ms >= stream.save_at_ms {
                let first = stream.save_at_ms == 0;
                stream.save_at_ms = now_ms.saturating_add(SAVE_EVERY_MS);
                if !first {
                    stream.save(&site, nodes, saying.out);
                }
            }
        }
        self.no_data = no_data;
        self.count_tracked();
    }

    /// Other rules are in force. Episodes of those that are gone end.
    pub fn reload(&mut self, rules: Vec<Arc<Rule>>, live: &Live, now_ms: u64) {
        self.rules = rules;
        let by_name: BTreeMap<String, Arc<Rule>> = self
            .rules
            .iter()
            .map(|rule| (rule.name.clone(), Arc::clone(rule)))
            .collect();
        let (streams, mut saying) = self.parts(live, now_ms);
        for (name, stream) in streams.iter_mut() {
            let known: Vec<String> = stream.tracked.keys().cloned().collect();
            for rule_name in known {
                let rule = by_name.get(&rule_name).filter(|rule| rule.watches(name));
                let tracked = stream.tracked.get_mut(&rule_name);
                match (rule, tracked) {
                    (Some(rule), Some(tracked)) if rule.metric == tracked.rule.metric => {
                        tracked.rule = Arc::clone(rule);
                        tracked.gone = false;
                    }
                    _ => stream.close(&rule_name, &mut saying),
                }
            }
            if !stream.tracked.values().any(|t| t.rule.fast && !t.gone) {
                stream.detector = None;
            }
        }
        let names: Vec<String> = self.streams.keys().cloned().collect();
        names.iter().for_each(|name| self.add(name));
        self.discover(live);
    }

    /// What is to be done by now.
    #[must_use]
    pub fn take(&mut self) -> Vec<Out> {
        for out in &self.out {
            if let Out::Say(said) = out
                && said.record.notice.kind == super::Kind::Suspected
            {
                self.counts.suspects += 1;
            }
        }
        std::mem::take(&mut self.out)
    }

    /// What was done since the start.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// How many pairs of rule and stream are in each state.
    #[must_use]
    pub fn states(&self) -> States {
        let mut states = States::default();
        let all = self.streams.values().flat_map(|s| s.tracked.values());
        for tracked in all {
            match tracked.episode.state() {
                State::Pending => states.pending += 1,
                State::Firing => states.firing += 1,
                State::Resolving => states.resolving += 1,
                State::Ok | State::Suspect => states.ok += 1,
            }
            states.suspect += u64::from(tracked.suspect.is_some());
        }
        states
    }

    /// The longest span that a rule looks back, with the one before it, ms.
    #[must_use]
    pub fn reach_ms(rules: &[Arc<Rule>]) -> u64 {
        let reach_ms = rules.iter().map(|rule| 2 * rule.over_ms() + rule.hold_ms);
        reach_ms.max().unwrap_or(0)
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

/// Looks at every moment of a stream that is due; how many observations that were.
fn look_at_all(stream: &mut Stream, live: &Live, saying: &mut Saying<'_>) -> u64 {
    let nodes = live.nodes();
    let newest_ms = live.now_ms();
    if stream.evaluated_ms == 0 {
        // New here: what was before is not judged.
        stream.evaluated_ms = live.watermark_ms() / 1_000 * 1_000;
    }
    if newest_ms < stream.evaluated_ms + 1_000 {
        return 0;
    }
    let step_ms = nodes.step_ms(&stream.name).unwrap_or(1_000);
    let mut looked = 0;
    loop {
        let at_ms = (stream.evaluated_ms / step_ms + 1) * step_ms;
        if at_ms > newest_ms {
            return looked;
        }
        let presence = nodes.presence(&stream.name, at_ms);
        let whole = presence.expected > 0 && presence.reported == presence.expected;
        if !whole && at_ms > live.watermark_ms() {
            return looked;
        }
        looked += stream.look(at_ms, presence, saying);
    }
}
