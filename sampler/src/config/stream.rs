//! One `[[stream]]`: which flows it takes, how many are sampled, what is said about it.

use std::collections::BTreeMap;

use ipnet::IpNet;
use toml::de::DeValue;

use super::pattern::{LOCAL_FORMS, LocalPattern, client_prefixes, parse_client};
use super::sections::rate;
use service::config::error::{Findings, Place, Wrong};
use service::config::labels;
use service::config::names::{self, MAX_NAME_BYTES};
use service::config::reader::{Parsed, Section, one_of, text, whole};

/// `rtt_slow_us` of a stream that sets none.
pub const RTT_SLOW_US: u32 = 200_000;
/// Options whose names are taken for later.
const RESERVED: [&str; 2] = ["sni", "host"];

/// A stream and its rule.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamConfig {
    /// Its name: unique, at most 64 bytes.
    pub name: String,
    /// Our addresses and ports; a flow needs one of them.
    pub local: Vec<LocalPattern>,
    /// Client prefixes; a flow needs one of them; empty is every client.
    pub remote: Vec<IpNet>,
    /// The cgroup of the listener, or a parent of it.
    pub cgroup: Option<String>,
    /// `SO_MARK` at establishment.
    pub mark: Option<u32>,
    /// Sampling rate, 0 to 1.
    pub rate: f64,
    /// Time between two pulses; 0 is none.
    pub pulse_ms: u32,
    /// Bitrate of the video, if known.
    pub bitrate_bps: Option<u64>,
    /// RTT samples above it are slow.
    pub rtt_slow_us: u32,
    /// Said about the stream in metrics and alerts.
    pub labels: BTreeMap<String, String>,
    /// Where all this stands; not part of the meaning.
    pub places: StreamPlaces,
}

/// Where a stream stands in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPlaces {
    /// Its `[[stream]]`.
    pub stream: Place,
    /// Its name.
    pub name: Place,
    /// Each entry of `local`.
    pub local: Vec<Place>,
}

impl StreamConfig {
    /// Reads one `[[stream]]`. None if it has no usable name.
    pub(super) fn read(
        mut section: Section<'_>,
        default_rate: f64,
        findings: &mut Findings,
    ) -> Option<Self> {
        let place = section.place();
        let name_place = section.value("name").map(|value| section.place_of(value));
        let name = section.optional(findings, "name", |value| {
            names::name(text(value)?, MAX_NAME_BYTES)
        });
        let local = read_local(&mut section, findings);
        let remote = read_remote(&mut section, findings);
        let cgroup = section.optional(findings, "cgroup", cgroup_path);
        let mark = section.optional(findings, "mark", |value| whole(value, 0..=u32::MAX.into()));
        let rate = section.or(findings, "rate", default_rate, rate);
        let pulse_ms = section.or(findings, "pulse_ms", 0, |value| {
            one_of(value, &[0, 100, 200, 500])
        });
        let bitrate_bps = section.optional(findings, "bitrate_bps", |value| {
            whole(value, 1..=1_000_000_000_000)
        });
        let rtt_slow_us = section.or(findings, "rtt_slow_us", u64::from(RTT_SLOW_US), |value| {
            whole(value, 64..=67_000_000)
        });
        let labels = section
            .table(findings, "labels", "stream.labels")
            .map(|section| labels::labels(section, "stream", findings))
            .unwrap_or_default();
        if section.value("name").is_none() {
            let wrong = Wrong::new("is missing", "name = \"…\" in every [[stream]]");
            findings.error(place.clone(), "stream.name", wrong);
        }
        for key in RESERVED {
            section.refuse(findings, key, "is reserved and not built yet; remove it");
        }
        section.end(findings, &RESERVED);
        let (local_places, local) = local.into_iter().unzip();
        Some(Self {
            name: name?,
            local,
            remote,
            cgroup,
            mark: mark.map(|mark| mark as u32),
            rate,
            pulse_ms: pulse_ms as u32,
            bitrate_bps,
            rtt_slow_us: rtt_slow_us as u32,
            labels,
            places: StreamPlaces {
                name: name_place.unwrap_or_else(|| place.clone()),
                stream: place,
                local: local_places,
            },
        })
    }

    /// Whether a canonical client address is one of the stream's.
    pub fn takes_client(&self, client: std::net::IpAddr) -> bool {
        self.remote.is_empty() || self.remote.iter().any(|net| net.contains(&client))
    }
}

fn read_local(section: &mut Section<'_>, findings: &mut Findings) -> Vec<(Place, LocalPattern)> {
    let before = findings.errors.len();
    let local = section.list(findings, "local", |value| {
        text(value)?.parse::<LocalPattern>()
    });
    if local.is_empty() && findings.errors.len() == before {
        let wrong = Wrong::new("is missing or empty: the stream has no flows", LOCAL_FORMS);
        let place = section.value("local").map(|value| section.place_of(value));
        findings.error(
            place.unwrap_or_else(|| section.place()),
            "stream.local",
            wrong,
        );
    }
    local
}

fn read_remote(section: &mut Section<'_>, findings: &mut Findings) -> Vec<IpNet> {
    let remote = section.list(findings, "remote", |value| parse_client(text(value)?));
    let all_v6 = |net: &IpNet| matches!(net, IpNet::V6(_)) && net.prefix_len() == 0;
    let at = remote
        .iter()
        .find(|(_, net)| all_v6(net))
        .map(|(place, _)| place.clone());
    match client_prefixes(remote.into_iter().map(|(_, net)| net).collect()) {
        Ok(nets) => nets,
        Err(wrong) => {
            let place = at.unwrap_or_else(|| section.place());
            findings.error(place, "stream.remote", wrong);
            Vec::new()
        }
    }
}

fn cgroup_path(value: &DeValue<'_>) -> Parsed<String> {
    let text = text(value)?;
    let good = text.starts_with('/')
        && !text.contains('\0')
        && text.split('/').all(|part| part != "." && part != "..")
        && !text.starts_with("/sys/fs/cgroup");
    match good {
        true => Ok(format!(
            "/{}",
            text.split('/')
                .filter(|p| !p.is_empty())
                .collect::<Vec<_>>()
                .join("/")
        )),
        false => Err(Wrong::new(
            format!("`{text}` is not a cgroup path"),
            "a path below the cgroup-v2 mount that begins with /, such as /system.slice/nginx.service",
        )),
    }
}
