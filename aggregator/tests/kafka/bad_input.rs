//! Every kind of bad input against the built daemon: each is counted under its reason and lies among the dead letters with its bytes,
//! each odd clock is dealt with as documented, and what is good goes on.

use std::collections::BTreeMap;

use aggregator::consume::DEAD_LETTERS_TOPIC;
use aggregator::input::{Reason, Topic};
use lab::clock::unix_ms;
use rdkafka::message::Message as _;
use sampler_event::{Message, NodeHeartbeat, StreamState, StreamWindow};

use crate::daemon::Daemon;
use crate::writer::Writer;
use crate::{broker_with_topics, header, log};

/// A record that is no event: why, and what it consists of.
struct Bad {
    reason: &'static str,
    topic: Topic,
    key: &'static str,
    schema: &'static str,
    payload: Vec<u8>,
}

fn window(start_ms: u64, sequence: u64) -> StreamWindow {
    StreamWindow {
        node: "edge-07".into(),
        site: "ams1".into(),
        stream: "sport-1".into(),
        instance: 7,
        sequence,
        window_start_ms: start_ms,
        window_ms: 1_000,
        observed_ms: 1_000,
        sampling_rate: 0.5,
        rate_epoch: 1,
        retrans_segs: 1,
        ..StreamWindow::default()
    }
}

fn bad(now_ms: u64) -> Vec<Bad> {
    let good = window(now_ms, 0);
    let bytes = good.encode_to_vec();
    let of_window = |reason, payload| Bad {
        reason,
        topic: Topic::Window,
        key: "sport-1",
        schema: Topic::Window.schema(),
        payload,
    };
    let changed = |reason, change: &dyn Fn(&mut StreamWindow)| {
        let mut window = good.clone();
        change(&mut window);
        of_window(reason, window.encode_to_vec())
    };
    let crowded = NodeHeartbeat {
        node: "edge-07".into(),
        streams: vec![StreamState::default(); 5_000],
        ..NodeHeartbeat::default()
    };
    vec![
        of_window("undecodable", b"\xff\xff garbage".to_vec()),
        of_window("undecodable", bytes[..bytes.len() - 1].to_vec()),
        of_window("empty", Vec::new()),
        of_window("too_large", vec![0x55; 500_000]),
        Bad {
            topic: Topic::Node,
            key: "edge-07",
            schema: Topic::Node.schema(),
            ..of_window("too_large", crowded.encode_to_vec())
        },
        Bad {
            schema: "flowvitals.v2.StreamWindow",
            ..of_window("schema", bytes.clone())
        },
        Bad {
            schema: Topic::Pulse.schema(),
            ..of_window("schema", bytes.clone())
        },
        Bad {
            key: "sport-2",
            ..of_window("key", bytes.clone())
        },
        Bad {
            topic: Topic::Pulse,
            schema: Topic::Pulse.schema(),
            ..of_window("malformed: pulse_ms", pulse_without_length())
        },
        changed("malformed: sampling_rate", &|w| w.sampling_rate = f64::NAN),
        changed("malformed: window_ms", &|w| w.window_ms = 1_500),
        changed("malformed: g_retrans_segs", &|w| {
            w.g_retrans_segs = vec![1; 15]
        }),
        changed("malformed: rtt_counts", &|w| w.rtt_counts = vec![641, 1, 1]),
        changed("future", &|w| w.window_start_ms += 600_000),
        changed("future", &|w| w.window_start_ms = u64::MAX / 1_000 * 1_000),
    ]
}

fn pulse_without_length() -> Vec<u8> {
    sampler_event::StreamPulse {
        node: "edge-07".into(),
        site: "ams1".into(),
        stream: "sport-1".into(),
        ..Default::default()
    }
    .encode_to_vec()
}

fn labelled(daemon: &Daemon, name: &str, value: &str) -> f64 {
    let text = daemon.get("/metrics").expect("metrics");
    let parsed = service::metrics::parse(&text).expect("an exposition");
    let samples = parsed.samples.iter().filter(|sample| sample.name == name);
    let of_value = samples.filter(|sample| sample.labels.values().any(|label| label == value));
    of_value.map(|sample| sample.value).sum()
}

#[test]
fn every_kind_of_bad_input_is_counted_and_kept_and_the_rest_goes_on() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let writer = Writer::new(&brokers);
    let daemon = Daemon::start(&brokers);
    daemon.wait_for("it answers", || daemon.get("/healthz").is_some());
    let begin_ms = unix_ms() / 1_000 * 1_000;
    let send = |window: &StreamWindow| {
        let payload = window.encode_to_vec();
        writer.raw(
            Topic::Window,
            None,
            "sport-1",
            Topic::Window.schema(),
            &payload,
        );
    };
    let windows = |outcome| labelled(&daemon, "flowvitals_aggregator_windows_total", outcome);

    send(&window(begin_ms - 1_000, 0));
    let all = bad(begin_ms);
    for bad in &all {
        writer.raw(bad.topic, None, bad.key, bad.schema, &bad.payload);
    }
    writer.flush();
    daemon.wait_for("all are counted", || {
        daemon.metric("flowvitals_aggregator_records_refused_total") == all.len() as f64
            && labelled(&daemon, "flowvitals_aggregator_dead_letters_total", "sent")
                == all.len() as f64
    });
    let mut expected = BTreeMap::<&str, f64>::new();
    for bad in &all {
        let label = bad.reason.split(':').next().expect("a label");
        *expected.entry(label).or_default() += 1.0;
    }
    for label in Reason::LABELS {
        let counted = labelled(
            &daemon,
            "flowvitals_aggregator_records_refused_total",
            label,
        );
        assert_eq!(counted, expected[label], "{label}");
    }
    let letters = log(&brokers, DEAD_LETTERS_TOPIC, 0);
    let mut kept: Vec<_> = letters
        .iter()
        .map(|letter| {
            let payload = letter.payload().unwrap_or_default().to_vec();
            (
                header(letter, "reason"),
                header(letter, "topic"),
                header(letter, "schema"),
                payload,
            )
        })
        .collect();
    let mut sent: Vec<_> = all
        .iter()
        .map(|bad| {
            let (reason, schema) = (bad.reason.to_owned(), bad.schema.to_owned());
            (
                reason,
                bad.topic.name().to_owned(),
                schema,
                bad.payload.clone(),
            )
        })
        .collect();
    kept.sort();
    sent.sort();
    assert!(kept == sent, "the dead letters are not what was sent");

    // A clock that is 30 s fast is an event, and does not move the site's time; one of yesterday comes too late for any sum; a node
    // that contradicts itself is refused; fields of a newer schema are passed over.
    send(&window(begin_ms + 30_000, 1));
    send(&window(begin_ms - 86_400_000, 2));
    send(&StreamWindow {
        sampling_rate: 0.25,
        ..window(begin_ms - 1_000, 3)
    });
    let mut newer = window(begin_ms, 4).encode_to_vec();
    prost::encoding::string::encode(9_002, &"newer".to_owned(), &mut newer);
    writer.raw(
        Topic::Window,
        None,
        "sport-1",
        Topic::Window.schema(),
        &newer,
    );
    writer.flush();
    daemon.wait_for("all are dealt with", || {
        (windows("merged"), windows("expired"), windows("refused")) == (3.0, 1.0, 1.0)
    });
    let newest_s = daemon.metric("flowvitals_aggregator_newest_timestamp_seconds");
    assert_eq!(
        newest_s,
        (begin_ms + 1_000) as f64 / 1e3,
        "the fast clock moved it"
    );
    let total = daemon.json(&format!(
        "/api/v1/streams/sport-1/windows?from_ms={}&to_ms={}&step_ms=1000",
        begin_ms - 1_000,
        begin_ms + 1_000
    ));
    let points = total["windows"].as_array().expect("windows");
    assert_eq!(points.len(), 2, "{total}");
    daemon.stop();
}
