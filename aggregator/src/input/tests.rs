//! Records, good and bad, through [`decode`].

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use prost::Message;
use sampler_event::{Event, NodeHeartbeat, StreamPulse, StreamState, StreamWindow};

use super::*;

const APPEND_MS: u64 = 1_795_000_002_000;

/// A record as the sampler writes it.
#[derive(Clone, Debug)]
struct Record {
    topic: Topic,
    key: Vec<u8>,
    schema: Vec<u8>,
    payload: Vec<u8>,
    append_ms: u64,
}

impl Record {
    fn new(topic: Topic, key: &str, payload: Vec<u8>) -> Self {
        Self {
            topic,
            key: key.as_bytes().to_vec(),
            schema: topic.schema().as_bytes().to_vec(),
            payload,
            append_ms: APPEND_MS,
        }
    }

    fn decode(&self) -> Result<Event, Reason> {
        let raw = Raw {
            topic: self.topic,
            partition: 0,
            offset: 0,
            append_ms: self.append_ms,
            key: Some(&self.key),
            schema: Some(&self.schema),
            payload: Some(&self.payload),
        };
        decode(&raw).map_err(|refused| refused.reason)
    }
}

fn golden() -> Vec<Record> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../sampler/event/tests/golden");
    let mut records = Vec::new();
    for part in ["v1", "recorded"] {
        for entry in fs::read_dir(folder.join(part)).expect("golden files") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|extension| extension != "bin") {
                continue;
            }
            let payload = fs::read(&path).expect("bytes");
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let (topic, key, append_ms) = match name.split('-').next() {
                Some("window") => {
                    let window = StreamWindow::decode(&payload[..]).expect("a window");
                    (Topic::Window, window.stream, window.emitted_ms)
                }
                Some("pulse") => {
                    let pulse = StreamPulse::decode(&payload[..]).expect("a pulse");
                    (Topic::Pulse, pulse.stream, pulse.pulse_start_ms)
                }
                _ => {
                    let heartbeat = NodeHeartbeat::decode(&payload[..]).expect("a heartbeat");
                    (Topic::Node, heartbeat.node, heartbeat.emitted_ms)
                }
            };
            let record = Record::new(topic, &key, payload);
            records.push(Record {
                append_ms,
                ..record
            });
        }
    }
    assert_eq!(records.len(), 11);
    records
}

fn window() -> StreamWindow {
    StreamWindow {
        node: "edge-07".into(),
        site: "ams1".into(),
        stream: "sport-1".into(),
        instance: 7,
        window_start_ms: 1_795_000_000_000,
        window_ms: 1000,
        observed_ms: 1000,
        sampling_rate: 0.1,
        ..Default::default()
    }
}

fn pulse() -> StreamPulse {
    StreamPulse {
        node: "edge-07".into(),
        site: "ams1".into(),
        stream: "sport-1".into(),
        pulse_start_ms: 1_795_000_000_100,
        pulse_ms: 100,
        sampling_rate: 0.1,
        ..Default::default()
    }
}

fn heartbeat() -> NodeHeartbeat {
    NodeHeartbeat {
        node: "edge-07".into(),
        site: "ams1".into(),
        window_start_ms: 1_795_000_000_000,
        window_ms: 1000,
        streams: vec![StreamState {
            stream: "sport-1".into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[track_caller]
fn check_window(expected: Result<(), Reason>, change: impl FnOnce(&mut StreamWindow)) {
    let mut window = window();
    change(&mut window);
    let record = Record::new(Topic::Window, &window.stream, window.encode_to_vec());
    assert_eq!(record.decode().map(drop), expected);
}

#[track_caller]
fn check_pulse(expected: Result<(), Reason>, change: impl FnOnce(&mut StreamPulse)) {
    let mut pulse = pulse();
    change(&mut pulse);
    let record = Record::new(Topic::Pulse, &pulse.stream, pulse.encode_to_vec());
    assert_eq!(record.decode().map(drop), expected);
}

#[track_caller]
fn check_heartbeat(expected: Result<(), Reason>, change: impl FnOnce(&mut NodeHeartbeat)) {
    let mut heartbeat = heartbeat();
    change(&mut heartbeat);
    let record = Record::new(Topic::Node, &heartbeat.node, heartbeat.encode_to_vec());
    assert_eq!(record.decode().map(drop), expected);
}

#[test]
fn golden_files_are_events_with_all_their_fields() {
    for record in golden() {
        let again = match record.decode().expect("an event") {
            Event::Window(window) => window.encode_to_vec(),
            Event::Pulse(pulse) => pulse.encode_to_vec(),
            Event::Node(heartbeat) => heartbeat.encode_to_vec(),
        };
        assert_eq!(again, record.payload);
    }
}

#[test]
fn fields_of_a_newer_schema_are_passed_over() {
    for mut record in golden() {
        let known = record.decode().expect("an event");
        prost::encoding::string::encode(9_002, &"newer".to_owned(), &mut record.payload);
        prost::encoding::double::encode(9_003, &0.5, &mut record.payload);
        assert_eq!(record.decode(), Ok(known));
    }
}

#[test]
fn a_record_is_refused_for_what_is_around_its_bytes() {
    let good = Record::new(Topic::Window, "sport-1", window().encode_to_vec());
    assert!(good.decode().is_ok());
    let check = |reason: Reason, change: &dyn Fn(&mut Record)| {
        let mut record = good.clone();
        change(&mut record);
        assert_eq!(record.decode(), Err(reason));
    };
    check(Reason::Empty, &|record| record.payload.clear());
    check(Reason::TooLarge, &|record| {
        record.payload.resize(16 * 1024 + 1, 0)
    });
    check(Reason::Undecodable, &|record| {
        record.payload = b"garbage".to_vec()
    });
    check(Reason::Schema, &|record| {
        record.schema = b"flowvitals.v2.StreamWindow".to_vec()
    });
    check(Reason::Schema, &|record| record.schema.clear());
    check(Reason::Schema, &|record| record.topic = Topic::Pulse);
    check(Reason::Key, &|record| record.key = b"sport-2".to_vec());
    let mut raw = Raw {
        topic: Topic::Window,
        partition: 0,
        offset: 0,
        append_ms: APPEND_MS,
        key: None,
        schema: Some(&good.schema),
        payload: Some(&good.payload),
    };
    assert_eq!(
        decode(&raw).map_err(|refused| refused.reason).map(drop),
        Err(Reason::Key)
    );
    (raw.key, raw.schema) = (Some(&good.key[..]), None);
    assert_eq!(
        decode(&raw).map_err(|refused| refused.reason).map(drop),
        Err(Reason::Schema)
    );
    (raw.schema, raw.payload) = (Some(&good.schema[..]), None);
    assert_eq!(
        decode(&raw).map_err(|refused| refused.reason).map(drop),
        Err(Reason::Empty)
    );
}

#[test]
fn a_window_is_refused_for_a_field() {
    let wrong = |field| Err(Reason::Malformed(field));
    check_window(Ok(()), |_| {});
    for length_ms in [1000, 2000, 5000, 10_000] {
        check_window(Ok(()), |window| window.window_ms = length_ms);
    }
    check_window(wrong("window_ms"), |window| window.window_ms = 0);
    check_window(wrong("window_ms"), |window| window.window_ms = 1500);
    check_window(wrong("window_start_ms"), |window| {
        window.window_start_ms += 1
    });
    for rate in [-0.1, 1.1, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY] {
        check_window(wrong("sampling_rate"), |window| window.sampling_rate = rate);
    }
    // Our encoder leaves −0 out; another one need not.
    let mut record = Record::new(Topic::Window, "sport-1", window().encode_to_vec());
    prost::encoding::double::encode(10, &-0.0, &mut record.payload);
    assert_eq!(record.decode().map(drop), wrong("sampling_rate"));
    for rate in [0.0, decode::MIN_RATE, 1.0] {
        check_window(Ok(()), |window| window.sampling_rate = rate);
    }
    check_window(Ok(()), |window| window.g_stall_ms = vec![1; 16]);
    check_window(wrong("g_stall_ms"), |window| {
        window.g_stall_ms = vec![1; 15]
    });
    check_window(wrong("rtt_counts"), |window| {
        window.rtt_counts = vec![642, 1]
    });
    check_window(wrong("rtt_handshake_counts"), |window| {
        window.rtt_handshake_counts = vec![162, 1]
    });
    check_window(wrong("rtt_min_counts"), |window| {
        window.rtt_min_counts = vec![3, 0]
    });
    check_window(wrong("node"), |window| window.node.clear());
    check_window(Ok(()), |window| window.node = "n".repeat(253));
    check_window(wrong("node"), |window| window.node = "n".repeat(254));
    check_window(wrong("site"), |window| window.site.clear());
    check_window(wrong("stream"), |window| window.stream.clear());
    check_window(wrong("stream"), |window| window.stream = "s".repeat(65));
    check_window(wrong("stream"), |window| window.stream = "a|b".into());
}

#[test]
fn an_event_of_a_fast_clock_is_refused() {
    // The end is start + 1000.
    let latest = APPEND_MS + decode::FUTURE_MS - 1000;
    check_window(Ok(()), |window| window.window_start_ms = latest);
    check_window(Err(Reason::Future), |window| {
        window.window_start_ms = latest + 1000
    });
    check_window(Err(Reason::Future), |window| window.observed_ms = u32::MAX);
    check_window(Err(Reason::Future), |window| {
        window.window_start_ms = u64::MAX / 1000 * 1000
    });
    check_pulse(Err(Reason::Future), |pulse| {
        pulse.pulse_start_ms = latest + 1000
    });
    check_heartbeat(Err(Reason::Future), |heartbeat| {
        heartbeat.window_start_ms = latest + 1000
    });
}

#[test]
fn a_pulse_is_refused_for_a_field() {
    let wrong = |field| Err(Reason::Malformed(field));
    check_pulse(Ok(()), |pulse| pulse.g_retrans_segs = vec![1; 16]);
    check_pulse(wrong("g_retrans_segs"), |pulse| {
        pulse.g_retrans_segs = vec![1; 17]
    });
    check_pulse(wrong("pulse_ms"), |pulse| pulse.pulse_ms = 0);
    check_pulse(wrong("pulse_ms"), |pulse| pulse.pulse_ms = 1000);
    check_pulse(wrong("pulse_start_ms"), |pulse| pulse.pulse_start_ms += 1);
    check_pulse(wrong("sampling_rate"), |pulse| {
        pulse.sampling_rate = f64::NAN
    });
    check_pulse(wrong("node"), |pulse| pulse.node.clear());
}

#[test]
fn a_heartbeat_is_refused_for_a_field() {
    let wrong = |field| Err(Reason::Malformed(field));
    check_heartbeat(Ok(()), |_| {});
    check_heartbeat(wrong("node"), |heartbeat| heartbeat.node.clear());
    check_heartbeat(wrong("window_ms"), |heartbeat| heartbeat.window_ms = 100);
    check_heartbeat(wrong("version"), |heartbeat| {
        heartbeat.version = "v".repeat(2000)
    });
    check_heartbeat(wrong("config_sha256"), |heartbeat| {
        heartbeat.config_sha256 = vec![1; 31]
    });
    check_heartbeat(wrong("streams"), |heartbeat| {
        heartbeat.streams[0].stream.clear()
    });
    check_heartbeat(wrong("sampling_rate"), |heartbeat| {
        heartbeat.streams[0].sampling_rate = 2.0
    });
    check_heartbeat(wrong("labels"), |heartbeat| {
        let labels = &mut heartbeat.streams[0].labels;
        labels.insert("customer".into(), "x".repeat(129));
    });
    check_heartbeat(Err(Reason::TooLarge), |heartbeat| {
        let labels = &mut heartbeat.streams[0].labels;
        labels.extend((0..17).map(|number| (number.to_string(), String::new())));
    });
    check_heartbeat(Ok(()), |heartbeat| {
        let state = heartbeat.streams[0].clone();
        heartbeat.streams.resize(4096, state);
    });
    // Two bytes each on the wire: only a count can refuse them.
    check_heartbeat(Err(Reason::TooLarge), |heartbeat| {
        heartbeat.streams.resize(4097, StreamState::default());
    });
    check_heartbeat(Err(Reason::TooLarge), |heartbeat| {
        heartbeat.namespaces.resize(1025, Default::default());
    });
}

#[test]
fn labels_are_few_and_their_own() {
    let all = [
        Reason::Empty,
        Reason::TooLarge,
        Reason::Undecodable,
        Reason::Schema,
        Reason::Key,
        Reason::Malformed("node"),
        Reason::Future,
    ];
    assert_eq!(all.map(Reason::label), Reason::LABELS);
    assert_eq!(Reason::Malformed("node").to_string(), "malformed: node");
    for topic in Topic::ALL {
        assert_eq!(Topic::of_name(topic.name()), Some(topic));
        assert_eq!(Topic::ALL[topic.index()], topic);
    }
    assert_eq!(Topic::of_name("flowvitals.window.v2"), None);
}

/// What was decoded holds to the contract, whatever the bytes were.
fn check_contract(event: &Event) -> Result<(), TestCaseError> {
    if let Event::Window(window) = event {
        prop_assert!(window.window_start_ms % u64::from(window.window_ms) == 0);
        prop_assert!((0.0..=1.0).contains(&window.sampling_rate));
        prop_assert!(
            sampler_event::WindowSum::new(window.stream.as_str())
                .add(window)
                .is_ok()
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_an_event_or_refused(
        topic in prop::sample::select(Topic::ALL.to_vec()),
        payload in prop::collection::vec(any::<u8>(), 0..400),
        key in "[a-z0-9-]{0,12}",
    ) {
        if let Ok(event) = Record::new(topic, &key, payload).decode() {
            check_contract(&event)?;
        }
    }

    #[test]
    fn golden_files_cut_or_flipped_do_no_harm(
        file in 0_usize..11,
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 0..4),
    ) {
        let mut record = golden().swap_remove(file);
        for (place, bit) in flips {
            let place = place.index(record.payload.len());
            record.payload[place] ^= 1 << bit;
        }
        if let Ok(event) = record.decode() {
            check_contract(&event)?;
        }
        record.payload.truncate(cut.index(record.payload.len()));
        if let Ok(event) = record.decode() {
            check_contract(&event)?;
        }
    }
}

#[test]
fn every_cut_and_every_flipped_bit_of_every_golden_file() {
    for record in golden() {
        for end in 0..record.payload.len() {
            let mut cut = record.clone();
            cut.payload.truncate(end);
            let _may_be_an_event = cut.decode();
        }
        for place in 0..record.payload.len() * 8 {
            let mut flipped = record.clone();
            flipped.payload[place / 8] ^= 1 << (place % 8);
            let _may_be_an_event = flipped.decode();
        }
    }
}
