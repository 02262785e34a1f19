//! Real Kafka brokers (KRaft) of our own: started from Maven artefacts, stopped by process id.
//!
//! Each cluster has a folder below `target/kafka/` with a folder per node (properties, data, log,
//! pid). All listeners are on the loopback of the network namespace that the cluster lives in.
//! Limits: Java 17 and Maven must be there; no TLS, no ACLs. About 150–250 MB of memory per node.

mod broker;
mod files;
pub mod topics;

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use files::{declared_topics, work_folder};

use crate::clock;
use crate::command::CommandError;
use crate::netns::{Namespace, NetnsError};
use crate::server::{self, Group, Kind, Node, Ports, READY, ServerError, in_namespace};

/// Brokers among the servers.
const KIND: Kind = Kind {
    name: "kafka",
    class: "kafka.Kafka",
};

/// A broker that cannot be started, reached or set up.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// Java or Maven is absent, or said no: where nothing can be started, tests are skipped.
    #[error(transparent)]
    Command(CommandError),
    /// A broker cannot be started or reached.
    #[error(transparent)]
    Server(ServerError),
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

impl From<ServerError> for KafkaError {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Command(error) => Self::Command(error),
            error => Self::Server(error),
        }
    }
}

impl From<NetnsError> for KafkaError {
    fn from(error: NetnsError) -> Self {
        Self::Server(error.into())
    }
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
    group: Group,
}

impl Cluster {
    /// Formats and starts a cluster, in `namespace` if there is one, and waits until it answers.
    ///
    /// # Errors
    /// When Java or Maven is missing, a port is taken, or a broker does not get ready.
    pub fn start(options: &Options, namespace: Option<&Namespace>) -> Result<Self, KafkaError> {
        let classpath = KIND.classpath()?;
        let mut group = Group::new(KIND, options.folder.as_deref())?;
        let ports = in_namespace(namespace, || ports(options))??;
        let setup = files::Setup::new(&group.folder, &ports);
        for id in 1..=options.nodes {
            setup.write_node(id)?;
        }
        broker::format(&classpath, &group.folder, options.nodes)?;
        for (id, port) in (1..).zip(&ports) {
            let address = SocketAddr::from(([127, 0, 0, 1], port.broker));
            let handle = namespace.map(Namespace::path);
            let place = group.place(id);
            group
                .nodes
                .push(Node::new(KIND, id, address, place, handle));
        }
        for node in &mut group.nodes {
            node.start(broker::broker(&classpath, node.place()))?;
        }
        let mut cluster = Self { group };
        cluster.wait_ready(namespace)?;
        Ok(cluster)
    }

    /// `bootstrap.servers` for clients in the cluster's namespace.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.group.addresses().join(",")
    }

    /// The brokers as a list, for a configuration file.
    #[must_use]
    pub fn broker_list(&self) -> Vec<String> {
        self.group.addresses()
    }

    /// Kills node `id` (from 1) as a power cut would: SIGKILL.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn kill(&mut self, id: usize) {
        self.group.kill(id);
    }

    /// Starts node `id` again on its old data and waits until it answers.
    ///
    /// # Errors
    /// When it does not get ready.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn restart(&mut self, id: usize, namespace: Option<&Namespace>) -> Result<(), KafkaError> {
        let classpath = KIND.classpath()?;
        let node = &mut self.group.nodes[id - 1];
        node.kill();
        node.start(broker::broker(&classpath, node.place()))?;
        Ok(in_namespace(namespace, || node.wait(READY, accepts))??)
    }

    /// Ends all nodes orderly (SIGTERM, after 30 s SIGKILL).
    pub fn stop(self) {
        self.group.stop();
    }

    /// Leaves the cluster running when this process ends; [`stop_in`] ends it later.
    pub fn leave_running(self) {
        self.group.leave_running();
    }

    fn wait_ready(&mut self, namespace: Option<&Namespace>) -> Result<(), KafkaError> {
        for node in &mut self.group.nodes {
            in_namespace(namespace, || node.wait(READY, accepts))??;
        }
        let (brokers, wanted) = (self.brokers(), self.group.nodes.len());
        let whole = in_namespace(namespace, || {
            clock::wait_until(READY, || topics::broker_count(&brokers) == Some(wanted))
        })?;
        if whole {
            return Ok(());
        }
        Err(self.group.nodes[0].not_ready().into())
    }
}

/// Ends the cluster that an earlier process left running in `folder`; how many nodes that were.
pub fn stop_in(folder: &Path) -> usize {
    server::stop_in(KIND, folder)
}

/// Whether the broker's port accepts.
fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// Ports of one node.
#[derive(Clone, Copy, Debug)]
struct NodePorts {
    broker: u16,
    controller: u16,
}

fn ports(options: &Options) -> Result<Vec<NodePorts>, ServerError> {
    let mut ports = Ports::default();
    let loopback = [IpAddr::from([127, 0, 0, 1])];
    (0..options.nodes)
        .map(|node| {
            let step = u16::try_from(node * 10).unwrap_or(u16::MAX);
            let base = options.first_port.map(|first| first.saturating_add(step));
            let next = base.map_or(0, |base| base.saturating_add(1));
            Ok(NodePorts {
                broker: ports.take(&loopback, base.unwrap_or(0))?,
                controller: ports.take(&loopback, next)?,
            })
        })
        .collect()
}
