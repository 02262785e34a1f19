//! Events as they were recorded: JSON lines, as a sampler without brokers writes them and `backtest --export` too.
//!
//! Input: a file. Output: events that hold to the contract, each with the time at which a broker took it: `append_ms` at the end of its line, or
//! else when the event left its node. Limits: [`MAX_EVENTS`] events.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use sampler_event::{Event, Message};
use serde::{Deserialize, Serialize};

use crate::input::{Raw, Topic, decode};

/// Events of one test.
pub const MAX_EVENTS: usize = 500_000;
/// A line that is longer is none of ours.
const MAX_LINE_BYTES: u64 = 4 << 20;
/// A node's event reaches the brokers so soon, ms.
pub const DELAY_MS: u64 = 50;

/// An event and when a broker took it, Unix ms.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The event.
    pub event: Event,
    /// When a broker took it.
    pub append_ms: u64,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line<E> {
    #[serde(flatten)]
    event: E,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    append_ms: Option<u64>,
}

/// Writes one event as a line.
///
/// # Errors
/// Those of `out`.
pub fn write(event: &Event, append_ms: u64, out: &mut dyn Write) -> io::Result<()> {
    let line = Line {
        event,
        append_ms: Some(append_ms),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

/// Start of an event's window or pulse, Unix ms.
pub fn start_ms(event: &Event) -> u64 {
    match event {
        Event::Window(window) => window.window_start_ms,
        Event::Pulse(pulse) => pulse.pulse_start_ms,
        Event::Node(heartbeat) => heartbeat.window_start_ms,
    }
}

/// When it reached the brokers, as far as it says so itself.
fn left_ms(event: &Event) -> u64 {
    let (emitted_ms, length_ms) = match event {
        Event::Window(window) => (window.emitted_ms, window.window_ms.max(window.observed_ms)),
        Event::Pulse(pulse) => (0, pulse.pulse_ms.max(pulse.observed_ms)),
        Event::Node(heartbeat) => (heartbeat.emitted_ms, heartbeat.window_ms),
    };
    let end_ms = start_ms(event).saturating_add(length_ms.into());
    emitted_ms.max(end_ms).saturating_add(DELAY_MS)
}

/// Why a file is none: a line (0: the file), and what is wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct RecordedError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads all events of a file.
///
/// # Errors
/// The first line that is no event.
pub fn read(file: &Path) -> Result<Vec<Recorded>, RecordedError> {
    let wrong = |line, message: String| RecordedError { line, message };
    let open = File::open(file).map_err(|error| wrong(0, format!("cannot be read: {error}")))?;
    let (mut from, mut text, mut events) = (BufReader::new(open), Vec::new(), Vec::new());
    for line in 1.. {
        text.clear();
        let read = io::Read::take(&mut from, MAX_LINE_BYTES).read_until(b'\n', &mut text);
        let count = read.map_err(|error| wrong(line, format!("cannot be read: {error}")))?;
        if count == 0 {
            break;
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        if events.len() >= MAX_EVENTS {
            return Err(wrong(line, format!("more than {MAX_EVENTS} events")));
        }
        events.push(parse(&text).map_err(|message| wrong(line, message))?);
    }
    Ok(events)
}

fn parse(line: &[u8]) -> Result<Recorded, String> {
    let line: Line<Event> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let append_ms = line.append_ms.unwrap_or_else(|| left_ms(&line.event));
    check(&line.event, append_ms)?;
    Ok(Recorded {
        event: line.event,
        append_ms,
    })
}

/// Whether the event would pass as a record of its topic.
pub fn check(event: &Event, append_ms: u64) -> Result<(), String> {
    let (topic, key, payload) = match event {
        Event::Window(window) => (Topic::Window, &window.stream, window.encode_to_vec()),
        Event::Pulse(pulse) => (Topic::Pulse, &pulse.stream, pulse.encode_to_vec()),
        Event::Node(heartbeat) => (Topic::Node, &heartbeat.node, heartbeat.encode_to_vec()),
    };
    let raw = Raw {
        topic,
        partition: 0,
        offset: 0,
        append_ms,
        key: Some(key.as_bytes()),
        schema: Some(topic.schema().as_bytes()),
        payload: Some(&payload),
    };
    decode(&raw)
        .map(drop)
        .map_err(|refused| format!("is no event: {refused}"))
}

#[cfg(test)]
mod tests {
    use sampler_event::{NodeHeartbeat, StreamPulse, StreamWindow};

    use super::*;

    fn window() -> StreamWindow {
        StreamWindow {
            node: "edge-1".to_owned(),
            site: "ams1".to_owned(),
            stream: "sport-1".to_owned(),
            instance: u64::MAX,
            window_start_ms: 5_000,
            window_ms: 1_000,
            observed_ms: 1_000,
            sampling_rate: 0.5,
            flags: 16,
            rtt_counts: vec![3, -4, 2],
            ..StreamWindow::default()
        }
    }

    fn events() -> Vec<Event> {
        let pulse = StreamPulse {
            node: "edge-1".to_owned(),
            site: "ams1".to_owned(),
            stream: "sport-1".to_owned(),
            pulse_start_ms: 5_000,
            pulse_ms: 100,
            ..StreamPulse::default()
        };
        let heartbeat = NodeHeartbeat {
            node: "edge-1".to_owned(),
            site: "ams1".to_owned(),
            window_start_ms: 5_000,
            window_ms: 1_000,
            config_sha256: vec![7; 32],
            ..NodeHeartbeat::default()
        };
        let window = StreamWindow {
            rtt_counts: Vec::new(),
            ..window()
        };
        vec![
            Event::Window(Box::new(window)),
            Event::Pulse(pulse),
            Event::Node(Box::new(heartbeat)),
        ]
    }

    #[test]
    fn lines_read_back_with_their_time() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        for (at, event) in events().iter().enumerate() {
            write(event, 7_000 + at as u64, &mut file).expect("written");
        }
        let found = read(file.path()).expect("events");
        let (read_back, times): (Vec<_>, Vec<_>) = found
            .into_iter()
            .map(|found| (found.event, found.append_ms))
            .unzip();
        assert_eq!((read_back, times), (events(), vec![7_000, 7_001, 7_002]));
        let text = std::fs::read_to_string(file.path()).expect("text");
        assert!(text.starts_with("{\"type\":\"window\","), "{text}");
        assert!(text.contains(",\"append_ms\":7000}\n"), "{text}");
    }

    #[test]
    fn a_samplers_own_lines_have_no_time_of_a_broker() {
        let line = sampler_event::to_json_line(&events()[0]).expect("a line");
        let found = parse(line.as_bytes()).expect("an event");
        assert_eq!(found.append_ms, 6_050);
    }

    #[test]
    fn what_is_no_event_has_its_line() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let good = sampler_event::to_json_line(&events()[1]).expect("a line");
        let mut broken = window();
        broken.window_ms = 7;
        let broken = sampler_event::to_json_line(&broken).expect("a line");
        for (second, why) in [
            ("{}", "missing field `type`"),
            ("no", "expected ident"),
            (&*broken, "is no event: malformed: window_ms"),
        ] {
            std::fs::write(file.path(), format!("{good}\n\n{second}\n")).expect("written");
            let error = read(file.path()).expect_err(second);
            assert_eq!(error.line, 3);
            assert!(error.message.contains(why), "{error}");
        }
    }
}
