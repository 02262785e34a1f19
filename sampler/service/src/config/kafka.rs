//! What every client of Kafka is told in `[kafka]`: brokers, names of topics, properties.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};

use toml::de::DeValue;

use super::error::{Findings, Place, Wrong};
use super::names;
use super::network::is_host_and_port;
use super::reader::{Parsed, Section, shown, text};

/// Longest name of a topic, bytes: Kafka's own limit.
pub const MAX_TOPIC_BYTES: usize = 249;

/// `[kafka.properties]`, for librdkafka as they are; the debug output has their names without their values: some are
/// passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(pub BTreeMap<String, String>);

impl Deref for Properties {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Properties {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// The option `brokers`: `host:port` of the first brokers to ask.
pub fn brokers(section: &mut Section<'_>, findings: &mut Findings) -> Vec<String> {
    let brokers = section.list(findings, "brokers", broker);
    brokers.into_iter().map(|(_, broker)| broker).collect()
}

/// The table `properties`, and where each of them stands.
pub fn properties(
    section: &mut Section<'_>,
    findings: &mut Findings,
) -> (Properties, BTreeMap<String, Place>) {
    section
        .table(findings, "properties", "kafka.properties")
        .map(|properties| read_properties(properties, findings))
        .unwrap_or_default()
}

/// The name of a topic.
///
/// # Errors
/// If Kafka would not take it.
pub fn topic(value: &DeValue<'_>) -> Parsed<String> {
    names::name(text(value)?, MAX_TOPIC_BYTES).and_then(|topic| match topic.as_str() {
        "." | ".." => Err(Wrong::new("is no topic name", "anything but . and ..")),
        _ => Ok(topic),
    })
}

fn broker(value: &DeValue<'_>) -> Parsed<String> {
    let text = text(value)?;
    match is_host_and_port(text) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            format!("`{text}` is not a broker's address"),
            "host:port, for example 127.0.0.1:19092 or [2001:db8::7]:9092",
        )),
    }
}

fn read_properties(
    section: Section<'_>,
    findings: &mut Findings,
) -> (Properties, BTreeMap<String, Place>) {
    let mut properties = Properties::default();
    let mut places = BTreeMap::new();
    for (key_place, key, value_place, value) in section.entries() {
        let option = format!("kafka.properties.{key}");
        if matches!(key, "bootstrap.servers" | "metadata.broker.list") {
            let wrong = Wrong::new("the brokers have their own option", "[kafka] brokers");
            findings.error(key_place, &option, wrong);
            continue;
        }
        let text = match value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => Some(shown(value)),
            _ => None,
        };
        match text {
            Some(text) => {
                properties.insert(key.to_owned(), text);
                places.insert(key.to_owned(), key_place);
            }
            None => {
                let message = format!("is of type {}", value.type_str());
                let allowed = "a text, number or boolean; names with dots in quotes";
                findings.error(value_place, &option, Wrong::new(message, allowed));
            }
        }
    }
    (properties, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_the_values() {
        let mut properties = Properties::default();
        properties.insert("sasl.password".to_owned(), "secret".to_owned());
        assert_eq!(format!("{properties:?}"), r#"["sasl.password"]"#);
    }
}
