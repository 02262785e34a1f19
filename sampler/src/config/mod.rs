//! The configuration of a node: `sampler.toml` and the files it includes.
//!
//! In: text. Out: a typed [`Config`] that needs no further checks, or everything that is wrong
//! with it, each with its place. Reading is pure but for [`Config::load`] (files) and [`key`]
//! (the sampling key). Flow: `source → reader → sections, stream → overlap → Config → diff`.
//!
//! Limits: [`MAX_STREAMS`] streams, [`load::MAX_FILE_BYTES`] a file, [`load::MAX_FILES`] files.
//! Streams stand in the order in which they are tried: main file first, then the included files.

pub mod diff;
pub mod error;
pub mod key;
pub mod load;
pub mod names;
mod outlets;
pub(crate) mod overlap;
pub mod pattern;
mod reader;
mod sections;
pub mod source;
mod stream;

use std::path::PathBuf;

pub use diff::{Change, diff};
pub use error::{ConfigError, ConfigErrors, ConfigWarning, Place, Wrong};
pub use outlets::{Kafka, Metrics, SeriesOf};
pub use pattern::{LocalPattern, PortRange};
pub use sections::{
    LimitAction, Limits, Sampling, Shutdown, Spool, State, WALK_BUDGET_PERCENT, WALK_NS_PER_SOCKET,
    Window,
};
pub use source::Source;
pub use stream::{RTT_SLOW_US, StreamConfig, StreamPlaces};

/// Streams of one node.
pub const MAX_STREAMS: usize = 1024;

/// Everything that `sampler.toml` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name of the node; none: the host name, see [`Config::node_name`].
    pub node: Option<String>,
    /// Name of the site.
    pub site: String,
    /// `[sampling]`
    pub sampling: Sampling,
    /// Where `key_file` stands, if it does.
    pub key_file_place: Option<Place>,
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

/// Name of the site when none is given.
pub const DEFAULT_SITE: &str = "default";

impl Default for Config {
    fn default() -> Self {
        let state = State::default();
        Self {
            node: None,
            site: DEFAULT_SITE.to_owned(),
            sampling: Sampling::default(),
            key_file_place: None,
            window: Window::default(),
            kafka: Kafka::default(),
            spool: Spool::below(&state),
            state,
            metrics: Metrics::default(),
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
        self.sha256
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// One stream without a file: what a person at a terminal asks for.
    ///
    /// Each of `listen` is a local pattern such as `*:443`.
    pub fn ad_hoc(listen: &[String], rate: f64) -> Result<Self, Wrong> {
        let rate = sections::check_rate(rate)?;
        let patterns: Vec<_> = listen
            .iter()
            .map(|text| {
                text.parse::<LocalPattern>()
                    .map(|pattern| pattern.to_string())
            })
            .collect::<Result<_, _>>()?;
        let local = patterns
            .iter()
            .map(|p| format!("{p:?}"))
            .collect::<Vec<_>>()
            .join(", ");
        let text = format!(
            "[sampling]\nrate = {rate:?}\n[[stream]]\nname = \"adhoc\"\nlocal = [{local}]\n"
        );
        let no_includes = |_: &str| Ok(Vec::new());
        load::read(Source::new("--listen", text), no_includes).map_err(|errors| {
            let first = errors.0.into_iter().next();
            first.map_or_else(
                || Wrong::new("is wrong", pattern::LOCAL_FORMS),
                |error| Wrong::new(error.message, error.allowed),
            )
        })
    }
}

#[cfg(test)]
mod tests;
