//! Records as the sampler writes them, and others.

use std::ops::Range;

use aggregator::input::{Key, Topic};
use lab::clock::unix_ms;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use sampler_event::{Event, Message, NodeHeartbeat, StreamPulse, StreamWindow};

use crate::member::PATIENCE;

pub struct Writer {
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Writer {
    pub fn new(brokers: &str) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("partitioner", "murmur2_random")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "0")
            .set("linger.ms", "5")
            .set("reconnect.backoff.max.ms", "500")
            .set("log_level", "0")
            .create()
            .expect("a producer");
        Self { producer }
    }

    pub fn raw(
        &self,
        topic: Topic,
        partition: Option<i32>,
        key: &str,
        schema: &str,
        payload: &[u8],
    ) {
        let header = Header {
            key: "schema",
            value: Some(schema),
        };
        let mut record = BaseRecord::to(topic.name())
            .key(key)
            .payload(payload)
            .headers(OwnedHeaders::new().insert(header));
        record.partition = partition;
        let sent = self.producer.send(record);
        sent.map_err(|(error, _)| error).expect("room");
    }

    pub fn event(&self, event: &Event) {
        let key = Key::from(event);
        let (name, payload) = match event {
            Event::Window(window) => (key.stream, window.encode_to_vec()),
            Event::Pulse(pulse) => (key.stream, pulse.encode_to_vec()),
            Event::Node(heartbeat) => (key.node, heartbeat.encode_to_vec()),
        };
        self.raw(key.kind, None, name, key.kind.schema(), &payload);
    }

    /// A window and a pulse of every stream and a heartbeat of the node, for each sequence.
    pub fn round(&self, streams: usize, sequences: Range<u64>) {
        let window = StreamWindow {
            node: "edge-07".to_owned(),
            site: "ams1".to_owned(),
            window_start_ms: unix_ms() / 1000 * 1000,
            window_ms: 1000,
            sampling_rate: 0.1,
            ..Default::default()
        };
        let pulse = StreamPulse {
            node: window.node.clone(),
            site: window.site.clone(),
            pulse_start_ms: window.window_start_ms,
            pulse_ms: 100,
            sampling_rate: 0.1,
            ..Default::default()
        };
        let heartbeat = NodeHeartbeat {
            node: window.node.clone(),
            site: window.site.clone(),
            window_start_ms: window.window_start_ms,
            window_ms: 1000,
            ..Default::default()
        };
        for sequence in sequences {
            for stream in (0..streams).map(|stream| format!("stream-{stream}")) {
                self.event(&Event::Window(Box::new(StreamWindow {
                    stream: stream.clone(),
                    sequence,
                    ..window.clone()
                })));
                self.event(&Event::Pulse(StreamPulse {
                    stream,
                    sequence,
                    ..pulse.clone()
                }));
            }
            self.event(&Event::Node(Box::new(NodeHeartbeat {
                sequence,
                ..heartbeat.clone()
            })));
        }
    }

    pub fn flush(&self) {
        self.producer.flush(PATIENCE).expect("written");
    }
}

/// Events of so many sequences of [`Writer::round`].
pub fn round_of(streams: usize, sequences: usize) -> usize {
    (2 * streams + 1) * sequences
}
