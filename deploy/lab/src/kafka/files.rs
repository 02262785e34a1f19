//! Where the cluster's files lie, and the properties of each node.

use std::fs;
use std::path::{Path, PathBuf};

use super::declaration::Copies;
use super::{KIND, NodePorts};
use crate::server::{ServerError, file_error};

/// The one file that declares topics and grants.
#[must_use]
pub fn declared_topics() -> PathBuf {
    KIND.deploy_folder().join("cluster.toml")
}

/// `target/kafka`: everything that is made.
#[must_use]
pub fn work_folder() -> PathBuf {
    KIND.work_folder()
}

/// One node, as its properties name it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Name or address at which clients and the other nodes reach it.
    pub host: String,
    /// Its ports.
    pub ports: NodePorts,
    /// Folder of its data.
    pub data: String,
    /// Folder of its key and certificates.
    pub secrets: String,
}

/// Properties of all nodes of a cluster.
#[derive(Clone, Debug)]
pub struct Properties {
    /// Encrypted, with passwords and rights; or else open to everybody.
    pub secure: bool,
    /// For a small machine that has many nodes.
    pub small: bool,
    /// More of them, name and value, after the others.
    pub more: Vec<(String, String)>,
}

impl Properties {
    /// The text of `server.properties` of node `id`, counted from 1.
    ///
    /// # Errors
    /// When a template cannot be read.
    pub fn of_node(&self, id: usize, nodes: &[Place]) -> Result<String, ServerError> {
        let listeners = match self.secure {
            true => "listeners-secure.properties.in",
            false => "listeners-plain.properties.in",
        };
        let small = self.small.then_some("small.properties");
        let mut template = String::new();
        for file in ["node.properties.in", listeners].into_iter().chain(small) {
            let path = KIND.deploy_folder().join(file);
            template += &fs::read_to_string(&path).map_err(file_error(&path))?;
        }
        for (name, value) in &self.more {
            template += &format!("{name}={value}\n");
        }
        let words = words(id, nodes);
        let filled = |text: String, (word, value): &(&str, String)| text.replace(word, value);
        Ok(words.iter().fold(template, filled))
    }
}

/// Name of a node in its certificate.
#[must_use]
pub fn node_name(id: usize) -> String {
    format!("kafka-{id}")
}

/// Where a node whose folder is `place` has its keys and certificates.
pub(super) fn secrets(place: &Path) -> PathBuf {
    place.join("secrets")
}

fn words(id: usize, nodes: &[Place]) -> [(&'static str, String); 12] {
    let node = &nodes[id - 1];
    let controllers: Vec<_> = nodes
        .iter()
        .map(|node| format!("{}:{}", node.host, node.ports.controller))
        .collect();
    let supers = (1..=nodes.len()).map(|id| format!("User:{}", node_name(id)));
    let supers: Vec<_> = supers.chain(["User:admin".to_owned()]).collect();
    let copies = Copies::for_brokers(nodes.len());
    [
        ("{id}", id.to_string()),
        ("{name}", node_name(id)),
        ("{host}", node.host.clone()),
        ("{client_port}", node.ports.client.to_string()),
        ("{broker_port}", node.ports.broker.to_string()),
        ("{controller_port}", node.ports.controller.to_string()),
        ("{controllers}", controllers.join(",")),
        ("{super_users}", supers.join(";")),
        ("{data}", node.data.clone()),
        ("{secrets}", node.secrets.clone()),
        ("{replication}", copies.all.to_string()),
        ("{in_sync}", copies.in_sync.to_string()),
    ]
}

/// The node's place in a cluster below `folder` on this machine.
pub(super) fn local(folder: &Path, id: usize, ports: NodePorts) -> Place {
    let place = folder.join(id.to_string());
    Place {
        host: "127.0.0.1".to_owned(),
        ports,
        data: place.join("data").display().to_string(),
        secrets: secrets(&place).display().to_string(),
    }
}

/// Writes the properties of node `id` into its folder, without old data.
pub(super) fn write_node(
    folder: &Path,
    properties: &Properties,
    id: usize,
    nodes: &[Place],
) -> Result<(), ServerError> {
    let place = folder.join(id.to_string());
    if place.exists() {
        fs::remove_dir_all(&place).map_err(file_error(&place))?;
    }
    fs::create_dir_all(&place).map_err(file_error(&place))?;
    let path = place.join("server.properties");
    fs::write(&path, properties.of_node(id, nodes)?).map_err(file_error(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<Place> {
        let ports = |client| NodePorts {
            client,
            broker: client + 1,
            controller: client + 2,
        };
        let place = |(id, client)| local(Path::new("/tmp/x"), id, ports(client));
        (1..).zip([19092, 19102, 19112]).map(place).collect()
    }

    #[test]
    fn every_word_of_the_templates_is_filled_in() {
        for secure in [false, true] {
            let properties = Properties {
                secure,
                small: true,
                more: vec![("a".to_owned(), "b".to_owned())],
            };
            let text = properties.of_node(2, &nodes()).unwrap();
            let has = |line: &str| assert!(text.lines().any(|own| own == line), "{line} in {text}");
            has("node.id=2");
            has("a=b");
            has(
                "controller.quorum.bootstrap.servers=127.0.0.1:19094,127.0.0.1:19104,127.0.0.1:19114",
            );
            has("min.insync.replicas=2");
            has("log.dirs=/tmp/x/2/data");
            if secure {
                has("super.users=User:kafka-1;User:kafka-2;User:kafka-3;User:admin");
            }
            let values = text.lines().filter(|line| !line.starts_with('#'));
            assert!(values.into_iter().all(|line| !line.contains('{')), "{text}");
        }
    }
}
