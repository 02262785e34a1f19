//! The past played again: what rules would have said of events that are there already.
//!
//! Input: events, each seen for the first time, in the order in which the brokers took them, with partition and broker's time (Unix ms).
//! Output: what the engine of the daemon says of them ([`Heard`]), with the evidence of that moment; [`Episodes`] and suspicions made of it. The clock of the
//! engine is the broker's time: an event that came late comes late here too. Moments are looked for and time passes at the same
//! intervals as in the daemon. Pure, and the same input gives the same words. What no event shows is not played: a daemon that
//! was cut off from its brokers does not judge missing nodes, this one does.

mod episodes;

use std::collections::BTreeMap;
use std::sync::Arc;

use sampler_event::Event;

use crate::alert::engine::Out;
use crate::alert::evidence::Evidence;
use crate::alert::{Engine, Kind, Record, Rule};
use crate::config::Config;
use crate::merge::{Added, Live};

pub use self::episodes::{Episodes, Found, Suspected};

/// Moments that may be complete are looked for at most so often, ms.
const LOOK_MS: u64 = 50;
/// What the time alone changes is looked at so often, ms.
const TICK_MS: u64 = 1_000;

/// Something that was said, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// As the alert topic has it.
    pub record: Record,
    /// What was known; of what goes on only, the rest is in the record.
    pub evidence: Evidence,
}

/// What was taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Windows.
    pub windows: u64,
    /// Of them, those that came after they had been waited for.
    pub late: u64,
    /// Of them, those that were no use: before the horizon, against what is known of their node, or of too many streams.
    pub unused: u64,
    /// Pulses.
    pub pulses: u64,
    /// Heartbeats.
    pub heartbeats: u64,
}

/// A site, its engine, and their clock.
pub struct Replay {
    live: Live,
    engine: Engine,
    rules: BTreeMap<String, Arc<Rule>>,
    /// Time of day, Unix ms.
    now_ms: u64,
    tick_ms: u64,
    looked_ms: u64,
    /// When something came that was not looked at, Unix ms.
    news_ms: Option<u64>,
    counts: Counts,
    heard: Vec<Heard>,
}

impl Replay {
    /// Owns all partitions of the window topic, knows nothing yet, and begins at a moment.
    #[must_use]
    pub fn new(config: &Config, partitions: i32, begin_ms: u64) -> Self {
        let rules = config.rules();
        let by_name = rules
            .iter()
            .map(|rule| (rule.name.clone(), Arc::clone(rule)));
        let by_name = by_name.collect();
        let mut engine = Engine::new(config.site.as_str(), rules, config.engine_options());
        engine.set_partitions(partitions);
        for partition in 0..partitions {
            engine.assign(partition, &[], [], begin_ms);
        }
        Self {
            live: Live::new(config.live_options()),
            engine,
            rules: by_name,
            now_ms: begin_ms,
            tick_ms: begin_ms + TICK_MS,
            looked_ms: 0,
            news_ms: None,
            counts: Counts::default(),
            heard: Vec::new(),
        }
    }

    /// Takes in an event that a broker stamped with `append_ms`; one that is older than the clock comes now.
    pub fn take(&mut self, event: &Event, partition: i32, append_ms: u64) {
        // What has the same time is looked at together.
        self.pass(append_ms.saturating_sub(1));
        self.now_ms = self.now_ms.max(append_ms);
        match event {
            Event::Window(window) => {
                self.engine.saw(&window.stream, partition);
                self.counts.windows += 1;
                match self.live.add(window, append_ms) {
                    Added::Merged => {}
                    Added::Late => self.counts.late += 1,
                    Added::Expired | Added::Crowded | Added::Refused => self.counts.unused += 1,
                }
            }
            Event::Pulse(pulse) => {
                self.counts.pulses += 1;
                self.engine.pulse(pulse, partition, &self.live, self.now_ms);
                self.listen();
            }
            Event::Node(heartbeat) => {
                self.counts.heartbeats += 1;
                self.engine.heartbeat(heartbeat);
                self.live.hear(heartbeat, append_ms);
            }
        }
        self.news_ms.get_or_insert(self.now_ms);
    }

    /// The time passes, up to and with a moment.
    pub fn pass(&mut self, to_ms: u64) {
        loop {
            let look_ms = self
                .news_ms
                .map(|news_ms| news_ms.max(self.looked_ms + LOOK_MS));
            let due_ms = look_ms.unwrap_or(u64::MAX).min(self.tick_ms);
            if due_ms > to_ms {
                break;
            }
            self.now_ms = self.now_ms.max(due_ms);
            if look_ms == Some(due_ms) {
                self.news_ms = None;
                self.looked_ms = due_ms;
                self.live.expire();
                self.engine.evaluate(&self.live, self.now_ms);
                self.listen();
            }
            if self.tick_ms == due_ms {
                self.tick_ms += TICK_MS;
                self.engine.tick(&self.live, self.now_ms, true);
                self.listen();
            }
        }
        self.now_ms = self.now_ms.max(to_ms);
    }

    fn listen(&mut self) {
        for out in self.engine.take() {
            let Out::Say(said) = out else { continue };
            let record = said.record;
            let (stream, at_ms) = (&record.key.stream, record.evidence_to_ms);
            let goes_on = record.notice.kind == Kind::Fired;
            let rule = self.rules.get(&record.key.rule).filter(|_| goes_on);
            let evidence = rule.map_or_else(Evidence::default, |rule| {
                Evidence::gather(&self.live, rule, stream, at_ms, self.now_ms)
            });
            self.heard.push(Heard { record, evidence });
        }
    }

    /// What was said since the last time that somebody asked, in its order.
    #[must_use]
    pub fn heard(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.heard)
    }

    /// What was taken in.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The clock, Unix ms.
    #[must_use]
    pub const fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// What a rule sees of a stream now: its newest whole span.
    #[must_use]
    pub fn evidence(&self, rule: &Rule, stream: &str) -> Evidence {
        let at_ms = self.live.now_ms().min(self.now_ms) / 1_000 * 1_000;
        Evidence::gather(&self.live, rule, stream, at_ms, self.now_ms)
    }

    /// Nodes that are known.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.live.nodes().len()
    }
}
