//! From files to a [`Config`].
//!
//! [`read`] is pure: the caller says what an include pattern finds. [`Config::load`] asks the
//! file system. Every error of every file is reported in one go.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::outlets::{Control, Kafka, Metrics};
use super::overlap;
use super::sections::{Limits, Sampling, Shutdown, Spool, State, Window};
use super::stream::StreamConfig;
use super::{Config, MAX_STREAMS};
use crate::rules::{CompileError, RuleSet};
use service::config::error::{ConfigError, ConfigErrors, Findings, Place, Wrong, file_error};
use service::config::file;
use service::config::names::{self, MAX_NAME_BYTES, MAX_NODE_BYTES};
use service::config::reader::{Section, text};
use service::config::source::Source;

/// Most included files.
pub const MAX_FILES: usize = 4096;

/// Most entries of all streams' `local` lists together.
pub const MAX_LOCAL_ENTRIES: usize = 16_384;

/// What only the main file may say.
const MAIN_ONLY: [&str; 12] = [
    "node", "site", "include", "sampling", "window", "kafka", "state", "spool", "metrics",
    "control", "limits", "shutdown",
];

/// One file that an include pattern found, or why it could not be read.
pub type Included = Result<Source, (PathBuf, String)>;

impl Config {
    /// Reads a main file and what it includes.
    pub fn load(file: &Path) -> Result<Self, ConfigErrors> {
        let text = file::read_text(file)
            .map_err(|why| file_error(file, "", why, "a readable TOML file"))?;
        let base = file.parent().unwrap_or(Path::new(""));
        read(Source::new(file, text), |pattern| find(base, pattern))
    }
}

/// Reads a main file; `find` resolves its include patterns.
pub fn read(
    main: Source,
    mut find: impl FnMut(&str) -> Result<Vec<Included>, Wrong>,
) -> Result<Config, ConfigErrors> {
    let mut findings = Findings::default();
    let mut hash = Sha256::new();
    let mut config = Config {
        files: vec![main.name().to_path_buf()],
        ..Config::default()
    };
    let mut includes = Vec::new();
    file::with_table(&main, &mut hash, &mut findings, |section, findings| {
        includes = read_main(section, &mut config, findings);
    });
    for (place, pattern) in includes {
        match find(&pattern) {
            Ok(found) => {
                for included in found {
                    read_included(included, &place, &mut config, &mut hash, &mut findings);
                }
            }
            Err(wrong) => findings.error(place, "include", wrong),
        }
    }
    config.sha256 = hash.finalize().into();
    check_streams(&config, &mut findings);
    if findings.errors.is_empty() {
        config.warnings = findings.warnings;
        return Ok(config);
    }
    findings
        .errors
        .sort_by_key(|error| order_of(&config, error));
    Err(ConfigErrors(findings.errors))
}

/// Files in the order in which they were read, then by place.
fn order_of(config: &Config, error: &ConfigError) -> (usize, usize, usize) {
    let file = config
        .files
        .iter()
        .position(|file| **file == *error.place.file);
    (
        file.unwrap_or(usize::MAX),
        error.place.line,
        error.place.column,
    )
}

fn read_main(
    mut section: Section<'_>,
    config: &mut Config,
    findings: &mut Findings,
) -> Vec<(Place, String)> {
    config.node = section.optional(findings, "node", |value| {
        names::name(text(value)?, MAX_NODE_BYTES)
    });
    if let Some(site) = section.optional(findings, "site", |value| {
        names::name(text(value)?, MAX_NAME_BYTES)
    }) {
        config.site = site;
    }
    let includes = section.list(findings, "include", |value| text(value).map(str::to_owned));
    if let Some(mut sampling) = section.table(findings, "sampling", "sampling") {
        config.places.key_file = sampling.place_if_set("key_file");
        config.sampling = Sampling::read(sampling, findings);
    }
    if let Some(window) = section.table(findings, "window", "window") {
        config.window = Window::read(window, &config.sampling, findings);
    }
    if let Some(kafka) = section.table(findings, "kafka", "kafka") {
        (config.kafka, config.places.kafka_properties) = Kafka::read(kafka, findings);
    }
    if let Some(mut state) = section.table(findings, "state", "state") {
        config.places.state_directory = state.place_if_set("directory");
        config.state = State::read(state, findings);
    }
    config.spool = match section.table(findings, "spool", "spool") {
        Some(mut spool) => {
            config.places.spool_directory = spool.place_if_set("directory");
            Spool::read(spool, &config.state, findings)
        }
        None => Spool::below(&config.state),
    };
    if let Some(mut metrics) = section.table(findings, "metrics", "metrics") {
        config.places.metrics_listen = metrics.place_if_set("listen");
        config.metrics = Metrics::read(metrics, findings);
    }
    if let Some(mut control) = section.table(findings, "control", "control") {
        config.places.control_socket = control.place_if_set("socket");
        config.control = Control::read(control, findings);
    }
    if let Some(limits) = section.table(findings, "limits", "limits") {
        config.limits = Limits::read(limits, findings);
    }
    if let Some(shutdown) = section.table(findings, "shutdown", "shutdown") {
        config.shutdown = Shutdown::read(shutdown, findings);
    }
    read_streams(&mut section, config, findings);
    section.refuse(findings, "forward", "is not built yet; remove it");
    section.end(findings, &["forward"]);
    includes
}

fn read_included(
    included: Included,
    place: &Place,
    config: &mut Config,
    hash: &mut Sha256,
    findings: &mut Findings,
) {
    let source = match included {
        Ok(source) => source,
        Err((file, why)) => {
            let wrong = Wrong::new(format!("{}: {why}", file.display()), "readable TOML files");
            return findings.error(place.clone(), "include", wrong);
        }
    };
    if config.files.iter().any(|file| file == source.name()) {
        return; // found by two patterns
    }
    if config.files.len() > MAX_FILES {
        let wrong = Wrong::new("finds too many files", format!("at most {MAX_FILES} files"));
        return findings.error(place.clone(), "include", wrong);
    }
    config.files.push(source.name().to_path_buf());
    file::with_table(&source, hash, findings, |mut section, findings| {
        for key in MAIN_ONLY {
            let message = "belongs in the main file; an included file holds only [[stream]]";
            section.refuse(findings, key, message);
        }
        read_streams(&mut section, config, findings);
        section.end(findings, &MAIN_ONLY);
    });
}

fn read_streams(section: &mut Section<'_>, config: &mut Config, findings: &mut Findings) {
    for stream in section.tables(findings, "stream") {
        config
            .streams
            .extend(StreamConfig::read(stream, config.sampling.rate, findings));
    }
}

/// What only shows when all streams are known.
fn check_streams(config: &Config, findings: &mut Findings) {
    if let Some(over) = config.streams.get(MAX_STREAMS) {
        let wrong = Wrong::new(
            format!("there are {} streams", config.streams.len()),
            format!("at most {MAX_STREAMS}"),
        );
        return findings.error(over.places.stream.clone(), "stream", wrong);
    }
    let mut names: HashMap<&str, &StreamConfig> = HashMap::new();
    for stream in &config.streams {
        match names.get(stream.name.as_str()) {
            Some(first) => {
                let message = format!(
                    "`{}` is also the name of the stream at {}",
                    stream.name, first.places.name
                );
                let wrong = Wrong::new(message, "a name of its own for every stream");
                findings.error(stream.places.name.clone(), "stream.name", wrong);
            }
            None => drop(names.insert(&stream.name, stream)),
        }
    }
    let entries: usize = config.streams.iter().map(|stream| stream.local.len()).sum();
    if entries > MAX_LOCAL_ENTRIES {
        let wrong = Wrong::new(
            format!("there are {entries} entries in all `local` lists"),
            format!("at most {MAX_LOCAL_ENTRIES}; prefixes and port ranges say more in fewer"),
        );
        let place = config.streams[0].places.stream.clone();
        return findings.error(place, "stream.local", wrong);
    }
    overlap::check(&config.streams, findings);
    if findings.errors.is_empty() {
        check_tables(&config.streams, findings);
    }
}

/// Whether the rules fit into the kernel's tables, and every stream can be reached there.
fn check_tables(streams: &[StreamConfig], findings: &mut Findings) {
    // Any distinct ids do: whether a cgroup is there is not asked here.
    let cgroups: Vec<&str> = streams.iter().filter_map(|s| s.cgroup.as_deref()).collect();
    let cgroup_id = |path: &str| {
        let at = cgroups.iter().position(|known| *known == path)?;
        Some(at as u64 + 1)
    };
    match RuleSet::new(streams).compile(|at| at as u32, cgroup_id) {
        Ok(tables) => {
            let reached = tables.streams();
            let hidden = |at: &usize| !reached.contains(&(*at as u32));
            for stream in (0..streams.len()).filter(hidden).map(|at| &streams[at]) {
                let message = format!(
                    "no flow reaches stream `{}`: those before it take all of its flows together",
                    stream.name
                );
                let allowed = "the special rule before the general one, or no overlap";
                let wrong = Wrong::new(message, allowed);
                findings.error(stream.places.stream.clone(), "stream.local", wrong);
            }
        }
        Err(error) => {
            let at = match error {
                CompileError::TooManyCandidates { stream, .. }
                | CompileError::TooManyLists { stream } => stream,
            };
            let wrong = Wrong::new(error.to_string(), "fewer prefixes, or fewer streams there");
            findings.error(streams[at].places.stream.clone(), "stream.local", wrong);
        }
    }
}

/// What an include pattern finds, in lexical order.
fn find(base: &Path, pattern: &str) -> Result<Vec<Included>, Wrong> {
    const ALLOWED: &str = "a path or glob, absolute or relative to the main file's directory";
    let base = glob::Pattern::escape(&base.to_string_lossy());
    let whole = Path::new(&base).join(pattern);
    let paths = glob::glob(&whole.to_string_lossy())
        .map_err(|error| Wrong::new(format!("`{pattern}` is not a pattern: {error}"), ALLOWED))?;
    let mut found: Vec<_> = paths
        .map(|path| match path {
            Ok(path) => Ok(path),
            Err(error) => Err((error.path().to_path_buf(), error.error().to_string())),
        })
        .collect();
    if found.is_empty() && !pattern.contains(['*', '?', '[']) {
        return Err(Wrong::new(format!("`{pattern}` does not exist"), ALLOWED));
    }
    found.sort_by(|a, b| path_of(a).cmp(path_of(b)));
    Ok(found
        .into_iter()
        .map(|path| {
            let path = path?;
            match file::read_text(&path) {
                Ok(text) => Ok(Source::new(path, text)),
                Err(why) => Err((path, why)),
            }
        })
        .collect())
}

fn path_of(found: &Result<PathBuf, (PathBuf, String)>) -> &Path {
    match found {
        Ok(path) | Err((path, _)) => path,
    }
}
