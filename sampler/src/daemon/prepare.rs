//! What happens before the runtime starts, on the one thread that has capabilities.
//!
//! Order: key and life, the kernel side of the life before if it was kept, the spool, the endpoint's port, a new kernel side if none
//! was kept, then all capabilities are given up; threads made later never had any.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
};

use ebpf_abi::hash::key_from_bytes;

use super::{
    keep::{self, Kept, KernelSide},
    life::{self, Life},
    node::{Books, Node},
    off::{self, Off, Why},
    side::Side,
    time,
};
use service::exit;

use crate::{
    config::{Config, ConfigError, ConfigErrors, LimitAction, key::Key},
    control::server::{self, Socket},
    kernel::{cgroup, load, load::KernelError, memory::Size, probe::Probe},
    lock::lock,
    sink::{KafkaError, KafkaSettings, Ledger, Topics},
    spool::{DirectoryError, Reference, ReferenceFiles, Spool, SpoolSettings},
    stage::{Stage, state::Attachment, window::Identity},
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
    pub(super) control: Option<Socket>,
    pub(super) mode: Mode,
    /// Of the state directory and the cgroup.
    pub(super) _locks: Vec<File>,
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
        password_file: config.kafka.password_file.clone(),
        flush_timeout: std::time::Duration::from_secs(config.shutdown.timeout_s.into()),
    })
}

/// What is wrong with the Kafka settings of a configuration, and where.
pub(crate) fn kafka_error(config: &Config, error: KafkaError) -> ConfigError {
    let property = |name: String| {
        let place = config.places.kafka_properties.get(&name).cloned();
        (place, format!("kafka.properties.{name}"))
    };
    let ((place, option), message, allowed) = match error {
        KafkaError::Property {
            property: name,
            message,
        } => (property(name), message, ""),
        KafkaError::Protected {
            property: name,
            reason,
            allowed,
        } => (property(name), reason.to_owned(), allowed),
        KafkaError::Password { path, reason } => (
            (None, "kafka.password_file".to_owned()),
            format!("{}: {reason}", path.display()),
            "a file that only its owner and group can read, with the password in it",
        ),
        KafkaError::Conflict(message) => ((None, "kafka".to_owned()), message, ""),
    };
    ConfigError {
        place: config.place_or_file(&place),
        option,
        message,
        allowed: allowed.to_owned(),
    }
}

/// The spool that a configuration asks for: where events go to brokers, they may have to wait.
/// `resume`: the cells hold what was counted after the newest reference.
pub(crate) fn spool_settings(
    config: &Config,
    instance: u64,
    resume: bool,
) -> Option<SpoolSettings> {
    (!config.kafka.brokers.is_empty()).then(|| SpoolSettings {
        directory: config.spool.directory.clone(),
        max_bytes: config.spool.max_bytes,
        fsync: std::time::Duration::from_millis(config.spool.fsync_ms.into()),
        instance,
        resume,
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
            "{place}: state.directory: {directory}: {error} (allowed: a directory that this user may write, used by one sampler)"
        ),
    )
}

/// Keeps other samplers off the flows below a cgroup.
fn lock_cgroup(root: &Path) -> Result<File, Failure> {
    let locked = File::open(root).and_then(lock);
    locked.map_err(|error| {
        Failure::new(
            exit::CONFIG,
            format!(
                "the cgroup {}: {error}: both would count the same flows; stop one of them, or set sampling.alone = false where \
                 several nodes are played on one machine",
                root.display()
            ),
        )
    })
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

/// The control socket. One that was asked for must be there; without the default one, only `rate` does not work.
fn control(config: &Config) -> Result<Option<Socket>, Failure> {
    let path = &config.control.socket;
    let error = match server::bind(path) {
        Ok(socket) => return Ok(Some(socket)),
        Err(error) => format!("{}: {error}", path.display()),
    };
    let Some(place) = &config.places.control_socket else {
        tracing::warn!("no control socket, so `rate` does not work: {error}");
        return Ok(None);
    };
    let allowed = "the path of a socket of its own, in a directory that this user may write";
    Err(Failure::new(
        exit::CONFIG,
        format!("{place}: control.socket: {error} (allowed: {allowed})"),
    ))
}

/// Does all of it. `dry_run`: flows are counted, none is followed.
///
/// # Errors
/// A [`Failure`] with the exit status that fits.
pub fn prepare(mut config: Config, mode: Mode, dry_run: bool) -> Result<Prepared, Failure> {
    let ad_hoc = matches!(mode, Mode::AdHoc);
    if ad_hoc {
        // A person looks on: told, but not without what was asked for.
        config.limits.action = LimitAction::Log;
    }
    let disable_file = config.limits.disable_file.clone();
    let disabled = off::is_disabled(&disable_file) == Some(true);
    if disabled && (ad_hoc || dry_run) {
        let message = format!("disabled: {} exists", disable_file.display());
        return Err(Failure::new(exit::AGAIN, message));
    }
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
    let root = cgroup::mount().ok_or(KernelError::NoCgroup)?;
    let (key, key_id, life, locks) = if ad_hoc || dry_run {
        let bytes: [u8; 16] = rand::random();
        let key = Key { bytes };
        (key.bytes, key.id(), Life::unrecorded(), Vec::new())
    } else {
        let state = &config.state.directory;
        std::fs::create_dir_all(state).map_err(|error| no_state(&config, error))?;
        let mut locks = vec![life::lock(state).map_err(|error| no_state(&config, error))?];
        if config.sampling.alone {
            locks.push(lock_cgroup(&root)?);
        }
        let key = config
            .sampling_key()
            .resolve()
            .map_err(|e| Failure::new(exit::CONFIG, e))?;
        let life = Life::begin(state).map_err(|error| no_state(&config, error))?;
        (key.bytes, key.id(), life, locks)
    };
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let size = Size::new(config.streams.len() as u32, cpus);
    let lasting = !ad_hoc && !dry_run;
    let newest = lasting.then(|| newest_reference(&config)).flatten();
    let kept = match lasting {
        true => Kept::take(),
        false => Kept::default(),
    };
    let stored = kept.names();
    let wanted = keep::Wanted {
        size,
        key_id,
        cgroup_id: cgroup::cgroup_id(&root, "/"),
    };
    let identity = |hz: u32| Identity {
        node: config.node_name(),
        site: config.site.clone(),
        instance: life.instance,
        previous_instance: life.previous,
        sampling_key_id: key_id,
        rtt_source: load::rtt_source(&load::kernel_release()),
        hz,
    };
    let resumed = kept.resume(newest.as_ref(), wanted, |probe, state| {
        let entry = |stream| probe.stream(stream);
        let (slots, window) = (probe.size().slots, probe.window());
        let identity = identity(measure_hz(probe)?);
        Stage::resume(identity, slots, state, window, &entry, probe)
    });

    let ledger = Arc::new(Ledger::default());
    let settings = spool_settings(&config, life.instance, resumed.is_ok()).filter(|_| lasting);
    let spool = match settings {
        Some(settings) => Spool::start(settings, Arc::clone(&ledger))
            .map(|(spool, ..)| Some(spool))
            .map_err(|error| Failure::new(exit::CONFIG, spool_error(&config, &error)))?,
        None => None,
    };
    let listener = lasting.then(|| listen(&config)).transpose()?;
    let control = match lasting {
        true => control(&config)?,
        false => None,
    };

    let was_kept = resumed.is_ok();
    let state_directory = lasting.then(|| config.state.directory.clone());
    let note = state_directory.as_deref().and_then(Off::read);
    let off = (disabled && !was_kept).then(|| Off {
        since_ms: match (&note, &newest) {
            (Some(note), _) => note.since_ms,
            (None, Some(newest)) => newest.counted_ms,
            (None, None) => time::now().wall_ms,
        },
        why: Why::Disabled(disable_file),
    });
    let (slots, window_ms) = (size.slots, config.window.length_ms);
    let (side, stage, attachment) = match (resumed, &off) {
        (Ok(kernel_side), _) => {
            let KernelSide {
                probe,
                stage,
                attachment,
            } = kernel_side;
            (Side::of(probe, stored), stage, attachment)
        }
        (Err(_), Some(off)) => {
            let side = Side::none();
            let stage = Stage::new(identity(0), slots, window_ms, time::now(), &side);
            (side, stage, off.attachment(time::now().wall_ms))
        }
        (Err(reason), None) => {
            let probe = Probe::load(size)?;
            let hz = measure_hz(&probe).ok_or_else(|| {
                Failure::new(
                    exit::UNSUPPORTED,
                    "the kernel's tick rate could not be measured",
                )
            })?;
            let stage = Stage::new(identity(hz), slots, window_ms, time::now(), &probe);
            let attachment = begin(&probe, life, newest.as_ref(), note, reason);
            (Side::of(probe, BTreeSet::new()), stage, attachment)
        }
    };
    if let Some(probe) = side.probe() {
        probe.set_key(key_from_bytes(key));
        probe.set_max_sampled_flows(config.sampling.max_sampled_flows);
        probe.set_dry_run(dry_run);
    }
    match &off {
        Some(off) => tracing::warn!("{}", off.limited()),
        None => say(&attachment, was_kept),
    }
    let books = Books {
        attachment,
        counted_ms: newest
            .as_ref()
            .map_or(time::now().wall_ms, |n| n.counted_ms),
    };
    let mut node = Node::new(side, stage, config, root.clone(), books);
    node.state_directory = state_directory;
    if let Some(off) = off {
        if let Some(state) = &node.state_directory {
            off.write(state);
        }
        node.set_off(off);
    }
    node.apply().map_err(|e| Failure::new(exit::CONFIG, e))?;
    if let Some(spool) = &spool {
        // Before anything is counted or sent: so the newest reference is always of the kernel side in use.
        let at_risk = newest.map_or(0, |newest| newest.at_risk);
        if !spool.note(spool.reference(node.counted_ms(), at_risk, node.state())) {
            tracing::warn!("the spool's disk takes no reference: a restart may not count on");
        }
        node.set_spool(spool.clone());
    }
    let first = !was_kept && !dry_run && node.off.is_none();
    node.attach(first)?;
    if spool.is_some() && !was_kept {
        node.side.hand_over();
    }
    if let (Some(state), None) = (&node.state_directory, &node.off) {
        Off::remove(state);
    }
    let can_read = || node.side.walk(&mut Vec::new()).is_ok();
    if load::drop_capabilities(can_read).map_err(|e| Failure::new(exit::BUG, e))? {
        tracing::info!(
            "CAP_BPF is kept: this kernel reads nothing without it while kernel.unprivileged_bpf_disabled is set"
        );
    }
    Ok(Prepared {
        node,
        ledger,
        spool,
        listener,
        control,
        mode,
        _locks: locks,
    })
}

/// The end of the last window that was written down, of whatever life. Reading changes nothing: the spool may be another daemon's.
fn newest_reference(config: &Config) -> Option<Reference> {
    let some = !config.kafka.brokers.is_empty();
    some.then(|| ReferenceFiles::open(&config.spool.directory).1)?
}

/// A kernel side that is to be attached now; `reason`: why that of the life before does not go on.
fn begin(
    probe: &Probe,
    life: Life,
    newest: Option<&Reference>,
    off: Option<Off>,
    reason: String,
) -> Attachment {
    let now_ms = time::now().wall_ms;
    let first = life.previous == 0 && newest.is_none();
    let (since_ms, reason) = match off {
        Some(off) => (Some(off.since_ms), off.why.to_string()),
        None => (newest.map(|newest| newest.counted_ms), reason),
    };
    Attachment {
        cells_id: probe.cells_id(),
        attached_ms: now_ms,
        uncounted_ms: since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms)),
        uncounted_reason: if first { String::new() } else { reason },
    }
}

fn say(attachment: &Attachment, was_kept: bool) {
    let Attachment {
        attached_ms,
        uncounted_ms,
        uncounted_reason,
        ..
    } = attachment;
    if was_kept {
        tracing::info!(attached_ms, "the kernel side was kept: it counts on");
    } else if !uncounted_reason.is_empty() {
        tracing::warn!(
            uncounted_ms,
            "not counted since the last window of the life before: {uncounted_reason}"
        );
    }
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
