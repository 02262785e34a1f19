//! What happens before the runtime starts, on the one thread that has capabilities.
//!
//! Order: key and life, the spool, the endpoint's port, the kernel side, then all capabilities are given
//! up; threads made later never had any.

use std::{fmt, net::TcpListener, path::PathBuf, sync::Arc};

use ebpf_abi::hash::key_from_bytes;

use super::{life::Life, node::Node, time};
use service::exit;

use crate::{
    config::{Config, ConfigError, ConfigErrors, key::Key},
    kernel::{cgroup, load, load::KernelError, memory::Size, probe::Probe},
    sink::{KafkaError, KafkaSettings, Ledger, Topics},
    spool::{DirectoryError, Spool, SpoolSettings},
    stage::{Stage, window::Identity},
};

/// How `run` was asked to run.
#[derive(Clone, Debug)]
pub enum Mode {
    /// The daemon, from a file that a reload reads again.
    File(PathBuf),
    /// For a person at a terminal: no state, no endpoint.
    AdHoc,
}

/// Why the daemon does not start: words for a person, and the exit status.
#[derive(Debug)]
pub struct Failure {
    /// One of [`service::exit`].
    pub code: u8,
    /// What is wrong.
    pub message: String,
    /// What more there is to say, for example the verifier's log.
    pub detail: String,
}

impl Failure {
    pub(super) fn new(code: u8, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
            detail: String::new(),
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(exit::CONFIG, errors)
    }
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        let detail = match &error {
            KernelError::Refused { log, .. } => log.clone(),
            _ => String::new(),
        };
        Self {
            code: error.exit_code(),
            message: error.to_string(),
            detail,
        }
    }
}

/// Ready to run.
pub struct Prepared {
    pub(super) node: Node,
    pub(super) ledger: Arc<Ledger>,
    pub(super) spool: Option<Spool>,
    pub(super) listener: Option<TcpListener>,
    pub(super) mode: Mode,
}

impl Prepared {
    /// One line about what runs.
    pub fn summary(&self) -> String {
        self.node.summary()
    }
}

/// The Kafka sink that a configuration asks for.
pub(crate) fn kafka_settings(config: &Config) -> Option<KafkaSettings> {
    (!config.kafka.brokers.is_empty()).then(|| KafkaSettings {
        brokers: config.kafka.brokers.clone(),
        topics: Topics::with_window(config.kafka.topic.clone()),
        node: config.node_name(),
        properties: config.kafka.properties.0.clone(),
        flush_timeout: std::time::Duration::from_secs(config.shutdown.timeout_s.into()),
    })
}

/// What is wrong with the Kafka settings of a configuration, and where.
pub(crate) fn kafka_error(config: &Config, error: KafkaError) -> ConfigError {
    let (property, message, allowed) = match error {
        KafkaError::Property { property, message } => (Some(property), message, ""),
        KafkaError::Protected {
            property,
            reason,
            allowed,
        } => (Some(property), reason.to_owned(), allowed),
        KafkaError::Conflict(message) => (None, message, ""),
    };
    let place = property
        .as_ref()
        .and_then(|property| config.places.kafka_properties.get(property));
    ConfigError {
        place: config.place_or_file(&place.cloned()),
        option: match property {
            Some(property) => format!("kafka.properties.{property}"),
            None => "kafka".to_owned(),
        },
        message,
        allowed: allowed.to_owned(),
    }
}

/// The spool that a configuration asks for: where events go to brokers, they may have to wait.
pub(crate) fn spool_settings(config: &Config, instance: u64) -> Option<SpoolSettings> {
    (!config.kafka.brokers.is_empty()).then(|| SpoolSettings {
        directory: config.spool.directory.clone(),
        max_bytes: config.spool.max_bytes,
        fsync: std::time::Duration::from_millis(config.spool.fsync_ms.into()),
        instance,
        // What the kernel counted ended with the life before.
        resume: false,
        faults: None,
    })
}

/// What is wrong with the spool's directory, and where it stands.
pub(crate) fn spool_error(config: &Config, error: &DirectoryError) -> ConfigError {
    ConfigError {
        place: config.place_or_file(&config.places.spool_directory),
        option: "spool.directory".to_owned(),
        message: format!("{} {error}", config.spool.directory.display()),
        allowed: SPOOL_DIRECTORY.to_owned(),
    }
}

/// What the spool's directory must be.
const SPOOL_DIRECTORY: &str =
    "a directory of the service's user that nobody else may write, used by one sampler";

/// The state directory cannot be used.
fn no_state(config: &Config, error: std::io::Error) -> Failure {
    let place = config.place_or_file(&config.places.state_directory);
    let directory = config.state.directory.display();
    Failure::new(
        exit::CONFIG,
        format!(
            "{place}: state.directory: {directory}: {error} (allowed: a directory that this user may write)"
        ),
    )
}

fn listen(config: &Config) -> Result<TcpListener, Failure> {
    let address = config.metrics.listen;
    let listener = TcpListener::bind(address).map_err(|error| {
        let place = config.place_or_file(&config.places.metrics_listen);
        Failure::new(
            exit::CONFIG,
            format!("{place}: metrics.listen: {address} cannot be bound: {error} (allowed: a free loopback port)"),
        )
    })?;
    listener
        .set_nonblocking(true)
        .map_err(|e| Failure::new(exit::BUG, e))?;
    Ok(listener)
}

/// Does all of it. `dry_run`: flows are counted, none is followed.
///
/// # Errors
/// A [`Failure`] with the exit status that fits.
pub fn prepare(config: Config, mode: Mode, dry_run: bool) -> Result<Prepared, Failure> {
    let ad_hoc = matches!(mode, Mode::AdHoc);
    if let Some(settings) = kafka_settings(&config) {
        // A property that librdkafka does not take is seen now rather than in the sink.
        settings
            .validate()
            .map_err(|e| Failure::new(exit::CONFIG, kafka_error(&config, e)))?;
    }
    let missing = load::missing_capabilities();
    if !missing.is_empty() {
        return Err(KernelError::Privilege(missing).into());
    }
    let (key, key_id, life) = if ad_hoc || dry_run {
        let bytes: [u8; 16] = rand::random();
        let key = Key {
            bytes,
            warning: None,
        };
        (key.bytes, key.id(), Life::unrecorded())
    } else {
        let state = &config.state.directory;
        std::fs::create_dir_all(state).map_err(|error| no_state(&config, error))?;
        let key = config
            .sampling_key()
            .resolve()
            .map_err(|e| Failure::new(exit::CONFIG, e))?;
        if let Some(warning) = &key.warning {
            tracing::warn!("sampling key: {warning}");
        }
        let life = Life::begin(state).map_err(|error| no_state(&config, error))?;
        (key.bytes, key.id(), life)
    };
    let ledger = Arc::new(Ledger::default());
    let settings = spool_settings(&config, life.instance).filter(|_| !ad_hoc && !dry_run);
    let spool = match settings {
        Some(settings) => Spool::start(settings, Arc::clone(&ledger))
            .map(|(spool, ..)| Some(spool))
            .map_err(|error| Failure::new(exit::CONFIG, spool_error(&config, &error)))?,
        None => None,
    };
    let listener = if ad_hoc || dry_run {
        None
    } else {
        Some(listen(&config)?)
    };

    let root = cgroup::mount().ok_or(KernelError::NoCgroup)?;
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let size = Size::new(config.streams.len() as u32, cpus);
    let probe = Probe::load(size)?;
    probe.set_key(key_from_bytes(key));
    probe.set_max_sampled_flows(config.sampling.max_sampled_flows);
    probe.set_dry_run(dry_run);
    let hz = measure_hz(&probe).ok_or_else(|| {
        Failure::new(
            exit::UNSUPPORTED,
            "the kernel's tick rate could not be measured",
        )
    })?;
    let identity = Identity {
        node: config.node_name(),
        site: config.site.clone(),
        instance: life.instance,
        previous_instance: life.previous,
        sampling_key_id: key_id,
        rtt_source: load::rtt_source(&load::kernel_release()),
        hz,
    };
    let stage = Stage::new(
        identity,
        size.slots,
        config.window.length_ms,
        time::now(),
        &probe,
    );
    let mut node = Node::new(probe, stage, config, root.clone());
    node.apply().map_err(|e| Failure::new(exit::CONFIG, e))?;
    node.probe_mut().attach(&root)?;
    load::drop_capabilities().map_err(|e| Failure::new(exit::BUG, e))?;
    if let Some(spool) = &spool {
        node.set_spool(spool.clone());
    }
    Ok(Prepared {
        node,
        ledger,
        spool,
        listener,
        mode,
    })
}

/// Two walks, 200 ms apart, give two pairs of clocks.
fn measure_hz(probe: &Probe) -> Option<u32> {
    let pair = || {
        probe.walk(&mut Vec::new()).ok()?;
        let report = probe.report();
        Some((report.clock_ns, report.clock_jiffies))
    };
    let first = pair()?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    time::hz(first, pair()?)
}
