//! What the aggregator knows of its site, shared by the task that takes events in and those that answer questions.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use sampler_event::Event;
use service::metrics::{Family, Kind, Sample, Value};

use crate::merge::{Added, Live, LiveOptions};

/// Without an event for so long, events do not flow: a heartbeat comes with every window, and the longest window has 10 s.
const SILENCE: Duration = Duration::from_secs(30);

/// Counts since the start, by name and reason.
#[derive(Clone, Debug, Default)]
struct Counts {
    windows: BTreeMap<&'static str, u64>,
    pulses: u64,
    heartbeats: u64,
    last_event: Option<Instant>,
}

/// The site.
#[derive(Debug)]
pub struct Site {
    name: String,
    options: LiveOptions,
    live: RwLock<Live>,
    counts: Mutex<Counts>,
    started: Instant,
}

impl Site {
    /// Knows nothing yet.
    pub fn new(name: impl Into<String>, options: LiveOptions) -> Self {
        Self {
            name: name.into(),
            options,
            live: RwLock::new(Live::new(options)),
            counts: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How far back questions can reach.
    pub fn horizon_ms(&self) -> u64 {
        self.options.horizon_ms
    }

    /// The streams and nodes, for reading; hold it shortly.
    pub fn live(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in events that were not seen before, each with the broker's time, Unix ms.
    pub fn take(&self, events: impl IntoIterator<Item = (Event, u64)>) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let mut counts = self.counts();
        for (event, append_ms) in events {
            counts.last_event = Some(Instant::now());
            match event {
                Event::Window(window) => {
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

    /// Why events do not flow; none: they do.
    pub fn trouble(&self) -> Option<String> {
        let last = self.counts().last_event;
        let silent = last.unwrap_or(self.started).elapsed();
        (silent > SILENCE).then(|| match last {
            Some(_) => format!("no event for {} s", silent.as_secs()),
            None => format!("no event since the start {} s ago", silent.as_secs()),
        })
    }

    /// Its metrics.
    pub fn families(&self) -> Vec<Family> {
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
        vec![
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
        ]
    }
}
