//! The sections of `sampler.toml` about where results go: Kafka and Prometheus.
//!
//! In: one section of the file. Out: its typed form; an option that is absent has the default
//! that `Default` gives.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use toml::de::DeValue;

use super::error::{Findings, Place, Wrong};
use super::names;
use super::reader::{Parsed, Section, shown, text};

/// `[kafka]`; its debug output names the properties without their values: some are passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port` of the first brokers to ask; empty: events go to standard output.
    pub brokers: Vec<String>,
    /// Topic of the windows.
    pub topic: String,
    /// For librdkafka, as they are.
    pub properties: BTreeMap<String, String>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            topic: "flowvitals.window.v1".to_owned(),
            properties: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl Kafka {
    /// It, and where its properties stand.
    pub(super) fn read(
        mut section: Section<'_>,
        findings: &mut Findings,
    ) -> (Self, BTreeMap<String, Place>) {
        let brokers = section.list(findings, "brokers", broker);
        let topic = section.or(findings, "topic", Self::default().topic, topic);
        let (properties, places) = section
            .table(findings, "properties", "kafka.properties")
            .map(|properties| read_properties(properties, findings))
            .unwrap_or_default();
        section.end(findings, &[]);
        let kafka = Self {
            brokers: brokers.into_iter().map(|(_, broker)| broker).collect(),
            topic,
            properties,
        };
        (kafka, places)
    }
}

fn broker(value: &DeValue<'_>) -> Parsed<String> {
    let text = text(value)?;
    let good = text.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let plain =
            !host.contains([':', '/', '[', ']', ',']) && !host.contains(char::is_whitespace);
        !host.is_empty() && (bracketed || plain) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    match good {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            format!("`{text}` is not a broker's address"),
            "host:port, for example 127.0.0.1:19092 or [2001:db8::7]:9092",
        )),
    }
}

fn topic(value: &DeValue<'_>) -> Parsed<String> {
    names::name(text(value)?, 249).and_then(|topic| match topic.as_str() {
        "." | ".." => Err(Wrong::new("is no topic name", "anything but . and ..")),
        _ => Ok(topic),
    })
}

fn read_properties(
    section: Section<'_>,
    findings: &mut Findings,
) -> (BTreeMap<String, String>, BTreeMap<String, Place>) {
    let mut properties = BTreeMap::new();
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

/// Which streams get Prometheus series of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesOf {
    /// The busiest so many.
    Top(u16),
    /// Every stream.
    All,
    /// None.
    Off,
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Loopback address of `/metrics` and `/healthz`.
    pub listen: SocketAddr,
    /// Which streams get series of their own.
    pub streams: SeriesOf,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9740)),
            streams: SeriesOf::Top(20),
        }
    }
}

impl Metrics {
    pub(super) fn read(mut section: Section<'_>, findings: &mut Findings) -> Self {
        let default = Self::default();
        let read = Self {
            listen: section.or(findings, "listen", default.listen, loopback),
            streams: section.or(findings, "streams", default.streams, series),
        };
        section.end(findings, &[]);
        read
    }
}

fn loopback(value: &DeValue<'_>) -> Parsed<SocketAddr> {
    const ALLOWED: &str = "a loopback address with port, such as 127.0.0.1:9740 or [::1]:9740";
    let text = text(value)?;
    let address: SocketAddr = text
        .parse()
        .map_err(|_| Wrong::new(format!("`{text}` is not an address with port"), ALLOWED))?;
    if !address.ip().to_canonical().is_loopback() {
        return Err(Wrong::new(
            format!("`{text}` can be reached from outside"),
            ALLOWED,
        ));
    }
    match address.port() {
        0 => Err(Wrong::new("port 0 cannot be found by a scraper", ALLOWED)),
        _ => Ok(address),
    }
}

fn series(value: &DeValue<'_>) -> Parsed<SeriesOf> {
    let text = text(value)?;
    let top = text
        .strip_prefix("top:")
        .and_then(|count| count.parse::<u16>().ok());
    match (text, top) {
        ("all", _) => Ok(SeriesOf::All),
        ("off", _) => Ok(SeriesOf::Off),
        (_, Some(count @ 1..=1024)) => Ok(SeriesOf::Top(count)),
        _ => Err(Wrong::new(
            format!("`{text}` is not a choice"),
            "\"top:N\" with N from 1 to 1024, \"all\", \"off\"",
        )),
    }
}
