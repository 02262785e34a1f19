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
mod broker;
mod certificates;
pub mod declaration;
mod files;
pub mod topics;

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use access::Access;
pub use acl_client::AclError;
pub use files::{Place, Properties, declared_topics, node_name, work_folder};

use crate::clock;
use crate::command::CommandError;
use crate::netns::{Namespace, NetnsError};
use crate::server::{self, Group, Kind, Node, Ports, READY, ServerError, in_namespace};
use broker::User;
use declaration::Copies;

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
    /// Who has a password, beside `admin`, who may do everything. Nobody: an open cluster, without encryption.
    pub users: Vec<String>,
    /// Clients of a cluster with users need a certificate beside their password.
    pub client_certificates: bool,
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
            client_certificates: false,
            settings: Vec::new(),
        }
    }
}

/// A running cluster. Killed, and its folder removed if it was its own, when dropped.
#[derive(Debug)]
pub struct Cluster {
    group: Group,
    users: Vec<User>,
    client_certificates: bool,
}

/// Who may do everything in a cluster with users.
const ADMIN: &str = "admin";

impl Cluster {
    /// Formats and starts a cluster, in `namespace` if there is one, and waits until it answers.
    ///
    /// # Errors
    /// When Java or Maven is missing, a port is taken, or a broker does not get ready.
    pub fn start(options: &Options, namespace: Option<&Namespace>) -> Result<Self, KafkaError> {
        let classpath = KIND.classpath()?;
        let group = Group::new(KIND, options.folder.as_deref())?;
        let ports = in_namespace(namespace, || ports(options))??;
        let mut cluster = Self {
            group,
            users: users(&options.users)?,
            client_certificates: options.client_certificates,
        };
        cluster.lay_out(&classpath, &ports, options, namespace)?;
        for node in &mut cluster.group.nodes {
            node.start(broker::broker(&classpath, node.place()))?;
        }
        cluster.wait_ready(namespace)?;
        Ok(cluster)
    }

    /// Everything on disk before the first start.
    fn lay_out(
        &mut self,
        classpath: &str,
        ports: &[NodePorts],
        options: &Options,
        namespace: Option<&Namespace>,
    ) -> Result<(), ServerError> {
        let folder = self.group.folder.clone();
        let mut more = options.settings.clone();
        if self.client_certificates {
            let name = "listener.name.client.ssl.client.auth".to_owned();
            more.push((name, "required".to_owned()));
        }
        let properties = Properties {
            secure: !self.users.is_empty(),
            small: true,
            more,
        };
        let place = |(id, ports): (usize, &NodePorts)| files::local(&folder, id, *ports);
        let places: Vec<_> = (1..).zip(ports).map(place).collect();
        for (id, place) in (1..).zip(&places) {
            files::write_node(&folder, &properties, id, &places)?;
            let address = SocketAddr::from(([127, 0, 0, 1], place.ports.client));
            let handle = namespace.map(Namespace::path);
            let home = self.group.place(id);
            let node = Node::new(KIND, id, address, home, handle);
            self.group.nodes.push(node);
        }
        if properties.secure {
            self.renew_authority()?;
        }
        broker::format(classpath, &folder, &places, &self.users)
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
        let file = |name: &str| self.authority().join(name).to_string_lossy().into_owned();
        let mut set = |property: &str, value: String| {
            access.properties.insert(property.to_owned(), value);
        };
        set("security.protocol", "SASL_SSL".to_owned());
        set("ssl.ca.location", file("ca.pem"));
        set("sasl.mechanism", "SCRAM-SHA-512".to_owned());
        set("sasl.username", name.clone());
        set("sasl.password", password.clone());
        if self.client_certificates {
            set("ssl.certificate.location", file("client.pem"));
            set("ssl.key.location", file("client.key"));
        }
        access
    }

    fn authority(&self) -> PathBuf {
        self.group.folder.join("authority")
    }

    /// A new authority and new certificates of all nodes, which they have from their next start on.
    ///
    /// # Errors
    /// When `openssl` is missing or says no.
    pub fn renew_authority(&self) -> Result<(), ServerError> {
        let authority = self.authority();
        certificates::make_authority(&authority)?;
        certificates::make_node(&authority, &authority.join("store"), "client")?;
        for id in 1..=self.group.nodes.len() {
            let secrets = files::secrets(&self.group.place(id));
            certificates::make_node(&authority, &secrets, &node_name(id))?;
        }
        Ok(())
    }

    /// Certificate and key for a client, by the present authority; the certificate is valid for so long.
    ///
    /// # Errors
    /// When `openssl` is missing or says no.
    pub fn certificate(&self, name: &str, life: Duration) -> Result<[PathBuf; 2], ServerError> {
        let authority = self.authority();
        certificates::make(&authority, name, Some(life))?;
        Ok(["pem", "key"].map(|kind| authority.join(format!("{name}.{kind}"))))
    }

    /// Gives a user another password. Connections that are open stay open.
    ///
    /// # Errors
    /// When the brokers do not take it.
    ///
    /// # Panics
    /// When a cluster with users does not know this one.
    pub fn set_password(&mut self, user: &str, password: &str) -> Result<(), KafkaError> {
        let known = self.users.iter_mut().find(|known| known.name == user);
        let known = known.unwrap_or_else(|| panic!("there is no user {user}"));
        password.clone_into(&mut known.password);
        let known = known.clone();
        let admin = &self.users[0];
        let (store, name, secret) = (self.authority().join("store"), &admin.name, &admin.password);
        let text = format!(
            "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\n\
             sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{name}\" password=\"{secret}\";\n\
             ssl.truststore.type=PEM\nssl.truststore.location={store}/ca.pem\n\
             ssl.keystore.type=PEM\nssl.keystore.location={store}/node.pem\n",
            store = store.display()
        );
        let file = store.join("admin.properties");
        std::fs::write(&file, text).map_err(server::file_error(&file))?;
        Ok(broker::set_password(
            &KIND.classpath()?,
            &self.brokers(),
            &file,
            &known,
        )?)
    }

    /// The node that leads the metadata, as far as the living nodes know.
    #[must_use]
    pub fn controller(&self) -> Option<usize> {
        let nodes = self.group.nodes.iter();
        let living = nodes.filter(|node| node.was_started());
        let votes = living.filter_map(|node| broker::vote(node.place()));
        votes.max().map(|(_, leader)| leader)
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

    /// Waits until every copy of every partition is in sync; whether that came.
    #[must_use]
    pub fn wait_in_sync(&self) -> bool {
        let (access, wanted) = (
            self.access(ADMIN),
            Copies::for_brokers(self.group.nodes.len()).all,
        );
        let wanted = usize::try_from(wanted).unwrap_or(0);
        clock::wait_until(READY, || access.fewest_in_sync() == Some(wanted))
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
        let (access, wanted) = (self.access(ADMIN), self.group.nodes.len());
        let whole = in_namespace(namespace, || {
            clock::wait_until(READY, || access.broker_count() == Some(wanted))
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

/// The users of a cluster, with passwords of their own; the administrator is one of them.
fn users(names: &[String]) -> Result<Vec<User>, ServerError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names = [ADMIN].into_iter().chain(names.iter().map(String::as_str));
    let user = |name: &str| {
        let (name, password) = (name.to_owned(), broker::random_id()?);
        Ok(User { name, password })
    };
    names.map(user).collect()
}

/// Ports of one node.
#[derive(Clone, Copy, Debug)]
pub struct NodePorts {
    /// For clients.
    pub client: u16,
    /// For the other brokers, where they do not come as clients do.
    pub broker: u16,
    /// For the controllers.
    pub controller: u16,
}

fn ports(options: &Options) -> Result<Vec<NodePorts>, ServerError> {
    let mut ports = Ports::default();
    let loopback = [IpAddr::from([127, 0, 0, 1])];
    (0..options.nodes)
        .map(|node| {
            let step = u16::try_from(node * 10).unwrap_or(u16::MAX);
            let base = options.first_port.map(|first| first.saturating_add(step));
            let mut port = |after| {
                let wanted = base.map_or(0, |base| base.saturating_add(after));
                ports.take(&loopback, wanted)
            };
            Ok(NodePorts {
                client: port(0)?,
                controller: port(1)?,
                broker: port(2)?,
            })
        })
        .collect()
}
