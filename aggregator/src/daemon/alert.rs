//! The alert role: readers, merged data, engine, words.
//!
//! Input: what the readers hand over, other rules, the end. Output: the site as it is now, and all that the engine has to say. One task: what is decided
//! follows the order in which events came. Nothing is judged before the state of a partition and its history are read; at the end,
//! what was learned is saved before the group is left.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sampler_event::Event;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::Site;
use super::sift::Partitions;
use super::state::StateTopic;
use super::unix_ms;
use crate::alert::engine::{Engine, Out};
use crate::alert::{Kind, Rule};
use crate::consume::{Committer, Consume, Input, Kafka, Partition, SettingsError, State};
use crate::input::Topic;
use crate::publish::Publisher;

/// Status, metrics, and what the time alone changes.
const TICK: Duration = Duration::from_secs(1);
/// Moments that may be complete are looked for at most so often.
const LOOK: Duration = Duration::from_millis(50);
/// Who was away for so long has not read what came meanwhile.
const AWAY: Duration = Duration::from_secs(3);
/// Until it has.
const BACK: Duration = Duration::from_secs(5);
/// Nothing is said until so long after: who took over meanwhile is heard of first.
const QUIET: Duration = Duration::from_secs(2);
/// How long the topics may take for the last records.
const FLUSH: Duration = Duration::from_secs(5);

/// What the role is made of.
pub(super) struct Parts {
    pub site: Arc<Site>,
    pub consume: Consume,
    pub inputs: mpsc::Receiver<Input>,
    pub engine: Engine,
    pub publisher: Publisher,
}

/// The role.
pub(super) struct AlertRole {
    site: Arc<Site>,
    consume: Consume,
    committer: Committer,
    inputs: mpsc::Receiver<Input>,
    partitions: Partitions,
    engine: Engine,
    publisher: Publisher,
    state: StateTopic,
    /// Partitions of heartbeats whose history is still being read; none: not assigned yet.
    nodes: Option<BTreeSet<i32>>,
    begin: Instant,
    looked: Instant,
    /// Something came since.
    news: bool,
    ticked: Instant,
    /// When the loop last came round.
    turned: Instant,
    /// Nothing is said before.
    quiet_until: Instant,
    /// Missing nodes are not judged before.
    not_before: Instant,
}

impl AlertRole {
    pub(super) fn new(parts: Parts, settings: &Kafka) -> Result<Self, SettingsError> {
        let now = Instant::now();
        Ok(Self {
            site: parts.site,
            committer: parts.consume.committer(),
            consume: parts.consume,
            inputs: parts.inputs,
            partitions: Partitions::default(),
            engine: parts.engine,
            publisher: parts.publisher,
            state: StateTopic::start(settings)?,
            nodes: None,
            begin: now,
            looked: now,
            news: false,
            ticked: now,
            turned: now,
            quiet_until: now,
            not_before: now,
        })
    }

    /// Runs until `stop`, which also ends it when its sender is gone.
    pub(super) async fn run(
        mut self,
        mut rules: mpsc::Receiver<Vec<Arc<Rule>>>,
        mut stop: oneshot::Receiver<()>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        let mut look = tokio::time::interval(LOOK);
        for interval in [&mut tick, &mut look] {
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some(input) => {
                        self.is_quiet();
                        self.take(input).await;
                        self.turned = Instant::now();
                    }
                    None => break,
                },
                (partition, key, value) = self.state.heard() => {
                    self.engine.hear_owner(partition, &key, &value);
                }
                Some(rules) = rules.recv() => {
                    self.site.reach(Engine::reach_ms(&rules));
                    self.engine.reload(rules, &self.site.live(), unix_ms());
                }
                _ = tick.tick() => self.tick(),
                _ = look.tick() => {
                    self.is_quiet();
                    self.look();
                }
                () = self.publisher.reported() => {
                    self.is_quiet();
                    self.publisher.tick();
                }
                _ = &mut stop => break,
            }
            if self.is_quiet() {
                continue;
            }
            self.publish();
        }
        self.end().await;
    }

    /// Whether nothing may be said: who was stopped for a while may have lost its partitions, and does not know it yet.
    fn is_quiet(&mut self) -> bool {
        let now = Instant::now();
        if now - self.turned > AWAY {
            tracing::warn!("was away for {} s", (now - self.turned).as_secs());
            self.quiet_until = now + QUIET;
            self.publisher.drop_words();
        }
        self.turned = now;
        now < self.quiet_until
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Assigned(assigned) => self.assigned(&assigned).await,
            Input::Revoked(revoked) => self.revoked(&revoked),
            Input::CaughtUp(partitions) => self.caught_up(&partitions),
            Input::Batch(batch) => {
                let ends: HashMap<Partition, i64> = batch
                    .iter()
                    .map(|arrival| ((arrival.topic, arrival.partition), arrival.offset + 1))
                    .collect();
                let now_ms = self.begin.elapsed().as_millis() as u64;
                let events = self.partitions.sift(batch, now_ms);
                self.hear(&events);
                self.site.take(events);
                self.news = true;
                if self.looked.elapsed() >= LOOK {
                    self.look();
                }
                // Nothing is read from there again, but lag is measured against it.
                for ((topic, partition), offset) in ends {
                    self.committer.commit(topic, partition, offset);
                }
            }
        }
    }

    /// Pulses are judged at once.
    fn hear(&mut self, events: &[(Event, i32, u64)]) {
        let live = self.site.live();
        let now_ms = unix_ms();
        for (event, partition, _) in events {
            match event {
                Event::Window(window) => self.engine.saw(&window.stream, *partition),
                Event::Pulse(pulse) => self.engine.pulse(pulse, *partition, &live, now_ms),
                Event::Node(heartbeat) => self.engine.heartbeat(heartbeat),
            }
        }
    }

    async fn assigned(&mut self, assigned: &[Partition]) {
        let windows = numbers(assigned, Topic::Window);
        self.site.forget(&windows);
        self.partitions.begin(assigned);
        tracing::info!("reads {}", in_words(assigned));
        let nodes = numbers(assigned, Topic::Node);
        if !nodes.is_empty() {
            self.nodes = Some(nodes.into_iter().collect());
        }
        if windows.is_empty() {
            return;
        }
        // What we have written ourselves is to be read too.
        tokio::task::block_in_place(|| self.publisher.flush(FLUSH));
        let kept = self.state.read(&windows).await;
        if let Some(trouble) = &self.state.trouble {
            tracing::warn!("alerts begin without what was known of them: {trouble}");
        }
        self.publisher.keep_state(self.state.trouble.is_none());
        if let Some(partitions) = self.state.partitions {
            self.engine.set_partitions(partitions);
        }
        let now_ms = unix_ms();
        for number in windows {
            let topics = assigned.iter().filter(|(_, of)| *of == number);
            let topics = topics.map(|(topic, _)| *topic);
            let kept = kept.get(&number).map_or(&[][..], Vec::as_slice);
            self.engine.assign(number, kept, topics, now_ms);
        }
    }

    fn revoked(&mut self, revoked: &[Partition]) {
        let windows = numbers(revoked, Topic::Window);
        windows
            .iter()
            .for_each(|number| self.engine.revoke(*number));
        self.site.forget(&windows);
        self.partitions.end(revoked);
        tracing::info!("reads no more: {}", in_words(revoked));
    }

    fn caught_up(&mut self, partitions: &[Partition]) {
        let live = self.site.live();
        for (topic, number) in partitions {
            match topic {
                Topic::Node => {
                    if let Some(nodes) = &mut self.nodes {
                        nodes.remove(number);
                    }
                }
                _ => self.engine.caught_up(*topic, *number, &live, unix_ms()),
            }
        }
    }

    /// Whether the heartbeats are read: without them nobody is expected.
    fn knows_nodes(&self) -> bool {
        self.nodes.as_ref().is_some_and(BTreeSet::is_empty)
    }

    fn look(&mut self) {
        if std::mem::take(&mut self.news) && self.knows_nodes() {
            self.looked = Instant::now();
            self.engine.evaluate(&self.site.live(), unix_ms());
        }
        self.publisher.tick();
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if now - self.ticked > AWAY {
            self.not_before = now + BACK;
        }
        self.ticked = now;
        let status = self.consume.status();
        let reads = [&status.streams, &status.nodes].map(|reader| reader.state == State::Ok);
        let consuming = reads == [true; 2] && self.knows_nodes() && now >= self.not_before;
        self.engine.tick(&self.site.live(), unix_ms(), consuming);
        self.site
            .note(status, self.partitions.totals(), self.partitions.missing());
        self.site.alerting().note(
            self.engine.counts(),
            self.engine.states(),
            self.publisher.status(),
            self.state.read,
            self.state.trouble.clone(),
        );
        self.site.tell_totals();
    }

    fn publish(&mut self) {
        for out in self.engine.take() {
            if let Out::Say(said) = &out {
                let notice = &said.record.notice;
                let late_ms = notice.said_ms.saturating_sub(notice.starts_at_ms);
                if matches!(notice.kind, Kind::Fired | Kind::Suspected) {
                    self.site.alerting().said(notice.kind, late_ms);
                }
            }
            self.publisher.publish(out);
        }
    }

    /// What was learned is saved, then the group is left.
    async fn end(mut self) {
        self.engine.save_all();
        self.publish();
        drop(self.inputs);
        let mut publisher = self.publisher;
        let consume = self.consume;
        let left = tokio::task::spawn_blocking(move || {
            let left = publisher.flush(FLUSH);
            consume.stop();
            left
        });
        match left.await {
            Ok(0) => {}
            Ok(left) => tracing::warn!("{left} records of alerts and states were not confirmed"),
            Err(error) => tracing::error!(%error, "while stopping"),
        }
    }
}

fn numbers(partitions: &[Partition], topic: Topic) -> Vec<i32> {
    let of_topic = partitions.iter().filter(|(of, _)| *of == topic);
    of_topic.map(|(_, partition)| *partition).collect()
}

/// "window 0, 1, 2; pulse 0".
fn in_words(partitions: &[Partition]) -> String {
    let of = |topic: Topic| {
        let mut numbers = numbers(partitions, topic);
        numbers.sort_unstable();
        let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        (!numbers.is_empty()).then(|| format!("{} {}", topic.name(), numbers.join(", ")))
    };
    let parts: Vec<_> = Topic::ALL.into_iter().filter_map(of).collect();
    parts.join("; ")
}
