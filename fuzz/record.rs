//! What the aggregator does with records, in one pure function: the fuzzer and the tests call it with bytes that nobody of ours
//! wrote.
//!
//! Input: eight bytes of the broker's time, then records: a byte for the topic, two for the length, the value. Output: what became
//! of each. It panics if something does, or if what passed does not hold to the contract.

use std::sync::{Arc, LazyLock};

use aggregator::alert::Rule;
use aggregator::alert::engine::{self, Engine, Out};
use aggregator::config::{Source, read};
use aggregator::input::{Key, Raw, Reason, Sequences, Topic, decode};
use aggregator::merge::{Live, LiveOptions, Presence, Quantity};
use aggregator::rollup::{Begin, Options, Partition};
use prost::Message;
use sampler_event::{Event, NodeHeartbeat, StreamPulse, StreamWindow};

/// One rule of every metric, over every stream.
static RULES: LazyLock<Vec<Arc<Rule>>> = LazyLock::new(|| {
    let metrics = [
        "retrans_segs",
        "retrans_ratio",
        "stall_ratio",
        "rtt_slow_ratio",
        "flows_silent_ratio",
        "no_data",
    ];
    let rules = metrics.map(|metric| {
        let above = if metric == "no_data" {
            ""
        } else {
            "above = 0.02\n"
        };
        format!("[[alert]]\nname = '{metric}'\nstreams = ['*']\nmetric = '{metric}'\n{above}")
    });
    let config = read(Source::new("rules.toml", rules.concat())).expect("right rules");
    let rules = config.alerts.into_iter();
    rules.map(|alert| Arc::new(alert.rule)).collect()
});

/// Records of one broker, in the order of their offsets.
pub fn pass(bytes: &[u8]) -> Vec<Result<(), Reason>> {
    let Some((append_ms, mut rest)) = bytes.split_first_chunk() else {
        return Vec::new();
    };
    let mut pipeline = Pipeline::new(u64::from_le_bytes(*append_ms));
    let mut outcomes = Vec::new();
    while let Some((topic, payload)) = next(&mut rest) {
        outcomes.push(pipeline.take(topic, payload));
    }
    pipeline.end();
    outcomes
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<(Topic, &'a [u8])> {
    let ([topic, low, high], after) = rest.split_first_chunk()?;
    let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
    let (payload, after) = after.split_at(length);
    *rest = after;
    Some((Topic::ALL[usize::from(*topic) % Topic::ALL.len()], payload))
}

/// Both roles, without their topics and their store.
struct Pipeline {
    append_ms: u64,
    offset: i64,
    sequences: Sequences,
    live: Live,
    engine: Engine,
    rollup: Partition,
}

impl Pipeline {
    fn new(append_ms: u64) -> Self {
        let mut engine = Engine::new("ams1", RULES.clone(), engine::Options::default());
        let mut live = Live::new(LiveOptions::default());
        live.reach(Engine::reach_ms(&RULES));
        engine.set_partitions(1);
        engine.assign(0, &[], [], append_ms);
        Self {
            append_ms,
            offset: 0,
            sequences: Sequences::default(),
            live,
            engine,
            rollup: Partition::new(
                Topic::Window.name(),
                0,
                Begin::Log,
                Options { lateness_ms: 2_000 },
            ),
        }
    }

    fn take(&mut self, topic: Topic, payload: &[u8]) -> Result<(), Reason> {
        let key = subject(topic, payload);
        let raw = Raw {
            topic,
            partition: 0,
            offset: self.offset,
            append_ms: self.append_ms,
            key: Some(key.as_bytes()),
            schema: Some(topic.schema().as_bytes()),
            payload: Some(payload),
        };
        self.offset += 1;
        let event = decode(&raw).map_err(|refused| refused.reason)?;
        let sequence = match &event {
            Event::Window(window) => window.sequence,
            Event::Pulse(pulse) => pulse.sequence,
            Event::Node(heartbeat) => heartbeat.sequence,
        };
        self.sequences
            .take(Key::from(&event), sequence, self.append_ms);
        match &event {
            Event::Window(window) => {
                self.live.add(window, self.append_ms);
                self.engine.saw(&window.stream, 0);
                self.rollup.take(window, self.offset, self.append_ms);
            }
            Event::Pulse(pulse) => {
                self.engine.pulse(pulse, 0, &self.live, self.append_ms);
            }
            Event::Node(heartbeat) => {
                self.live.hear(heartbeat, self.append_ms);
                self.engine.heartbeat(heartbeat);
            }
        }
        self.engine.evaluate(&self.live, self.append_ms);
        Ok(())
    }

    /// All that can be asked and said afterwards.
    fn end(mut self) {
        self.live.expire();
        self.rollup.provisional();
        self.engine
            .tick(&self.live, self.append_ms.saturating_add(5_000), true);
        self.engine.save_all();
        for out in self.engine.take() {
            if let Out::Say(said) = out {
                serde_json::to_string(&said.record).expect("a record is JSON");
            }
        }
        drop(self.rollup.take_rows(|_, _| Presence::default()));
        let options = sampler_event::Options::default();
        let now_ms = self.live.now_ms();
        let streams: Vec<_> = self
            .live
            .streams()
            .map(|(stream, _)| stream.to_owned())
            .collect();
        for stream in streams {
            for quantity in Quantity::ALL {
                let total = self.live.total(&stream, quantity, 10_000, None, &options);
                let total = total.expect("it is known");
                let all = [total.low, total.value, total.high];
                assert!(all.iter().flatten().all(|v| v.is_finite()), "{total:?}");
                assert!(
                    total.low <= total.value && total.value <= total.high,
                    "{total:?}"
                );
                serde_json::to_string(&total).expect("an answer is JSON");
            }
            let from_ms = now_ms.saturating_sub(60_000) / 1_000 * 1_000;
            let series = self
                .live
                .series(&stream, from_ms, from_ms + 60_000, 5_000, &options);
            serde_json::to_string(&series).expect("a series is JSON");
        }
    }
}

/// The key that a producer would give the value, if it can be seen in it.
fn subject(topic: Topic, payload: &[u8]) -> String {
    let subject = match topic {
        Topic::Window => StreamWindow::decode(payload).map(|window| window.stream),
        Topic::Pulse => StreamPulse::decode(payload).map(|pulse| pulse.stream),
        // Not looked into before its size is known: the decoder is to be tried, not this.
        Topic::Node if payload.len() > 64 * 1024 => Ok(String::new()),
        Topic::Node => NodeHeartbeat::decode(payload).map(|heartbeat| heartbeat.node),
    };
    subject.unwrap_or_default()
}
