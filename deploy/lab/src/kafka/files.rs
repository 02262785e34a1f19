//! Where the cluster's files lie, and the properties of each node.

use std::fs;
use std::path::{Path, PathBuf};

use super::{KIND, NodePorts};
use crate::server::{ServerError, file_error};

/// The one file that declares the topics.
#[must_use]
pub fn declared_topics() -> PathBuf {
    KIND.deploy_folder().join("topics.toml")
}

/// `target/kafka`: everything that is made.
#[must_use]
pub fn work_folder() -> PathBuf {
    KIND.work_folder()
}

/// What all nodes of one cluster share.
pub(super) struct Setup<'a> {
    folder: &'a Path,
    ports: &'a [NodePorts],
}

impl<'a> Setup<'a> {
    pub(super) fn new(folder: &'a Path, ports: &'a [NodePorts]) -> Self {
        Self { folder, ports }
    }

    /// Writes the properties of node `id`, counted from 1, into a folder without old data.
    pub(super) fn write_node(&self, id: usize) -> Result<(), ServerError> {
        let place = self.folder.join(id.to_string());
        if place.exists() {
            fs::remove_dir_all(&place).map_err(file_error(&place))?;
        }
        fs::create_dir_all(&place).map_err(file_error(&place))?;
        let template = KIND.deploy_folder().join("server.properties.in");
        let template_text = fs::read_to_string(&template).map_err(file_error(&template))?;
        let path = place.join("server.properties");
        fs::write(&path, self.fill(&template_text, id, &place)).map_err(file_error(&path))
    }

    fn fill(&self, template: &str, id: usize, place: &Path) -> String {
        let voters: Vec<_> = (1..)
            .zip(self.ports)
            .map(|(id, ports)| format!("{id}@127.0.0.1:{}", ports.controller))
            .collect();
        let replication = self.ports.len().min(3);
        let ports = self.ports[id - 1];
        let words = [
            ("{id}", id.to_string()),
            ("{broker_port}", ports.broker.to_string()),
            ("{controller_port}", ports.controller.to_string()),
            ("{voters}", voters.join(",")),
            ("{data}", place.join("data").display().to_string()),
            ("{replication}", replication.to_string()),
            (
                "{in_sync}",
                replication.saturating_sub(1).max(1).to_string(),
            ),
        ];
        words
            .iter()
            .fold(template.to_owned(), |text, (word, value)| {
                text.replace(word, value)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_template_is_filled_in() {
        let ports = [19092, 19102, 19112].map(|broker| NodePorts {
            broker,
            controller: broker + 1,
        });
        let setup = Setup::new(Path::new("/tmp/x"), &ports);
        let template = include_str!("../../../kafka/server.properties.in");
        let text = setup.fill(template, 2, Path::new("/tmp/x/2"));
        let has = |line: &str| assert!(text.lines().any(|own| own == line), "{line} in {text}");
        has("node.id=2");
        has("controller.quorum.voters=1@127.0.0.1:19093,2@127.0.0.1:19103,3@127.0.0.1:19113");
        has("min.insync.replicas=2");
        has("log.dirs=/tmp/x/2/data");
        let values = text.lines().filter(|line| !line.starts_with('#'));
        assert!(values.into_iter().all(|line| !line.contains('{')), "{text}");
    }
}
