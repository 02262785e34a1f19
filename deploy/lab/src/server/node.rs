//! One node of a server: spawned, watched, killed by its process id.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Kind, ServerError, file_error};
use crate::{clock, netns};

/// Lines of a node's log that an error shows.
const TAIL_LINES: usize = 15;

/// A node, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    kind: Kind,
    id: usize,
    address: SocketAddr,
    place: PathBuf,
    /// File of the network namespace to run in.
    namespace: Option<PathBuf>,
    child: Option<Child>,
}

impl Node {
    pub(crate) fn new(
        kind: Kind,
        id: usize,
        address: SocketAddr,
        place: PathBuf,
        namespace: Option<PathBuf>,
    ) -> Self {
        Self {
            kind,
            id,
            address,
            place,
            namespace,
            child: None,
        }
    }

    /// Where clients reach it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    fn log(&self) -> PathBuf {
        self.place.join("log")
    }

    /// Starts `command`, with its output in the node's log.
    pub(crate) fn start(&mut self, mut command: Command) -> Result<(), ServerError> {
        let log_path = self.log();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(file_error(&log_path))?;
        let errors = log.try_clone().map_err(file_error(&log_path))?;
        command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C at the terminal is for us; we end the node ourselves.
            .process_group(0);
        if let Some(namespace) = &self.namespace {
            netns::enter_before_exec(&mut command, namespace);
        }
        let program = PathBuf::from(command.get_program());
        let child = command.spawn().map_err(file_error(&program))?;
        let pid = self.place.join("pid");
        fs::write(&pid, child.id().to_string()).map_err(file_error(&pid))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until `answers` says yes to its address; call it inside the server's namespace.
    pub(crate) fn wait(
        &mut self,
        timeout: Duration,
        answers: impl Fn(SocketAddr) -> bool,
    ) -> Result<(), ServerError> {
        let address = self.address;
        let mut up = false;
        clock::wait_until(timeout, || {
            up = answers(address);
            up || self.has_ended()
        });
        if up { Ok(()) } else { Err(self.not_ready()) }
    }

    /// Whether it was started and not killed.
    pub(crate) fn was_started(&self) -> bool {
        self.child.is_some()
    }

    fn has_ended(&mut self) -> bool {
        let ended = |child: &mut Child| child.try_wait().is_ok_and(|status| status.is_some());
        self.child.as_mut().is_none_or(ended)
    }

    pub(crate) fn not_ready(&self) -> ServerError {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        ServerError::NotReady {
            kind: self.kind.name,
            id: self.id,
            log: self.log(),
            tail: lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"),
        }
    }

    /// SIGKILL, and no zombie left.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
            let _ = fs::remove_file(self.place.join("pid"));
        }
    }

    /// Forgets the process, which goes on.
    pub(crate) fn leave(mut self) {
        self.child = None;
    }
}
