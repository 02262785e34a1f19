//! The sections of `aggregator.toml` but for the rules.
//!
//! In: one section of the file. Out: its typed form; a section or option that is absent has the default that `Default`
//! gives. Units are part of the names.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use service::config::error::{Findings, Place, Wrong};
use service::config::kafka::{self, Properties};
use service::config::names::{self, MAX_NAME_BYTES};
use service::config::network::{is_host, is_host_and_port};
use service::config::reader::{Parsed, Section, absolute_path, choice, text, whole};
use toml::de::DeValue;

use crate::merge::MAX_WINDOWS;

/// What an aggregator does; every role has a consumer group of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Merges what is live, answers, raises alerts.
    Alert,
    /// Stores roll-ups.
    Store,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alert => "alert",
            Self::Store => "store",
        })
    }
}

const ROLES: [(&str, Role); 2] = [("alert", Role::Alert), ("store", Role::Store)];

/// The option `roles`; none: absent or wrong.
pub(super) fn roles(section: &mut Section<'_>, findings: &mut Findings) -> Option<Vec<Role>> {
    let place = section.place_if_set("roles")?;
    let before = findings.errors.len();
    let listed = section.list(findings, "roles", |value| choice(value, &ROLES));
    let mut roles = Vec::new();
    for (place, role) in listed {
        match roles.contains(&role) {
            true => {
                let wrong = Wrong::new(format!("`{role}` is listed twice"), "every role once");
                findings.error(place, "roles", wrong);
            }
            false => roles.push(role),
        }
    }
    if roles.is_empty() && findings.errors.len() == before {
        let wrong = Wrong::new("is empty: there is nothing to do", "\"alert\", \"store\"");
        findings.error(place, "roles", wrong);
    }
    (!roles.is_empty()).then_some(roles)
}

/// `[kafka]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port` of the first brokers to ask; empty: nothing can be run.
    pub brokers: Vec<String>,
    /// What the names of the consumer groups begin with.
    pub group_prefix: String,
    /// For librdkafka, as they are.
    pub properties: Properties,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            group_prefix: "flowvitals".to_owned(),
            properties: Properties::default(),
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
        let default = Self::default().group_prefix;
        let group_prefix = section.or(findings, "group_prefix", default, |value| {
            names::name(text(value)?, MAX_NAME_BYTES)
        });
        let (properties, places) = kafka::properties(&mut section, findings);
        section.end(findings, &[]);
        let kafka = Self {
            brokers,
            group_prefix,
            properties,
        };
        (kafka, places)
    }
}

/// `[merge]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// How long after its end a window is waited for.
    pub lateness_ms: u32,
    /// A node that was silent for so long is expected no more.
    pub node_forget_after_s: u32,
    /// Windows of one node and stream that are held in memory at most.
    pub max_windows: u32,
}

impl Default for Merge {
    fn default() -> Self {
        Self {
            lateness_ms: 2_000,
            node_forget_after_s: 900,
            max_windows: MAX_WINDOWS as u32,
        }
    }
}

impl Merge {
    pub(super) fn read(mut section: Section<'_>, findings: &mut Findings) -> Self {
        let default = Self::default();
        let lateness = u64::from(default.lateness_ms);
        let forget = u64::from(default.node_forget_after_s);
        let windows = u64::from(default.max_windows);
        let read = Self {
            lateness_ms: section.or(findings, "lateness_ms", lateness, |value| {
                whole(value, 100..=60_000)
            }) as u32,
            // Three heartbeats of the longest window must fit, or a node that lives would be forgotten.
            node_forget_after_s: section.or(findings, "node_forget_after_s", forget, |value| {
                whole(value, 30..=86_400)
            }) as u32,
            max_windows: section.or(findings, "max_windows", windows, |value| {
                whole(value, 10_000..=1_000_000_000)
            }) as u32,
        };
        section.end(findings, &[]);
        read
    }
}

/// Where roll-ups go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// Files of this process.
    Embedded,
    /// A Cassandra cluster.
    Cassandra,
    /// Nowhere.
    None,
}

const STORE_KINDS: [(&str, StoreKind); 3] = [
    ("embedded", StoreKind::Embedded),
    ("cassandra", StoreKind::Cassandra),
    ("none", StoreKind::None),
];

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Where roll-ups go.
    pub kind: StoreKind,
    /// Files of the embedded store.
    pub directory: PathBuf,
    /// `host:port` of the first Cassandra nodes to ask.
    pub contact_points: Vec<String>,
    /// Cassandra keyspace.
    pub keyspace: String,
    /// Cassandra data centre that is asked first.
    pub local_datacenter: String,
    /// Cassandra user; none: no login.
    pub username: Option<String>,
    /// File with that user's password.
    pub password_file: Option<PathBuf>,
    /// Certificates that the Cassandra nodes' must be signed by; none: no TLS.
    pub tls_ca: Option<PathBuf>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: StoreKind::Embedded,
            directory: PathBuf::from("/var/lib/flowvitals/store"),
            contact_points: vec!["127.0.0.1:9042".to_owned()],
            keyspace: "flowvitals".to_owned(),
            local_datacenter: "dc1".to_owned(),
            username: None,
            password_file: None,
            tls_ca: None,
        }
    }
}

/// Options that only the embedded store has a use for, and those of Cassandra.
const EMBEDDED_ONLY: [&str; 1] = ["directory"];
const CASSANDRA_ONLY: [&str; 6] = [
    "contact_points",
    "keyspace",
    "local_datacenter",
    "username",
    "password_file",
    "tls_ca",
];

impl Store {
    pub(super) fn read(mut section: Section<'_>, findings: &mut Findings) -> Self {
        let default = Self::default();
        let points = section.place_if_set("contact_points");
        let contact_points = section.list(findings, "contact_points", contact_point);
        let read = Self {
            kind: section.or(findings, "kind", default.kind, |value| {
                choice(value, &STORE_KINDS)
            }),
            directory: section.or(findings, "directory", default.directory, absolute_path),
            contact_points: match points {
                None => default.contact_points,
                Some(_) => contact_points.into_iter().map(|(_, point)| point).collect(),
            },
            keyspace: section.or(findings, "keyspace", default.keyspace, keyspace),
            local_datacenter: section.or(
                findings,
                "local_datacenter",
                default.local_datacenter,
                |value| names::name(text(value)?, MAX_NAME_BYTES),
            ),
            username: section
                .optional(findings, "username", |value| text(value).map(str::to_owned))
                .filter(|name| !name.is_empty()),
            password_file: section.optional(findings, "password_file", absolute_path),
            tls_ca: section.optional(findings, "tls_ca", absolute_path),
        };
        read.warn_of_idle(&mut section, findings);
        section.end(findings, &[]);
        read
    }

    /// Finds what this kind of store has no use for. The contract's file names nodes beside an embedded store, as a reminder:
    /// defaults pass.
    fn warn_of_idle(&self, section: &mut Section<'_>, findings: &mut Findings) {
        let default = Self::default();
        let usual = |key: &str| match key {
            "contact_points" => self.contact_points == default.contact_points,
            "keyspace" => self.keyspace == default.keyspace,
            "local_datacenter" => self.local_datacenter == default.local_datacenter,
            "username" => self.username.is_none(),
            "directory" => self.directory == default.directory,
            _ => false,
        };
        let (idle, why): (Vec<&str>, _) = match self.kind {
            StoreKind::Embedded => (
                CASSANDRA_ONLY
                    .into_iter()
                    .filter(|key| !usual(key))
                    .collect(),
                "the store is embedded",
            ),
            StoreKind::Cassandra => (
                EMBEDDED_ONLY
                    .into_iter()
                    .filter(|key| !usual(key))
                    .collect(),
                "the store is Cassandra",
            ),
            StoreKind::None => (
                EMBEDDED_ONLY.into_iter().chain(CASSANDRA_ONLY).collect(),
                "nothing is stored with kind = \"none\"",
            ),
        };
        for key in idle {
            if let Some(place) = section.place_if_set(key) {
                let message = format!("has no effect: {why}");
                findings.warn(place, &section.name(key), message);
            }
        }
    }
}

fn contact_point(value: &DeValue<'_>) -> Parsed<String> {
    let text = text(value)?;
    match is_host_and_port(text) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            format!("`{text}` is not a node's address"),
            "host:port, for example 127.0.0.1:9042 or [2001:db8::7]:9042",
        )),
    }
}

/// As Cassandra takes it without quotes.
fn keyspace(value: &DeValue<'_>) -> Parsed<String> {
    const MAX_BYTES: usize = 48;
    let text = text(value)?;
    let good = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && text.len() <= MAX_BYTES;
    match good {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            format!("`{text}` is not a keyspace"),
            format!("a letter of a-z, then a-z 0-9 _; at most {MAX_BYTES} characters"),
        )),
    }
}

/// `[alertmanager]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alertmanager {
    /// Base URLs without a slash at the end; all of them get every alert. Empty: alerts go to their topic only.
    pub urls: Vec<String>,
    /// User of a basic login; none: no such login.
    pub username: Option<String>,
    /// File with that user's password.
    pub password_file: Option<PathBuf>,
    /// File with a bearer token, instead of a user.
    pub token_file: Option<PathBuf>,
    /// Certificates that theirs must be signed by; none: those that the system trusts.
    pub tls_ca: Option<PathBuf>,
}

/// Options that name files.
const ALERTMANAGER_FILES: [&str; 3] = ["password_file", "token_file", "tls_ca"];

impl Alertmanager {
    /// It, and where the options stand that name files.
    pub(super) fn read(
        mut section: Section<'_>,
        findings: &mut Findings,
    ) -> (Self, BTreeMap<&'static str, Place>) {
        let urls = base_urls(&mut section, findings);
        let places = ALERTMANAGER_FILES
            .into_iter()
            .filter_map(|key| Some((key, section.place_if_set(key)?)))
            .collect();
        let read = Self {
            urls,
            username: section.optional(findings, "username", user),
            password_file: section.optional(findings, "password_file", absolute_path),
            token_file: section.optional(findings, "token_file", absolute_path),
            tls_ca: section.optional(findings, "tls_ca", absolute_path),
        };
        read.hold_together(&mut section, findings);
        section.end(findings, &[]);
        (read, places)
    }

    /// Finds what makes no sense together.
    fn hold_together(&self, section: &mut Section<'_>, findings: &mut Findings) {
        // What is set and wrong was reported already.
        let user = section.place_if_set("username").is_some();
        let password = section.place_if_set("password_file").is_some();
        let mut error = |key: &'static str, message: &str, allowed: &str| {
            if let Some(place) = section.place_if_set(key) {
                let name = section.name(key);
                findings.error(place, &name, Wrong::new(message, allowed));
            }
        };
        const PAIR: &str = "username and password_file together";
        if !password {
            error("username", "there is no password_file beside it", PAIR);
        }
        if !user {
            error("password_file", "there is no username beside it", PAIR);
        } else {
            error(
                "token_file",
                "there is a username as well",
                "one way to log in: a user's password or a token",
            );
        }
        let secure = |url: &String| url.starts_with("https://");
        if !self.urls.is_empty()
            && !self.urls.iter().any(secure)
            && let Some(place) = section.place_if_set("tls_ca")
        {
            let message = "has no effect: no URL begins with https://".to_owned();
            findings.warn(place, "alertmanager.tls_ca", message);
        }
        for (key, set) in [
            ("username", self.username.is_some()),
            ("token_file", self.token_file.is_some()),
        ] {
            let open = self.urls.iter().find(|url| !secure(url));
            if let (true, Some(url), Some(place)) = (set, open, section.place_if_set(key)) {
                let message = format!("goes to {url} unencrypted");
                findings.warn(place, &section.name(key), message);
            }
        }
    }
}

fn base_urls(section: &mut Section<'_>, findings: &mut Findings) -> Vec<String> {
    let mut urls = Vec::new();
    for (place, url) in section.list(findings, "urls", base_url) {
        match urls.contains(&url) {
            true => {
                let wrong = Wrong::new(format!("`{url}` is listed twice"), "every URL once");
                findings.error(place, "alertmanager.urls", wrong);
            }
            false => urls.push(url),
        }
    }
    urls
}

/// As a basic login takes it.
fn user(value: &DeValue<'_>) -> Parsed<String> {
    let text = text(value)?;
    let good = !text.is_empty()
        && text.len() <= MAX_NAME_BYTES
        && !text.contains(|c: char| c == ':' || c.is_control());
    match good {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            format!("`{text}` is not a user's name"),
            format!("1 to {MAX_NAME_BYTES} bytes without a colon"),
        )),
    }
}

/// `http://host` or `https://host`, with a port and a path where there are any.
fn base_url(value: &DeValue<'_>) -> Parsed<String> {
    const ALLOWED: &str =
        "http://host:port or https://host:port, with a path if it is served below one";
    let text = text(value)?;
    let rest = text.strip_prefix("http://");
    let good = rest.or(text.strip_prefix("https://")).is_some_and(|rest| {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/%".contains(c);
        let host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        authority.chars().all(host)
            && (is_host(authority) || is_host_and_port(authority))
            && path.chars().all(plain)
    });
    match good {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err(Wrong::new(format!("`{text}` is not a base URL"), ALLOWED)),
    }
}
