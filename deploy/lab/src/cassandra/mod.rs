//! Real Cassandra nodes of our own: started from Maven artefacts, stopped by process id.
//!
//! One node on 127.0.0.1 or a ring on 127.0.0.1, 127.0.0.2, …, in the network namespace that the
//! server lives in, all with the same CQL port. One node keeps every write that it acknowledged
//! over SIGKILL; of a ring that is true for writes to a quorum. Limits: no JMX, so no nodetool;
//! about 500 MB of memory per node; a ring takes half a minute to start.

mod files;
mod ring;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::netns::Namespace;
use crate::server::{self, Group, Kind, Node, Ports, READY, ServerError, in_namespace};

/// Cassandra among the servers.
const KIND: Kind = Kind {
    name: "cassandra",
    class: "org.apache.cassandra.service.CassandraDaemon",
};
/// Data centre of all nodes.
pub const DATACENTER: &str = "dc1";
/// Who may log in where [`Options::login`] asks for it.
pub const USER: &str = "cassandra";
/// That user's password.
pub const PASSWORD: &str = "cassandra";
/// All nodes of a ring know each other by then.
const WHOLE: Duration = Duration::from_secs(180);

/// A small heap, and what Cassandra needs of Java 17's own.
const JVM: [&str; 10] = [
    "-Xms64m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "--add-exports",
    "java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens",
    "java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens",
    "java.base/java.io=ALL-UNNAMED",
];

/// How a server is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of nodes, 1 to 9; more than one are a ring.
    pub nodes: usize,
    /// Port for clients, the same on all nodes; absent: any that is free.
    pub cql_port: Option<u16>,
    /// Where its files lie; absent: a folder of its own that goes with it.
    pub folder: Option<PathBuf>,
    /// Only [`USER`] with [`PASSWORD`] is let in.
    pub login: bool,
    /// TLS for those clients who ask for it, with the certificate [`Cassandra::certificate`].
    pub tls: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1,
            cql_port: None,
            folder: None,
            login: false,
            tls: false,
        }
    }
}

/// A running server. Killed, and its folder removed if it was its own, when dropped.
#[derive(Debug)]
pub struct Cassandra {
    group: Group,
    login: bool,
    certificate: Option<PathBuf>,
}

impl Cassandra {
    /// Starts one node or a ring, in `namespace` if there is one, and waits until it can be used.
    ///
    /// # Errors
    /// When Java or Maven is missing, a port is taken, or a node does not get ready.
    pub fn start(options: &Options, namespace: Option<&Namespace>) -> Result<Self, ServerError> {
        let classpath = KIND.classpath()?;
        let mut group = Group::new(KIND, options.folder.as_deref())?;
        let (cql_port, storage_port) = in_namespace(namespace, || ports(options))??;
        let (key_store, certificate) = match options.tls {
            true => files::make_key(&group.folder).map(|(key, pem)| (Some(key), Some(pem)))?,
            false => (None, None),
        };
        let setup = files::Setup {
            nodes: options.nodes,
            cql_port,
            storage_port,
            login: options.login,
            key_store,
        };
        for id in 1..=options.nodes {
            let (place, handle) = (group.place(id), namespace.map(Namespace::path));
            setup.write_node(id, &place)?;
            let address = SocketAddr::from((files::address(id), cql_port));
            group
                .nodes
                .push(Node::new(KIND, id, address, place, handle));
        }
        let mut cassandra = Self {
            group,
            login: options.login,
            certificate,
        };
        for id in 1..=options.nodes {
            cassandra.launch(id, &classpath)?;
        }
        for node in &mut cassandra.group.nodes {
            in_namespace(namespace, || node.wait(READY, ring::answers))??;
        }
        cassandra.wait_whole(namespace)?;
        Ok(cassandra)
    }

    /// `host:port` of every node, for clients in the server's namespace.
    #[must_use]
    pub fn contact_points(&self) -> Vec<String> {
        self.group.addresses()
    }

    /// The certificate by which clients know the nodes (PEM), where there is TLS.
    #[must_use]
    pub fn certificate(&self) -> Option<&Path> {
        self.certificate.as_deref()
    }

    /// The data files of node `id`, counted from 1: a folder per keyspace, in it one per table.
    #[must_use]
    pub fn data(&self, id: usize) -> PathBuf {
        self.group.place(id).join("data")
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
    pub fn restart(&mut self, id: usize, namespace: Option<&Namespace>) -> Result<(), ServerError> {
        let classpath = KIND.classpath()?;
        self.group.kill(id);
        self.launch(id, &classpath)?;
        let node = &mut self.group.nodes[id - 1];
        in_namespace(namespace, || node.wait(READY, ring::answers))?
    }

    /// Ends all nodes orderly, which writes what they hold in memory to their data files, and
    /// leaves the files where they are.
    pub fn drain(&mut self) {
        server::stop_in(KIND, &self.group.folder);
        for node in &mut self.group.nodes {
            node.kill();
        }
    }

    /// Ends all nodes orderly (SIGTERM, after 30 s SIGKILL).
    pub fn stop(self) {
        self.group.stop();
    }

    /// Leaves the nodes running when this process ends; [`stop_in`] ends them later.
    pub fn leave_running(self) {
        self.group.leave_running();
    }

    fn launch(&mut self, id: usize, classpath: &str) -> Result<(), ServerError> {
        let alone = self.group.nodes.len() == 1;
        let node = &mut self.group.nodes[id - 1];
        node.start(daemon(classpath, node.place(), alone))
    }

    fn wait_whole(&self, namespace: Option<&Namespace>) -> Result<(), ServerError> {
        let nodes = &self.group.nodes;
        if nodes.len() == 1 && !self.login {
            return Ok(());
        }
        let addresses: Vec<_> = nodes.iter().map(Node::address).collect();
        let whole = || ring::wait_whole(&addresses, self.login, WHOLE);
        match in_namespace(namespace, whole)? {
            true => Ok(()),
            false => Err(nodes[0].not_ready()),
        }
    }
}

/// The daemon of the node whose folder is `place`.
fn daemon(classpath: &str, place: &Path, alone: bool) -> Command {
    let mut java = Command::new("java");
    let file = |path: &Path| format!("file://{}", path.display());
    let shipped = |name: &str| file(&KIND.deploy_folder().join(name));
    // Nodes of a ring must have heard of each other before they take their places.
    let ring_delay_ms = if alone { 0 } else { 30_000 };
    let properties = [
        ("cassandra.config", file(&place.join("cassandra.yaml"))),
        ("cassandra.storagedir", place.display().to_string()),
        ("cassandra-foreground", "yes".to_owned()),
        ("cassandra.ring_delay_ms", ring_delay_ms.to_string()),
        ("cassandra.skip_wait_for_gossip_to_settle", "0".to_owned()),
        ("cassandra.superuser_setup_delay_ms", "0".to_owned()),
        (
            "cassandra-rackdc.properties",
            shipped("cassandra-rackdc.properties"),
        ),
        ("logback.configurationFile", shipped("logback.xml")),
    ];
    java.args(JVM);
    for (key, value) in properties {
        java.arg(format!("-D{key}={value}"));
    }
    java.args(["-cp", classpath, KIND.class]);
    java
}

/// Ports for clients and for the nodes among themselves, free on the addresses of all nodes.
fn ports(options: &Options) -> Result<(u16, u16), ServerError> {
    let addresses: Vec<_> = (1..=options.nodes).map(files::address).collect();
    let mut ports = Ports::default();
    let cql = ports.take(&addresses, options.cql_port.unwrap_or(0))?;
    Ok((cql, ports.take(&addresses, 0)?))
}

/// `target/cassandra`: everything that is made.
#[must_use]
pub fn work_folder() -> PathBuf {
    KIND.work_folder()
}

/// Ends the server that an earlier process left running in `folder`; how many nodes that were.
pub fn stop_in(folder: &Path) -> usize {
    server::stop_in(KIND, folder)
}
