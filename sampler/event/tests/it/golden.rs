//! Events of every published version stay readable, and today's code writes them as they were written.
//!
//! `tests/golden/vN/` holds each message with every field in use, as protobuf bytes and as a JSON line.

use std::fs;
use std::path::PathBuf;

use sampler_event::{Event, Message, NodeHeartbeat, StreamPulse, StreamWindow, to_json_line};
use serde_json::Value;

fn golden(version: &str, file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(version)
        .join(file)
}

fn bytes(version: &str, name: &str) -> Vec<u8> {
    fs::read(golden(version, &format!("{name}.bin"))).expect("golden bytes")
}

fn check<M: Message + Default>(version: &str, name: &str, event: impl Fn(M) -> Event) {
    let wire = bytes(version, name);
    let message = M::decode(wire.as_slice()).expect("decodes");
    assert_eq!(
        message.encode_to_vec(),
        wire,
        "{version}/{name}: other bytes"
    );
    let line = fs::read_to_string(golden(version, &format!("{name}.json"))).expect("golden line");
    let event = event(message);
    let today = to_json_line(&event).expect("writes");
    let today: Value = serde_json::from_str(&today).expect("JSON");
    let then: Value = serde_json::from_str(&line).expect("JSON");
    assert!(
        holds(&today, &then),
        "{version}/{name}: another line: {today}"
    );
    assert_eq!(serde_json::from_str::<Event>(&line).expect("reads"), event);
}

/// Whether all that a line said is still said; a later version may say more.
fn holds(today: &Value, then: &Value) -> bool {
    match (today, then) {
        (Value::Object(today), Value::Object(then)) => then
            .iter()
            .all(|(name, field)| today.get(name).is_some_and(|today| holds(today, field))),
        (Value::Array(today), Value::Array(then)) => {
            today.len() == then.len() && today.iter().zip(then).all(|(a, b)| holds(a, b))
        }
        (today, then) => today == then,
    }
}

#[test]
fn version_1_reads_and_writes_as_it_was() {
    check("v1", "window", |message: StreamWindow| {
        Event::Window(Box::new(message))
    });
    check("v1", "pulse", |message: StreamPulse| Event::Pulse(message));
    check("v1", "node", |message: NodeHeartbeat| {
        Event::Node(Box::new(message))
    });
}

#[test]
fn later_heartbeats_read_and_write_as_they_were() {
    for version in ["v1.1", "v1.2", "v1.3", "v1.4"] {
        check(version, "node", |message: NodeHeartbeat| {
            Event::Node(Box::new(message))
        });
    }
}

/// The newest version in which each message changed.
const NEWEST: [(&str, &str); 3] = [("v1", "window"), ("v1", "pulse"), ("v1.4", "node")];

/// Paths of all values that are zero or empty, as they are for a field that the golden file forgot.
fn unused(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields
                .iter()
                .for_each(|(name, field)| unused(field, &format!("{path}.{name}"), found));
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().for_each(|item| unused(item, path, found));
        }
        Value::Array(items) if !items.is_empty() => {}
        Value::String(text) if !text.is_empty() && text != "unspecified" => {}
        Value::Number(number) if number.as_f64() != Some(0.0) => {}
        Value::Bool(true) => {}
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn golden_files_use_every_field() {
    for (version, name) in NEWEST {
        let line =
            fs::read_to_string(golden(version, &format!("{name}.json"))).expect("golden line");
        let event: Event = serde_json::from_str(&line).expect("reads");
        let mut found = Vec::new();
        unused(
            &serde_json::to_value(&event).expect("writes"),
            name,
            &mut found,
        );
        assert_eq!(found, Vec::<String>::new());
    }
}

/// A field of each wire type with a number that no version has, as a newer schema may send it.
fn from_the_future() -> Vec<u8> {
    let mut wire = Vec::new();
    prost::encoding::uint64::encode(9_001, &300, &mut wire);
    prost::encoding::string::encode(9_002, &"newer".to_owned(), &mut wire);
    prost::encoding::double::encode(9_003, &0.5, &mut wire);
    prost::encoding::fixed32::encode(9_004, &7, &mut wire);
    wire
}

fn check_future<M: Message + Default + PartialEq + std::fmt::Debug>(name: &str) {
    let (wire, extra) = (bytes("v1", name), from_the_future());
    let known = M::decode(wire.as_slice()).expect("decodes");
    for newer in [[&extra[..], &wire].concat(), [&wire[..], &extra].concat()] {
        assert_eq!(
            M::decode(newer.as_slice()).expect("unknown fields are passed over"),
            known
        );
    }
}

#[test]
fn fields_of_a_newer_version_are_passed_over() {
    check_future::<StreamWindow>("window");
    check_future::<StreamPulse>("pulse");
    check_future::<NodeHeartbeat>("node");
    // Inside a nested message too: one more stream, which has only fields of the future.
    let mut wire = bytes("v1", "node");
    let streams = NodeHeartbeat::decode(wire.as_slice())
        .expect("decodes")
        .streams
        .len();
    prost::encoding::bytes::encode(17, &from_the_future(), &mut wire);
    assert_eq!(
        NodeHeartbeat::decode(wire.as_slice())
            .expect("decodes")
            .streams
            .len(),
        streams + 1
    );
}

#[test]
fn cut_bytes_are_an_error_or_a_shorter_event() {
    let wire = bytes("v1", "window");
    let whole = StreamWindow::decode(wire.as_slice()).expect("decodes");
    let shorter = (0..wire.len()).filter_map(|end| StreamWindow::decode(&wire[..end]).ok());
    assert!(shorter.fold(0, |count, event| count + usize::from(event != whole)) > 10);
    assert!(StreamWindow::decode(&wire[..wire.len() - 1]).is_err());
}
