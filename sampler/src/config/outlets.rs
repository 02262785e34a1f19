//! The sections of `sampler.toml` about who talks with the daemon: Kafka, Prometheus, and an operator.
//!
//! In: one section of the file. Out: its typed form; an option that is absent has the default
//! that `Default` gives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use toml::de::DeValue;

use service::config::error::{Findings, Place, Wrong};
use service::config::kafka::{self, Properties};
use service::config::network;
use service::config::reader::{Parsed, Section, absolute_path, text};

/// `[kafka]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port` of the first brokers to ask; empty: events go to standard output.
    pub brokers: Vec<String>,
    /// Topic of the windows.
    pub topic: String,
    /// For librdkafka, as they are.
    pub properties: Properties,
    /// The file with the client's password.
    pub password_file: Option<PathBuf>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            topic: service::topics::WINDOW.to_owned(),
            properties: Properties::default(),
            password_file: None,
        }
    }
}

impl Kafka {
    /// It, and where its properties stand.
    pub(super) fn read(
        mut section: Section<'_>,
        findings: &mut Findings,
    ) -> (Self, BTreeMap<String, Place>) {
        let brokers = kafka::brokers(&mut section, findings);
        let topic = section.or(findings, "topic", Self::default().topic, kafka::topic);
        let (properties, places) = kafka::properties(&mut section, findings);
        let password_file = section.optional(findings, "password_file", absolute_path);
        section.end(findings, &[]);
        let kafka = Self {
            brokers,
            topic,
            properties,
            password_file,
        };
        (kafka, places)
    }
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
            listen: section.or(findings, "listen", default.listen, |value| {
                network::loopback(value, default.listen.port())
            }),
            streams: section.or(findings, "streams", default.streams, series),
        };
        section.end(findings, &[]);
        read
    }
}

/// Where the daemon listens for [`Control`], unless it is said.
pub const CONTROL_SOCKET: &str = "/run/flowvitals/sampler.sock";

/// `[control]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Unix socket for live changes.
    pub socket: PathBuf,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(CONTROL_SOCKET),
        }
    }
}

impl Control {
    pub(super) fn read(mut section: Section<'_>, findings: &mut Findings) -> Self {
        let default = Self::default().socket;
        let socket = section.or(findings, "socket", default, absolute_path);
        section.end(findings, &[]);
        Self { socket }
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
