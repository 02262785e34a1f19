//! What the aggregator knows of its site, shared by the task that takes events in and those that answer questions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use sampler_event::{Event, Options};
use serde::Serialize;
use service::metrics::{Family, Kind, Sample, Value};

use super::alerting::Alerting;
use super::board::Boards;
use super::store::{Condition, Storing};
use super::unix_ms;
use crate::consume::{State, Status};
use crate::input::{Reason, Topic, Totals};
use crate::merge::{AHEAD_MS, Added, Live, LiveOptions, Quantity};
use crate::store::Store;

/// Without an event for so long, events do not flow: a heartbeat comes with every window, and the longest window has 10 s.
const SILENCE: Duration = Duration::from_secs(30);

/// Counts since the start, by name and reason.
#[derive(Clone, Debug, Default)]
struct Counts {
    windows: BTreeMap<&'static str, u64>,
    pulses: u64,
    heartbeats: u64,
    last_event: Option<Instant>,
    /// Partition of each stream, by the windows that came.
    partitions: BTreeMap<String, i32>,
    /// When the first window of each partition was appended that this process has read, Unix ms.
    first_append_ms: BTreeMap<i32, u64>,
    readers: Status,
    sequences: Totals,
    missing: u64,
    /// When the role last noted how it is doing.
    noted: Option<Instant>,
}

/// The site.
#[derive(Debug)]
pub struct Site {
    name: String,
    live: RwLock<Live>,
    counts: Mutex<Counts>,
    alerting: Alerting,
    boards: Boards,
    started: Instant,
    /// The store, where this process has that role.
    storing: Option<Arc<Storing>>,
    /// A store that this process may read, whoever writes it.
    shared: Option<Arc<dyn Store>>,
    /// How many partitions the topic of windows has.
    window_partitions: OnceLock<i32>,
    /// Whether this process merges what is live.
    merges: bool,
}

/// What listeners hear once a second.
#[derive(Debug, Serialize)]
struct Totals10s<'a> {
    site: &'a str,
    now_ms: u64,
    over_s: u64,
    streams: Vec<Total10s<'a>>,
}

#[derive(Debug, Serialize)]
struct Total10s<'a> {
    stream: &'a str,
    retrans_segs: Option<f64>,
    retrans_ratio: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    nodes_expected: u64,
    nodes_reported: u64,
}

impl Site {
    /// Knows nothing yet.
    pub fn new(name: impl Into<String>, options: LiveOptions) -> Self {
        Self {
            name: name.into(),
            live: RwLock::new(Live::new(options)),
            counts: Mutex::default(),
            alerting: Alerting::default(),
            boards: Boards::default(),
            started: Instant::now(),
            storing: None,
            shared: None,
            window_partitions: OnceLock::new(),
            merges: true,
        }
    }

    /// With a store beside what is live, or alone.
    #[must_use]
    pub fn with_roles(self, merges: bool, storing: Option<Arc<Storing>>) -> Self {
        Self {
            merges,
            storing,
            ..self
        }
    }

    /// With listeners that hear for so long.
    #[must_use]
    pub fn listened(self, listened: Duration) -> Self {
        Self {
            boards: self.boards.listened(listened),
            ..self
        }
    }

    /// With a store that is read, whoever writes it.
    #[must_use]
    pub fn with_store(self, shared: Option<Arc<dyn Store>>) -> Self {
        Self { shared, ..self }
    }

    /// The store, if it can be asked here.
    pub fn store(&self) -> Option<Arc<dyn Store>> {
        let shared = self.shared.clone();
        shared.or_else(|| self.storing()?.store())
    }

    /// Why there is no store to ask, although one is configured.
    pub fn store_away(&self) -> Option<String> {
        let storing = self.storing()?;
        storing.store().is_none().then(|| storing.summary())
    }

    /// How many partitions the topic of windows has, as soon as that is known.
    pub fn window_partitions(&self) -> Option<i32> {
        self.window_partitions.get().copied()
    }

    /// Notes how many partitions the topic of windows has; that never changes.
    pub fn note_window_partitions(&self, count: i32) {
        // Who says it again says the same.
        let _ = self.window_partitions.set(count);
    }

    /// Windows of a stream that start at this moment or later are all in memory, as far as they have come, Unix ms. None: its
    /// windows are not merged here, or none has come yet.
    pub fn held_from_ms(&self, stream: &str) -> Option<u64> {
        let begin_ms = self.live().begin_ms();
        let counts = self.counts();
        let partition = counts.partitions.get(stream)?;
        let first_ms = counts.first_append_ms.get(partition)?;
        // A window that starts after the first record was appended comes after it.
        Some(begin_ms.max(first_ms.saturating_add(AHEAD_MS)))
    }

    /// How the store is doing, where this process has that role.
    pub fn storing(&self) -> Option<&Storing> {
        self.storing.as_deref()
    }

    /// Whether this process merges what is live.
    pub const fn merges(&self) -> bool {
        self.merges
    }

    /// The site's time, whichever role knows it: end of the newest event, Unix ms.
    pub fn now_ms(&self) -> u64 {
        let stored_ms = self.storing().map_or(0, Storing::newest_ms);
        self.live().now_ms().max(stored_ms)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How far back questions can reach.
    pub fn horizon_ms(&self) -> u64 {
        self.live().horizon_ms()
    }

    /// Questions reach back so far from now on, or further; what was forgotten stays so.
    pub fn reach(&self, horizon_ms: u64) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.reach(horizon_ms);
    }

    /// How alerting is doing.
    pub fn alerting(&self) -> &Alerting {
        &self.alerting
    }

    /// What was said of alerts, and who listens.
    pub fn boards(&self) -> &Boards {
        &self.boards
    }

    /// Tells listeners what all streams of this member did in the last ten seconds; nothing is reckoned if there are none.
    pub fn tell_totals(&self) {
        const OVER_S: u64 = 10;
        if self.boards.listeners() == 0 {
            return;
        }
        let live = self.live();
        let options = Options::default();
        let streams = live.streams().filter_map(|(stream, _)| {
            let total = |quantity| live.total(stream, quantity, OVER_S * 1_000, None, &options);
            let ratio = total(Quantity::RetransRatio).ok()?;
            Some(Total10s {
                stream,
                retrans_segs: total(Quantity::RetransSegs).ok()?.value,
                retrans_ratio: ratio.value,
                low: ratio.low,
                high: ratio.high,
                nodes_expected: ratio.nodes_expected,
                nodes_reported: ratio.nodes_reported,
            })
        });
        let totals = Totals10s {
            site: &self.name,
            now_ms: live.now_ms(),
            over_s: OVER_S,
            streams: streams.collect(),
        };
        match serde_json::to_string(&totals) {
            Ok(json) => self.boards.tell("totals", json),
            Err(error) => tracing::error!(%error, "no totals"),
        }
    }

    /// The streams and nodes, for reading; hold it shortly.
    pub fn live(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in events that were not seen before, each with its partition and the broker's time, Unix ms.
    pub fn take(&self, events: impl IntoIterator<Item = (Event, i32, u64)>) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let mut counts = self.counts();
        for (event, partition, append_ms) in events {
            counts.last_event = Some(Instant::now());
            match event {
                Event::Window(window) => {
                    counts.first_append_ms.entry(partition).or_insert(append_ms);
                    if !counts.partitions.contains_key(&window.stream) {
                        counts.partitions.insert(window.stream.clone(), partition);
                    }
                    let outcome = match live.add(&window, append_ms) {
                        Added::Merged => "merged",
                        Added::Late => "late",
                        Added::Expired => "expired",
                        Added::Crowded => "crowded",
                        Added::Refused => "refused",
                    };
                    *counts.windows.entry(outcome).or_default() += 1;
                }
                Event::Node(heartbeat) => {
                    live.hear(&heartbeat, append_ms);
                    counts.heartbeats += 1;
                }
                Event::Pulse(_) => counts.pulses += 1,
            }
        }
        if let Some(error) = live.take_refusal() {
            tracing::warn!(%error, "a window contradicts what is known of its node");
        }
        live.expire();
    }

    /// Drops the streams of partitions of the window topic.
    pub fn forget(&self, partitions: &[i32]) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let mut counts = self.counts();
        counts
            .first_append_ms
            .retain(|partition, _| !partitions.contains(partition));
        counts.partitions.retain(|stream, partition| {
            let keep = !partitions.contains(partition);
            if !keep {
                live.forget(stream);
            }
            keep
        });
    }

    /// Notes how the readers are doing, and what was seen of the sequences.
    pub fn note(&self, readers: Status, sequences: Totals, missing: u64) {
        let mut counts = self.counts();
        counts.readers = readers;
        counts.sequences = sequences;
        counts.missing = missing;
        counts.noted = Some(Instant::now());
    }

    /// For how long the role that merges has not said how it is doing.
    pub fn idle(&self) -> Duration {
        if !self.merges {
            return Duration::ZERO;
        }
        self.counts().noted.unwrap_or(self.started).elapsed()
    }

    /// What it is doing, in one line.
    pub fn summary(&self) -> String {
        let merged = self.merges.then(|| self.merged());
        let stored = self.storing().map(Storing::summary);
        let parts: Vec<_> = merged.into_iter().chain(stored).collect();
        parts.join("; ")
    }

    fn merged(&self) -> String {
        let live = self.live();
        let presence = live.nodes().len();
        let windows: u64 = self.counts().windows.values().sum();
        format!(
            "{windows} windows of {} streams from {presence} nodes",
            live.streams().count()
        )
    }

    /// Why some role does not do its work; none: they all do.
    pub fn ill(&self) -> Option<String> {
        let merging = self.merges.then(|| self.trouble()).flatten();
        merging.or_else(|| self.storing().and_then(Storing::trouble))
    }

    /// What is well and yet worth a word: another stores and this process stands by, or what it stores is behind.
    pub fn remark(&self) -> Option<String> {
        let storing = self.storing()?;
        match storing.condition() {
            Condition::StandsBy(who) => Some(format!("standby: {who}")),
            _ => {
                let behind_ms = storing.behind_ms()?;
                Some(format!("store: {} s behind, catches up", behind_ms / 1_000))
            }
        }
    }

    /// Why events do not flow to the role that merges; none: they do.
    pub fn trouble(&self) -> Option<String> {
        let counts = self.counts();
        for reader in [&counts.readers.streams, &counts.readers.nodes] {
            if let State::Degraded(reason) = &reader.state {
                return Some(reason.clone());
            }
        }
        let last = counts.last_event;
        drop(counts);
        let silent = last.unwrap_or(self.started).elapsed();
        (silent > SILENCE).then(|| match last {
            Some(_) => format!("no event for {} s", silent.as_secs()),
            None => format!("no event since the start {} s ago", silent.as_secs()),
        })
    }

    /// Its metrics.
    pub fn families(&self) -> Vec<Family> {
        let mut families = match self.merges {
            true => self.merging(),
            false => Vec::new(),
        };
        families.extend(
            self.storing()
                .map_or_else(Vec::new, |s| s.families(unix_ms())),
        );
        families
    }

    fn merging(&self) -> Vec<Family> {
        let counts = self.counts().clone();
        let live = self.live();
        let one = |labels, value: f64| Sample {
            labels,
            value: Value::Number(value),
        };
        let family = |name, help, kind, samples| Family {
            name,
            help,
            kind,
            samples,
        };
        let windows = counts.windows.iter().map(|(outcome, count)| {
            let labels = vec![("outcome", (*outcome).to_owned())];
            one(labels, *count as f64)
        });
        let sums: usize = live.streams().map(|(_, sums)| sums).sum();
        let readers = &counts.readers;
        let lag = [&readers.streams, &readers.nodes]
            .into_iter()
            .flat_map(|reader| &reader.lag)
            .map(|((topic, partition), lag)| {
                let labels = vec![
                    ("topic", topic.name().to_owned()),
                    ("partition", partition.to_string()),
                ];
                one(labels, *lag as f64)
            });
        let read = Topic::ALL.into_iter().zip(readers.counts.events);
        let read =
            read.map(|(topic, count)| one(vec![("topic", topic.name().to_owned())], count as f64));
        let refused = Reason::LABELS.into_iter().zip(readers.counts.refused);
        let refused =
            refused.map(|(reason, count)| one(vec![("reason", reason.to_owned())], count as f64));
        let dead = [
            ("sent", readers.counts.dead_letters_sent),
            ("throttled", readers.counts.dead_letters_throttled),
            ("failed", readers.counts.dead_letters_failed),
        ];
        let dead =
            dead.map(|(outcome, count)| one(vec![("outcome", outcome.to_owned())], count as f64));
        let plain = |value: u64| vec![one(Vec::new(), value as f64)];
        let now_s = unix_ms() as f64 / 1e3;
        let watermark_ms = Some(live.watermark_ms()).filter(|_| live.now_ms() > 0);
        let delay = watermark_ms
            .into_iter()
            .map(|ms| one(Vec::new(), now_s - ms as f64 / 1e3));
        let mut families = vec![
            family(
                "flowvitals_aggregator_events_read_total",
                "Records that were events, by topic.",
                Kind::Counter,
                read.collect(),
            ),
            family(
                "flowvitals_aggregator_records_refused_total",
                "Records that were none, by reason.",
                Kind::Counter,
                refused.collect(),
            ),
            family(
                "flowvitals_aggregator_dead_letters_total",
                "Refused records by what became of them.",
                Kind::Counter,
                dead.to_vec(),
            ),
            family(
                "flowvitals_aggregator_consumer_lag",
                "Records of a partition that are not read yet, at the last statistics.",
                Kind::Gauge,
                lag.collect(),
            ),
            family(
                "flowvitals_aggregator_duplicates_total",
                "Events that were there before, of the partitions read now.",
                Kind::Counter,
                plain(counts.sequences.duplicate),
            ),
            family(
                "flowvitals_aggregator_missing_events",
                "Holes in the sequences of the partitions read now: lost, or still to come.",
                Kind::Gauge,
                plain(counts.missing),
            ),
            family(
                "flowvitals_aggregator_windows_total",
                "Windows taken in, by what became of them.",
                Kind::Counter,
                windows.collect(),
            ),
            family(
                "flowvitals_aggregator_pulses_total",
                "Pulses taken in.",
                Kind::Counter,
                vec![one(Vec::new(), counts.pulses as f64)],
            ),
            family(
                "flowvitals_aggregator_heartbeats_total",
                "Heartbeats taken in.",
                Kind::Counter,
                vec![one(Vec::new(), counts.heartbeats as f64)],
            ),
            family(
                "flowvitals_aggregator_nodes",
                "Nodes heard of and not forgotten.",
                Kind::Gauge,
                vec![one(Vec::new(), live.nodes().len() as f64)],
            ),
            family(
                "flowvitals_aggregator_streams",
                "Streams with windows inside the horizon.",
                Kind::Gauge,
                vec![one(Vec::new(), live.streams().count() as f64)],
            ),
            family(
                "flowvitals_aggregator_windows_held",
                "Windows of one node and stream in memory; merge.max_windows bounds them.",
                Kind::Gauge,
                vec![one(Vec::new(), live.held() as f64)],
            ),
            family(
                "flowvitals_aggregator_windows_cut_total",
                "Windows that made room for newer ones before their time: questions reach less far.",
                Kind::Counter,
                vec![one(Vec::new(), live.cut() as f64)],
            ),
            family(
                "flowvitals_aggregator_sums",
                "Sums kept, one per stream and window start.",
                Kind::Gauge,
                vec![one(Vec::new(), sums as f64)],
            ),
            family(
                "flowvitals_aggregator_newest_timestamp_seconds",
                "End of the newest event, Unix time.",
                Kind::Gauge,
                vec![one(Vec::new(), live.now_ms() as f64 / 1e3)],
            ),
            family(
                "flowvitals_aggregator_watermark_delay_seconds",
                "How far the watermark is behind the time of day; absent before the first event.",
                Kind::Gauge,
                delay.collect(),
            ),
        ];
        drop(live);
        families.extend(self.alerting.families());
        families.extend(self.boards.families());
        families
    }
}
