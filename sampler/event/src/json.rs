//! JSON lines: the same names as the protobuf schema, `"type"` first, 64-bit numbers as numbers.
//!
//! Input: an event. Output: one line of JSON without its line feed. Words stand for numbers where a person reads them: `flags` is
//! a list of names, `rtt_source` and `life_cycle` are names, `config_sha256` is hexadecimal. Histograms keep their wire form.

use serde::{Deserialize, Serialize};

use crate::{NodeHeartbeat, StreamPulse, StreamWindow};

/// An event of any kind, as a JSON line shows it. The large kinds are boxed: queues hold events by the thousand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event {
    /// A stream's window.
    Window(Box<StreamWindow>),
    /// A stream's pulse.
    Pulse(StreamPulse),
    /// A node's heartbeat.
    Node(Box<NodeHeartbeat>),
}

/// An event that can be written as a JSON line without being copied.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum EventRef<'a> {
    /// A stream's window.
    Window(&'a StreamWindow),
    /// A stream's pulse.
    Pulse(&'a StreamPulse),
    /// A node's heartbeat.
    Node(&'a NodeHeartbeat),
}

impl<'a> From<&'a StreamWindow> for EventRef<'a> {
    fn from(window: &'a StreamWindow) -> Self {
        Self::Window(window)
    }
}

impl<'a> From<&'a StreamPulse> for EventRef<'a> {
    fn from(pulse: &'a StreamPulse) -> Self {
        Self::Pulse(pulse)
    }
}

impl<'a> From<&'a NodeHeartbeat> for EventRef<'a> {
    fn from(heartbeat: &'a NodeHeartbeat) -> Self {
        Self::Node(heartbeat)
    }
}

impl<'a> From<&'a Event> for EventRef<'a> {
    fn from(event: &'a Event) -> Self {
        match event {
            Event::Window(window) => Self::Window(window),
            Event::Pulse(pulse) => Self::Pulse(pulse),
            Event::Node(heartbeat) => Self::Node(heartbeat),
        }
    }
}

/// Writes an event as one line of JSON, without the line feed. A rate that is no number becomes `null`.
///
/// # Errors
/// Only if the JSON writer fails, which it does not for any value of these messages; the error is passed on, not hidden.
pub fn to_json_line<'a>(event: impl Into<EventRef<'a>>) -> Result<String, serde_json::Error> {
    serde_json::to_string(&event.into())
}

/// `flags` as a list of names; a bit without a name is `"bit_N"`.
pub(crate) mod flags {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::Flag;

    fn name(bit: u32) -> String {
        let known = i32::try_from(1u64 << bit)
            .ok()
            .and_then(|value| Flag::try_from(value).ok());
        match known {
            Some(flag) => flag
                .as_str_name()
                .trim_start_matches("FLAG_")
                .to_ascii_lowercase(),
            None => format!("bit_{bit}"),
        }
    }

    pub(crate) fn serialize<S: Serializer>(bits: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((0..u32::BITS).filter(|bit| bits >> bit & 1 == 1).map(name))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().try_fold(0, |bits, wanted| {
            let bit = (0..u32::BITS).find(|bit| name(*bit) == *wanted);
            bit.map(|bit| bits | 1 << bit)
                .ok_or_else(|| de::Error::custom(format!("unknown flag {wanted:?}")))
        })
    }
}

/// An enumeration as the lower-case name of its value without the prefix; a value without a name stays a number.
macro_rules! spelled_enum {
    ($module:ident, $type:ty, $prefix:literal) => {
        pub(crate) mod $module {
            use serde::{Deserialize, Deserializer, Serializer, de};

            #[derive(Deserialize)]
            #[serde(untagged)]
            enum Spelling {
                Name(String),
                Number(i32),
            }

            pub(crate) fn serialize<S: Serializer>(
                value: &i32,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                match <$type>::try_from(*value) {
                    Ok(known) => serializer.serialize_str(
                        &known
                            .as_str_name()
                            .trim_start_matches($prefix)
                            .to_ascii_lowercase(),
                    ),
                    Err(_) => serializer.serialize_i32(*value),
                }
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<i32, D::Error> {
                match Spelling::deserialize(deserializer)? {
                    Spelling::Number(value) => Ok(value),
                    Spelling::Name(name) => {
                        <$type>::from_str_name(&format!("{}{}", $prefix, name.to_ascii_uppercase()))
                            .map(i32::from)
                            .ok_or_else(|| de::Error::custom(format!("unknown name {name:?}")))
                    }
                }
            }
        }
    };
}

spelled_enum!(rtt_source, crate::RttSource, "RTT_SOURCE_");
spelled_enum!(life_cycle, crate::LifeCycle, "LIFE_CYCLE_");

/// Bytes as lower-case hexadecimal.
pub(crate) mod hex {
    use std::fmt::Write;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let text = bytes
            .iter()
            .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
                // Writing to a string cannot fail.
                let _ = write!(text, "{byte:02x}");
                text
            });
        serializer.serialize_str(&text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|digit| {
                digit
                    .to_digit(16)
                    .and_then(|value| u8::try_from(value).ok())
            })
            .collect();
        match digits {
            Some(digits) if digits.len() % 2 == 0 => Ok(digits
                .chunks(2)
                .map(|pair| pair[0] << 4 | pair[1])
                .collect()),
            _ => Err(de::Error::custom(
                "expected an even number of hexadecimal digits",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, to_json_line};
    use crate::{Flag, LifeCycle, NodeHeartbeat, RttSource, StreamPulse, StreamWindow};

    fn check(event: &Event, begins: &str, holds: &[&str]) {
        let line = to_json_line(event).expect("writes");
        assert!(line.starts_with(begins), "{line}");
        for part in holds {
            assert!(line.contains(part), "no {part} in {line}");
        }
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(
            &serde_json::from_str::<Event>(&line).expect("reads back"),
            event
        );
    }

    #[test]
    fn lines_begin_with_the_type_and_spell_words() {
        let window = StreamWindow {
            node: "edge\n07".into(),
            instance: u64::MAX,
            flags: Flag::LateRead as u32 | Flag::Biased as u32 | 1 << 31,
            rtt_source: RttSource::Callback.into(),
            rtt_counts: vec![3, 1, -4, 2],
            ..Default::default()
        };
        check(
            &Event::Window(Box::new(window)),
            r#"{"type":"window","node":"edge\n07","site":"#,
            &[
                r#""instance":18446744073709551615"#,
                r#""flags":["late_read","biased","bit_31"]"#,
                r#""rtt_source":"callback""#,
                r#""rtt_counts":[3,1,-4,2]"#,
            ],
        );
        check(
            &Event::Pulse(StreamPulse::default()),
            r#"{"type":"pulse","node":"#,
            &[r#""flags":[]"#],
        );
        let heartbeat = NodeHeartbeat {
            life_cycle: LifeCycle::Stopping.into(),
            rtt_source: 77,
            config_sha256: vec![0, 0xab, 0xff],
            ..Default::default()
        };
        check(
            &Event::Node(Box::new(heartbeat)),
            r#"{"type":"node","node":"#,
            &[
                r#""life_cycle":"stopping""#,
                r#""rtt_source":77"#,
                r#""config_sha256":"00abff""#,
            ],
        );
    }

    #[test]
    fn wrong_words_are_errors() {
        for line in [
            r#"{"type":"window","flags":["late"]}"#,
            r#"{"type":"node","life_cycle":"gone"}"#,
            r#"{"type":"node","config_sha256":"abc"}"#,
            r#"{"type":"node","config_sha256":"zz"}"#,
            r#"{"type":"other"}"#,
        ] {
            assert!(serde_json::from_str::<Event>(line).is_err(), "{line}");
        }
    }
}
