//! Where the cluster's files lie, and the properties of each node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{KafkaError, Ports};

fn deploy() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// `deploy/kafka`, where the declarations are.
pub(super) fn deploy_folder() -> PathBuf {
    deploy().join("kafka")
}

/// The one file that declares the topics.
#[must_use]
pub fn declared_topics() -> PathBuf {
    deploy_folder().join("topics.toml")
}

/// `target/kafka`: everything that is made.
#[must_use]
pub fn work_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| deploy().with_file_name("target"), PathBuf::from);
    // Java and we must mean the same by it, wherever each is started.
    std::path::absolute(target.join("kafka")).unwrap_or_else(|_| target.join("kafka"))
}

pub(super) fn file_error(path: &Path) -> impl FnOnce(io::Error) -> KafkaError {
    let path = path.to_owned();
    move |source| KafkaError::File { path, source }
}

/// What all nodes of one cluster share.
pub(super) struct Setup<'a> {
    folder: &'a Path,
    ports: &'a [Ports],
}

impl<'a> Setup<'a> {
    pub(super) fn new(folder: &'a Path, ports: &'a [Ports]) -> Self {
        Self { folder, ports }
    }

    /// Writes the properties of node `id`, counted from 1, into a folder without old data.
    pub(super) fn write_node(&self, id: usize) -> Result<(), KafkaError> {
        let place = self.folder.join(id.to_string());
        if place.exists() {
            fs::remove_dir_all(&place).map_err(file_error(&place))?;
        }
        fs::create_dir_all(&place).map_err(file_error(&place))?;
        let template = deploy_folder().join("server.properties.in");
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
        let ports = [19092, 19102, 19112].map(|broker| Ports {
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
