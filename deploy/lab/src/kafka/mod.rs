//! Real Kafka brokers (KRaft) of our own: started from Maven artefacts, stopped by process id.
//!
//! Each cluster has a folder below `target/kafka/` with a folder per node (properties, data, log,
//! pid). All listeners are on the loopback of the network namespace that the cluster lives in.
//! Limits: Java 17 and Maven must be there; no TLS, no ACLs. About 150–250 MB of memory per node.

mod classpath;
mod files;
mod node;
pub mod topics;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use files::{declared_topics, work_folder};

use crate::clock;
use crate::command::CommandError;
use crate::netns::{Namespace, NetnsError};
use node::Node;

static COUNTER: AtomicU32 = AtomicU32::new(0);
/// First start on a loaded machine of two cores, with some room.
const READY: Duration = Duration::from_secs(120);

/// A broker that cannot be started, reached or set up.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// Java or Maven is absent, or said no.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A file of the cluster cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A broker did not answer in time.
    #[error("broker {id} did not get ready; the end of {log}:\n{tail}", log = .log.display())]
    NotReady {
        /// Which one.
        id: usize,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// Nothing free to listen on, or the wanted port is taken.
    #[error("cannot take port {port}: {source}")]
    Port {
        /// The port; 0 for any.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// A cluster is running in this folder already.
    #[error("a cluster is running in {0} already")]
    Running(PathBuf),
    /// The client library said no.
    #[error("{what}: {source}")]
    Client {
        /// What was tried.
        what: String,
        /// What librdkafka said.
        source: rdkafka::error::KafkaError,
    },
    /// topics.toml is wrong.
    #[error("{path}: {source}", path = .path.display())]
    Declaration {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
    /// A topic is not as it is declared, and cannot be made so.
    #[error("topic {topic}: {reason}")]
    Topic {
        /// Which one.
        topic: String,
        /// Why.
        reason: String,
    },
}

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of nodes, each broker and controller.
    pub nodes: usize,
    /// Port of the first broker, the others 10 apart; absent: any that is free.
    pub first_port: Option<u16>,
    /// Where its files lie; absent: a folder of its own that goes with it.
    pub folder: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1,
            first_port: None,
            folder: None,
        }
    }
}

/// A running cluster. Killed, and its folder removed if it was its own, when dropped.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    folder: PathBuf,
    own_folder: bool,
}

impl Cluster {
    /// Formats and starts a cluster, in `namespace` if there is one, and waits until it answers.
    ///
    /// # Errors
    /// When Java or Maven is missing, a port is taken, or a broker does not get ready.
    pub fn start(options: &Options, namespace: Option<&Namespace>) -> Result<Self, KafkaError> {
        remove_orphans();
        let classpath = classpath::resolve()?;
        let own_folder = options.folder.is_none();
        let folder = options.folder.clone().unwrap_or_else(|| {
            let n = COUNTER.fetch_add(1, Ordering::Relaxed);
            files::work_folder().join(format!("lab-{}-{n}", std::process::id()))
        });
        if node::pids(&folder)
            .iter()
            .any(|pid| node::lives(*pid, &folder))
        {
            return Err(KafkaError::Running(folder));
        }
        let ports = in_namespace(namespace, || ports(options))??;
        let mut cluster = Self {
            nodes: Vec::new(),
            folder,
            own_folder,
        };
        let setup = files::Setup::new(&cluster.folder, &ports);
        for id in 1..=options.nodes {
            setup.write_node(id)?;
        }
        node::format(&classpath, &cluster.folder, options.nodes)?;
        for (id, port) in (1..).zip(&ports) {
            let place = cluster.folder.join(id.to_string());
            let handle = namespace.map(Namespace::path);
            cluster
                .nodes
                .push(Node::new(id, port.broker, place, handle));
        }
        for node in &mut cluster.nodes {
            node.start(&classpath)?;
        }
        cluster.wait_ready(namespace)?;
        Ok(cluster)
    }

    /// `bootstrap.servers` for clients in the cluster's namespace.
    #[must_use]
    pub fn brokers(&self) -> String {
        let all: Vec<_> = self.nodes.iter().map(Node::address).collect();
        all.join(",")
    }

    /// The brokers as a list, for a configuration file.
    #[must_use]
    pub fn broker_list(&self) -> Vec<String> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// Kills node `id` (from 1) as a power cut would: SIGKILL.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn kill(&mut self, id: usize) {
        self.nodes[id - 1].kill();
    }

    /// Starts node `id` again on its old data and waits until it answers.
    ///
    /// # Errors
    /// When it does not get ready.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn restart(&mut self, id: usize, namespace: Option<&Namespace>) -> Result<(), KafkaError> {
        let classpath = classpath::resolve()?;
        self.nodes[id - 1].kill();
        self.nodes[id - 1].start(&classpath)?;
        let node = &mut self.nodes[id - 1];
        in_namespace(namespace, || node.wait_port(READY))?
    }

    /// Ends all nodes orderly (SIGTERM, after 30 s SIGKILL).
    pub fn stop(mut self) {
        node::terminate(&self.folder);
        for node in &mut self.nodes {
            node.kill();
        }
    }

    /// Leaves the cluster running when this process ends; [`stop_in`] ends it later.
    pub fn leave_running(mut self) {
        self.own_folder = false;
        for node in self.nodes.drain(..) {
            node.leave();
        }
    }

    fn wait_ready(&mut self, namespace: Option<&Namespace>) -> Result<(), KafkaError> {
        for node in &mut self.nodes {
            in_namespace(namespace, || node.wait_port(READY))??;
        }
        let (brokers, wanted) = (self.brokers(), self.nodes.len());
        let whole = in_namespace(namespace, || {
            clock::wait_until(READY, || topics::broker_count(&brokers) == Some(wanted))
        })?;
        if whole {
            return Ok(());
        }
        Err(self.nodes[0].not_ready())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        if self.own_folder {
            // What cannot be removed lies below target/ and is removed by the next start.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Ends the cluster that an earlier process left running in `folder`; how many nodes that were.
pub fn stop_in(folder: &Path) -> usize {
    node::terminate(folder)
}

/// Ports of one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub broker: u16,
    pub controller: u16,
}

/// Free ports: bound all at once, so that none is given twice, and then released.
fn ports(options: &Options) -> Result<Vec<Ports>, KafkaError> {
    let mut held = Vec::new();
    let mut take = |port: u16| -> Result<u16, KafkaError> {
        let taken = std::net::TcpListener::bind(("127.0.0.1", port))
            .and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
        let (number, listener) = taken.map_err(|source| KafkaError::Port { port, source })?;
        held.push(listener);
        Ok(number)
    };
    (0..options.nodes)
        .map(|node| {
            let step = u16::try_from(node * 10).unwrap_or(u16::MAX);
            let base = options.first_port.map(|first| first.saturating_add(step));
            Ok(Ports {
                broker: take(base.unwrap_or(0))?,
                controller: take(base.map_or(0, |base| base.saturating_add(1)))?,
            })
        })
        .collect()
}

fn in_namespace<T: Send>(
    namespace: Option<&Namespace>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, NetnsError> {
    match namespace {
        Some(namespace) => namespace.run_in(work),
        None => Ok(work()),
    }
}

/// Ends and removes clusters of lab processes that live no more.
fn remove_orphans() {
    let Ok(entries) = std::fs::read_dir(files::work_folder()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix("lab-")
            .and_then(|rest| rest.split_once('-'))
            .and_then(|(pid, _)| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            node::kill_all(&entry.path());
            // Another process may be removing it at the same time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
