//! The configuration of a node: `sampler.toml` and the files it includes.
//!
//! In: text. Out: a typed [`Config`] that needs no further checks, or everything that is wrong
//! with it, each with its place. Reading is pure but for [`Config::load`] (files) and [`key`]
//! (the sampling key). Flow: `source → reader → sections, stream → overlap → Config → diff`.
//!
//! Limits: [`MAX_STREAMS`] streams, [`service::config::file::MAX_FILE_BYTES`] a file, [`load::MAX_FILES`] files.
//! Streams stand in the order in which they are tried: main file first, then the included files.

pub mod diff;
pub mod key;
pub mod load;
mod outlets;
pub(crate) mod overlap;
pub mod pattern;
mod sections;
mod stream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use diff::{Change, diff};
pub use outlets::{CONTROL_SOCKET, Control, Kafka, Metrics, SeriesOf};
pub use pattern::{LocalPattern, PortRange};
pub use sections::{
    LimitAction, Limits, Sampling, Shutdown, Spool, State, WALK_BUDGET_PERCENT, WALK_NS_PER_SOCKET,
    Window, check_rate,
};
pub use service::config::{ConfigError, ConfigErrors, ConfigWarning, Place, Source, Wrong};
use service::config::{file, names};
pub use stream::{RTT_SLOW_US, StreamConfig, StreamPlaces};

/// Streams of one node.
pub const MAX_STREAMS: usize = ebpf_abi::rules::MAX_STREAMS;

/// Everything that `sampler.toml` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name of the node; none: the host name, see [`Config::node_name`].
    pub node: Option<String>,
    /// Name of the site.
    pub site: String,
    /// `[sampling]`
    pub sampling: Sampling,
    /// Where the options stand that only the machine can judge.
    pub places: NodePlaces,
    /// `[window]`
    pub window: Window,
    /// `[kafka]`
    pub kafka: Kafka,
    /// `[state]`
    pub state: State,
    /// `[spool]`
    pub spool: Spool,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[control]`
    pub control: Control,
    /// `[limits]`
    pub limits: Limits,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// The streams, in the order in which they are tried.
    pub streams: Vec<StreamConfig>,
    /// What works but is probably not meant.
    pub warnings: Vec<ConfigWarning>,
    /// Hash of what the files say: comments, spaces and the order of options do not matter.
    pub sha256: [u8; 32],
    /// The files, main file first.
    pub files: Vec<PathBuf>,
}

/// Where options of the node stand, if they are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodePlaces {
    /// `sampling.key_file`
    pub key_file: Option<Place>,
    /// `state.directory`
    pub state_directory: Option<Place>,
    /// `spool.directory`
    pub spool_directory: Option<Place>,
    /// `metrics.listen`
    pub metrics_listen: Option<Place>,
    /// `control.socket`
    pub control_socket: Option<Place>,
    /// `kafka.properties`, by name.
    pub kafka_properties: BTreeMap<String, Place>,
}

/// Name of the site when none is given.
pub const DEFAULT_SITE: &str = "default";

impl Default for Config {
    fn default() -> Self {
        let state = State::default();
        Self {
            node: None,
            site: DEFAULT_SITE.to_owned(),
            sampling: Sampling::default(),
            places: NodePlaces::default(),
            window: Window::default(),
            kafka: Kafka::default(),
            spool: Spool::below(&state),
            state,
            metrics: Metrics::default(),
            control: Control::default(),
            limits: Limits::default(),
            shutdown: Shutdown::default(),
            streams: Vec::new(),
            warnings: Vec::new(),
            sha256: [0; 32],
            files: Vec::new(),
        }
    }
}

impl Config {
    /// The configured name of this node, or else its host name.
    pub fn node_name(&self) -> String {
        self.node.clone().unwrap_or_else(|| {
            let host = hostname::get().map(|name| name.to_string_lossy().into_owned());
            host.ok()
                .and_then(|name| names::name(&name, names::MAX_NODE_BYTES).ok())
                .unwrap_or_else(|| "localhost".to_owned())
        })
    }

    /// [`Config::sha256`] as 64 hex digits.
    pub fn sha256_hex(&self) -> String {
        file::hex(&self.sha256)
    }

    /// The place of an option, or else of the main file.
    pub fn place_or_file(&self, place: &Option<Place>) -> Place {
        let main = || {
            self.files
                .first()
                .map_or(Path::new("sampler.toml"), PathBuf::as_path)
        };
        place.clone().unwrap_or_else(|| Place::whole(main()))
    }

    /// One stream without a file: what a person at a terminal asks for.
    pub fn ad_hoc(listen: &[LocalPattern], rate: f64) -> Result<Self, Wrong> {
        let rate = sections::check_rate(rate)?;
        let local: Vec<_> = listen
            .iter()
            .map(|pattern| format!("\"{pattern}\""))
            .collect();
        let text = format!(
            "[sampling]\nrate = {rate:?}\n[[stream]]\nname = \"adhoc\"\nlocal = [{}]\n",
            local.join(", ")
        );
        load::read(Source::new("--listen", text), |_| Ok(Vec::new())).map_err(|errors| {
            let messages: Vec<_> = errors.0.into_iter().map(|error| error.message).collect();
            Wrong::new(messages.join("; "), pattern::LOCAL_FORMS)
        })
    }
}

#[cfg(test)]
mod tests;
