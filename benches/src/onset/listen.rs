//! What came of it: the alert topic, the windows, and the webhook, each with the time at which it could be read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use lab::netns::Namespace;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _};
use sampler_event::{Message as _, StreamPulse, StreamWindow};
use serde_json::{Value, json};

const ALERTS: &str = "flowvitals.alert.v1";
const WINDOWS: &str = "flowvitals.window.v1";
const PULSES: &str = "flowvitals.pulse.v1";
/// Length of the windows, and of the spans that are held against the threshold.
const WINDOW_MS: u64 = 1_000;
const SPAN_MS: u64 = 10_000;

/// A record of the alert topic.
#[derive(Clone, Debug)]
struct Said {
    append_ms: u64,
    stream: String,
    /// Whether it says that a change is suspected, that an alert went on, or that one went off.
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Suspected,
    Fired,
    Resolved,
    Other,
}

/// Sums of all nodes in one second of a stream.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    retrans_segs: u64,
    data_segs_out: u64,
    windows: u64,
    /// When the last of them was appended, Unix ms.
    append_ms: u64,
}

/// A notification of the webhook.
#[derive(Clone, Debug)]
pub struct Paged {
    /// When it arrived, Unix ms.
    pub at_ms: u64,
    /// Its stream.
    pub stream: String,
    /// Whether it says that the alert is on.
    pub firing: bool,
}

/// Everything that was heard so far.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    said: Vec<Said>,
    seconds: BTreeMap<String, BTreeMap<u64, Second>>,
    /// Pages at the webhook.
    pub paged: Vec<Paged>,
}

impl Heard {
    fn of<'a>(
        &'a self,
        stream: &'a str,
        what: What,
        since_ms: u64,
    ) -> impl Iterator<Item = &'a Said> {
        let said = self.said.iter();
        said.filter(move |said| {
            said.stream == stream && said.what == what && said.append_ms >= since_ms
        })
    }

    /// When the first suspicion after a moment was in the topic.
    pub fn suspect_after(&self, stream: &str, since_ms: u64) -> Option<u64> {
        self.of(stream, What::Suspected, since_ms)
            .map(|said| said.append_ms)
            .next()
    }

    /// How many suspicions began since a moment.
    pub fn suspects_since(&self, stream: &str, since_ms: u64) -> usize {
        self.of(stream, What::Suspected, since_ms).count()
    }

    /// How many alerts went on since a moment.
    pub fn pages_since(&self, stream: &str, since_ms: u64) -> usize {
        self.of(stream, What::Fired, since_ms).count()
    }

    /// Whether an alert was on at a moment.
    pub fn is_on(&self, stream: &str, at_ms: u64) -> bool {
        let last = self.said.iter().rfind(|said| {
            let tells = matches!(said.what, What::Fired | What::Resolved);
            tells && said.stream == stream && said.append_ms < at_ms
        });
        last.is_some_and(|said| said.what == What::Fired)
    }

    /// When the first page after a moment was at the webhook.
    pub fn page_after(&self, stream: &str, since_ms: u64) -> Option<u64> {
        let pages = self
            .paged
            .iter()
            .filter(|page| page.stream == stream && page.firing);
        pages
            .map(|page| page.at_ms)
            .find(|at_ms| *at_ms >= since_ms)
    }

    /// End of the first span of ten seconds, sliding by one, whose ratio was above a threshold: every flow is sampled, so it is the truth.
    pub fn crossed_after(&self, stream: &str, since_ms: u64, above: f64) -> Option<u64> {
        self.above(stream, since_ms, above, WINDOW_MS)
            .map(|(end_ms, _)| end_ms)
    }

    /// When the last window of the first such span that is aligned to ten seconds could be read.
    pub fn tumbled_after(&self, stream: &str, since_ms: u64, above: f64) -> Option<u64> {
        self.above(stream, since_ms, above, SPAN_MS)
            .map(|(_, append_ms)| append_ms)
    }

    fn above(&self, stream: &str, since_ms: u64, above: f64, step_ms: u64) -> Option<(u64, u64)> {
        let seconds = self.seconds.get(stream)?;
        let (last_ms, _) = seconds.last_key_value()?;
        let first_ms = (since_ms / step_ms + 1) * step_ms;
        let ends = (first_ms..=last_ms + WINDOW_MS).step_by(step_ms as usize);
        ends.map(|end_ms| {
            (
                end_ms,
                seconds
                    .range(end_ms - SPAN_MS..end_ms)
                    .map(|(_, second)| second),
            )
        })
        .find_map(|(end_ms, span)| {
            let sum = span.fold(Second::default(), |sum, second| sum.plus(second));
            let ratio = sum.retrans_segs as f64 / sum.data_segs_out as f64;
            (ratio > above).then_some((end_ms, sum.append_ms))
        })
    }

    /// Retransmitted and sent segments of a stream, and its windows.
    pub fn sums(&self, stream: &str) -> (u64, u64, u64) {
        let seconds = self
            .seconds
            .get(stream)
            .into_iter()
            .flat_map(BTreeMap::values);
        let sum = seconds.fold(Second::default(), |sum, second| sum.plus(second));
        (sum.retrans_segs, sum.data_segs_out, sum.windows)
    }

    fn take_window(&mut self, window: &StreamWindow, append_ms: u64) {
        let second = Second {
            retrans_segs: window.retrans_segs,
            data_segs_out: window.data_segs_out,
            windows: 1,
            append_ms,
        };
        let seconds = self.seconds.entry(window.stream.clone()).or_default();
        let sum = seconds.entry(window.window_start_ms).or_default();
        *sum = sum.plus(&second);
    }

    fn take_alert(&mut self, value: &Value, append_ms: u64) {
        let text = |name: &str| value[name].as_str().unwrap_or_default();
        let what = match (text("state"), text("kind")) {
            (_, "suspected") => What::Suspected,
            (_, "fired") => What::Fired,
            (_, "resolved") => What::Resolved,
            _ => What::Other,
        };
        self.said.push(Said {
            append_ms,
            stream: text("stream").to_owned(),
            what,
        });
    }
}

impl Second {
    fn plus(self, other: &Self) -> Self {
        Self {
            retrans_segs: self.retrans_segs + other.retrans_segs,
            data_segs_out: self.data_segs_out + other.data_segs_out,
            windows: self.windows + other.windows,
            append_ms: self.append_ms.max(other.append_ms),
        }
    }
}

/// Reads both topics; ends when dropped.
pub struct Listener {
    heard: Arc<Mutex<Heard>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Subscribes inside `namespace`. Pulses are only written to `record`, a JSON line each.
    pub fn start(namespace: &Namespace, brokers: &str, record: Option<&Path>) -> Result<Self> {
        let mut record = record.map(File::create).transpose()?.map(BufWriter::new);
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("group.id", "flowvitals-bench")
            .set("auto.offset.reset", "earliest");
        let heard = Arc::<Mutex<Heard>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (to, ending) = (Arc::clone(&heard), Arc::clone(&stop));
        // The client's own threads are made inside, and so live in the namespace too.
        let thread = namespace.run_in(|| -> Result<JoinHandle<()>> {
            let consumer: BaseConsumer = config.create()?;
            let topics = [ALERTS, WINDOWS, PULSES];
            consumer.subscribe(&topics[..if record.is_some() { 3 } else { 2 }])?;
            Ok(std::thread::spawn(move || {
                read(&consumer, &to, record.as_mut(), &ending);
            }))
        })??;
        Ok(Self {
            heard,
            stop,
            thread: Some(thread),
        })
    }

    /// A copy of what was heard.
    pub fn heard(&self) -> Heard {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panicked if this fails, and has said so already.
            let _ = thread.join();
        }
    }
}

fn read(
    consumer: &BaseConsumer,
    to: &Mutex<Heard>,
    mut record: Option<&mut BufWriter<File>>,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        // Errors are the library's own to retry.
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let append_ms = message.timestamp().to_millis().unwrap_or_default() as u64;
        // A tombstone has no value.
        let Some(payload) = message.payload() else {
            continue;
        };
        if message.topic() == PULSES {
            if let Some((record, pulse)) = record.as_mut().zip(StreamPulse::decode(payload).ok()) {
                let line = json!({ "append_ms": append_ms, "pulse": pulse });
                // What is missing in the file is seen by who reads it.
                let _ = writeln!(record, "{line}");
            }
            continue;
        }
        let mut heard = to.lock().unwrap_or_else(PoisonError::into_inner);
        if message.topic() == WINDOWS {
            if let Ok(window) = StreamWindow::decode(payload) {
                heard.take_window(&window, append_ms);
            }
        } else if let Ok(value) = serde_json::from_slice(payload) {
            heard.take_alert(&value, append_ms);
        }
    }
}
