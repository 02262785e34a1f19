//! Reads windows and heartbeats from the broker, as an aggregator would, and what the aggregator says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use lab::clock;
use lab::kafka::Access;
use lab::netns::Namespace;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use sampler_event::{Message as _, NodeHeartbeat, StreamWindow};
use serde_json::Value;

const WINDOWS: &str = "flowvitals.window.v1";
const NODES: &str = "flowvitals.node.v1";
const ALERTS: &str = "flowvitals.alert.v1";

/// What arrived.
pub enum Event {
    /// One stream's window.
    Window(Box<StreamWindow>, usize),
    /// The node's heartbeat.
    Node(Box<NodeHeartbeat>),
    /// A record of the alert topic, with the time at which the broker took it, Unix ms.
    Alert(Value, u64),
    /// Bytes that are no event.
    Malformed,
}

/// A running consumer; ends when dropped.
pub struct Consumer {
    events: Receiver<Event>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Consumer {
    /// Subscribes inside `namespace`, as a group of that name.
    pub fn start(namespace: &Namespace, access: &Access, group: &str) -> Result<Self> {
        let mut config = access.config();
        config
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "50");
        let (sender, events) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let ending = stop.clone();
        // The client's own threads are made inside, and so live in the namespace too.
        let thread = namespace.run_in(|| -> Result<JoinHandle<()>> {
            let consumer: BaseConsumer = config.create()?;
            consumer.subscribe(&[WINDOWS, NODES, ALERTS])?;
            let poll = move || poll(&consumer, &sender, &ending);
            Ok(std::thread::Builder::new()
                .name("consumer".into())
                .spawn(poll)?)
        })??;
        Ok(Self {
            events,
            stop,
            thread: Some(thread),
        })
    }

    /// What arrives within `time`.
    pub fn drain(&self, time: Duration) -> Vec<Event> {
        let end = clock::now() + time;
        let mut events = Vec::new();
        while let Ok(event) = self
            .events
            .recv_timeout(end.saturating_duration_since(clock::now()))
        {
            events.push(event);
        }
        events
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panicked if this fails, and has said so already.
            let _ = thread.join();
        }
    }
}

fn poll(consumer: &BaseConsumer, events: &Sender<Event>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // Errors are the library's own to retry.
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        // A record that is taken back has no value.
        let Some(payload) = message.payload() else {
            continue;
        };
        let append_ms = message.timestamp().to_millis().unwrap_or_default() as u64;
        let event = match message.topic() {
            WINDOWS => StreamWindow::decode(payload)
                .map(|window| Event::Window(Box::new(window), payload.len()))
                .ok(),
            ALERTS => serde_json::from_slice(payload)
                .map(|value| Event::Alert(value, append_ms))
                .ok(),
            _ => NodeHeartbeat::decode(payload)
                .map(|node| Event::Node(Box::new(node)))
                .ok(),
        };
        if events.send(event.unwrap_or(Event::Malformed)).is_err() {
            return;
        }
    }
}
