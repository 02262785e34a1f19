//! What real servers of ours have in common: jars from Maven, a folder, a process per node.
//!
//! Each server has its [`Kind`] and a folder below `target/<kind>/` with a folder per node
//! (settings, data, log, pid). A `Group` is killed, and its folder removed, when it is dropped;
//! what a killed process left behind is ended by the next start. Limits: Java 17 and Maven must be
//! there, the machine is Linux.

mod classpath;
mod folder;
mod node;
mod ports;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use folder::stop_in;
pub(crate) use folder::{is_running, remove_orphans};
pub(crate) use node::Node;
pub(crate) use ports::Ports;
pub use ports::free_port;

use crate::command::CommandError;
use crate::netns::{Namespace, NetnsError};

/// First start on a loaded machine of two cores, with some room.
pub(crate) const READY: Duration = Duration::from_secs(120);

/// A server that cannot be started or reached.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Java or Maven is absent, or said no.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A file of the server cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A node did not answer in time.
    #[error("{kind} node {id} did not get ready; the end of {log}:\n{tail}", log = .log.display())]
    NotReady {
        /// What it is.
        kind: &'static str,
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
    /// A server is running in this folder already.
    #[error("a server is running in {0} already")]
    Running(PathBuf),
}

/// A kind of server: the name of its folders, and its main class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub(crate) name: &'static str,
    pub(crate) class: &'static str,
}

impl Kind {
    /// `deploy/<kind>`, where the declarations are.
    pub(crate) fn deploy_folder(self) -> PathBuf {
        deploy().join(self.name)
    }

    /// `target/<kind>`: everything that is made.
    #[must_use]
    pub fn work_folder(self) -> PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| deploy().with_file_name("target"), PathBuf::from);
        let folder = target.join(self.name);
        // Java and we must mean the same by it, wherever each is started.
        std::path::absolute(&folder).unwrap_or(folder)
    }

    /// The Java class path of its jars.
    pub(crate) fn classpath(self) -> Result<String, ServerError> {
        classpath::resolve(self)
    }
}

fn deploy() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

pub(crate) fn file_error(path: &Path) -> impl FnOnce(io::Error) -> ServerError {
    let path = path.to_owned();
    move |source| ServerError::File { path, source }
}

/// Runs `work` inside the namespace, if there is one.
pub(crate) fn in_namespace<T: Send>(
    namespace: Option<&Namespace>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, NetnsError> {
    match namespace {
        Some(namespace) => namespace.run_in(work),
        None => Ok(work()),
    }
}

/// The nodes of one server and their folder. Killed, and the folder removed if it was its own,
/// when dropped.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) nodes: Vec<Node>,
    pub(crate) folder: PathBuf,
    own_folder: bool,
    kind: Kind,
}

impl Group {
    /// A group without nodes yet, in `wanted` or else in a folder of its own.
    pub(crate) fn new(kind: Kind, wanted: Option<&Path>) -> Result<Self, ServerError> {
        remove_orphans(kind);
        let folder = wanted.map_or_else(|| folder::of_this_process(kind), Path::to_owned);
        if is_running(kind, &folder) {
            return Err(ServerError::Running(folder));
        }
        Ok(Self {
            nodes: Vec::new(),
            folder,
            own_folder: wanted.is_none(),
            kind,
        })
    }

    /// The folder of node `id`, counted from 1.
    pub(crate) fn place(&self, id: usize) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// `host:port` of every node.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let addresses = self.nodes.iter().map(|node| node.address().to_string());
        addresses.collect()
    }

    /// SIGKILL to node `id`, counted from 1.
    pub(crate) fn kill(&mut self, id: usize) {
        self.nodes[id - 1].kill();
    }

    /// Ends all nodes orderly (SIGTERM, after 30 s SIGKILL).
    pub(crate) fn stop(mut self) {
        stop_in(self.kind, &self.folder);
        for node in &mut self.nodes {
            node.kill();
        }
    }

    /// Leaves the nodes running when this process ends.
    pub(crate) fn leave_running(mut self) {
        self.own_folder = false;
        for node in self.nodes.drain(..) {
            node.leave();
        }
    }
}

impl Drop for Group {
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
