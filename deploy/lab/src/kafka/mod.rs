//! Real Kafka brokers (KRaft) of our own: started from Maven artefacts, stopped by process id.
//!
//! Each cluster has a folder below `target/kafka/` with a folder per node (properties, data, log,
//! pid). All listeners are on the loopback of the network namespace that the cluster lives in.
//! A cluster with users has what production has: TLS, passwords, and an authorizer that asks for grants.
//! Limits: Java 17 and Maven must be there, with users `openssl` too. About 150–250 MB of memory per node.

mod access;
pub mod acl;
mod acl_client;
pub mod apply;
mod certificates;
mod classpath;
pub mod declaration;
mod files;
mod node;
pub mod topics;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use access::Access;
pub use acl_client::AclError;
pub use files::{Place, Properties, declared_topics, node_name, work_folder};

use crate::clock;
use crate::command::CommandError;
use crate::netns::{Namespace, NetnsError};
use declaration::Copies;
use node::{Node, User};

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
    /// The declaration is wrong.
    #[error("{path}: {source}", path = .path.display())]
    Declaration {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
    /// A line of a file of properties is none.
    #[error("{path}:{line}: not name=value", path = .path.display())]
    Property {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Grants cannot be listed, given or taken back.
    #[error("grants: {0}")]
    Acl(#[source] AclError),
    /// A thread of ours broke.
    #[error("{0} broke")]
    Lost(&'static str),
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
    /// Who has a password, beside `admin`, who may do everything. Nobody: an open cluster, without encryption.
    pub users: Vec<String>,
    /// More properties of every node, name and value; they win over ours.
    pub settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1,
            first_port: None,
            folder: None,
            users: Vec::new(),
            settings: Vec::new(),
        }
    }
}

/// A running cluster. Killed, and its folder removed if it was its own, when dropped.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    folder: PathBuf,
    own_folder: bool,
    users: Vec<User>,
}

/// Who may do everything in a cluster with users.
const ADMIN: &str = "admin";

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
            users: users(&options.users)?,
        };
        cluster.lay_out(&classpath, &ports, options, namespace)?;
        for node in &mut cluster.nodes {
            node.start(&classpath)?;
        }
        cluster.wait_ready(namespace)?;
        Ok(cluster)
    }

    /// Everything on disk before the first start.
    fn lay_out(
        &mut self,
        classpath: &str,
        ports: &[Ports],
        options: &Options,
        namespace: Option<&Namespace>,
    ) -> Result<(), KafkaError> {
        let folder = self.folder.clone();
        let properties = Properties {
            secure: !self.users.is_empty(),
            small: true,
            more: options.settings.clone(),
        };
        let place = |(id, ports): (usize, &Ports)| files::local(&folder, id, *ports);
        let places: Vec<_> = (1..).zip(ports).map(place).collect();
        let authority = folder.join("authority");
        if properties.secure {
            certificates::make_authority(&authority)?;
        }
        for (id, place) in (1..).zip(&places) {
            files::write_node(&folder, &properties, id, &places)?;
            if properties.secure {
                let secrets = Path::new(&place.secrets);
                certificates::make_node(&authority, secrets, &node_name(id))?;
            }
            let handle = namespace.map(Namespace::path);
            let home = folder.join(id.to_string());
            self.nodes
                .push(Node::new(id, place.ports.client, home, handle));
        }
        node::format(classpath, &folder, &places, &self.users)
    }

    /// What a user needs to reach the cluster; of an open cluster, the same for everybody.
    ///
    /// # Panics
    /// When a cluster with users does not know this one.
    #[must_use]
    pub fn access(&self, user: &str) -> Access {
        let mut access = Access::plain(&self.brokers());
        if self.users.is_empty() {
            return access;
        }
        let known = self.users.iter().find(|known| known.name == user);
        let Some(User { name, password }) = known else {
            panic!("there is no user {user}");
        };
        let authority = self.folder.join("authority/ca.pem");
        for (property, value) in [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", &authority.to_string_lossy()),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", name),
            ("sasl.password", password),
        ] {
            let (property, value) = (property.to_owned(), value.to_owned());
            access.properties.insert(property, value);
        }
        access
    }

    /// The node that leads the metadata, as far as the living nodes know.
    #[must_use]
    pub fn controller(&self) -> Option<usize> {
        let living = self.nodes.iter().filter(|node| node.is_running());
        let votes = living.filter_map(Node::vote);
        votes.max().map(|(_, leader)| leader)
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

    /// Waits until every copy of every partition is in sync; whether that came.
    #[must_use]
    pub fn wait_in_sync(&self) -> bool {
        let (access, wanted) = (
            self.access(ADMIN),
            Copies::for_brokers(self.nodes.len()).all,
        );
        let wanted = usize::try_from(wanted).unwrap_or(0);
        clock::wait_until(READY, || access.fewest_in_sync() == Some(wanted))
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
        let (access, wanted) = (self.access(ADMIN), self.nodes.len());
        let whole = in_namespace(namespace, || {
            clock::wait_until(READY, || access.broker_count() == Some(wanted))
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

/// The users of a cluster, with passwords of their own; the administrator is one of them.
fn users(names: &[String]) -> Result<Vec<User>, KafkaError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names = [ADMIN].into_iter().chain(names.iter().map(String::as_str));
    let user = |name: &str| {
        let (name, password) = (name.to_owned(), node::random_id()?);
        Ok(User { name, password })
    };
    names.map(user).collect()
}

/// Ports of one node.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// For clients.
    pub client: u16,
    /// For the other brokers, where they do not come as clients do.
    pub broker: u16,
    /// For the controllers.
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
            let mut port = |after| take(base.map_or(0, |base| base.saturating_add(after)));
            Ok(Ports {
                client: port(0)?,
                controller: port(1)?,
                broker: port(2)?,
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
