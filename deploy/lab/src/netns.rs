//! One network namespace: made, entered, configured, removed.
//!
//! Names are `fvlab-<pid>-<n>-<role>`: unique on the machine, and a later process can tell which
//! namespaces belong to nobody any more. Only the network namespace is entered, never a mount
//! namespace, so that cgroups stay visible (unlike with `ip netns exec`).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::command::{self, CommandError};

/// Where `ip netns` keeps its names.
const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "fvlab-";
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A namespace that cannot be made, entered or set up.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// `ip` said no.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The namespace cannot be opened or entered.
    #[error("cannot enter network namespace {name}: {source}")]
    Enter {
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A sysctl cannot be written.
    #[error("cannot set {key} to {value} in network namespace {name}: {source}")]
    Sysctl {
        /// The namespace.
        name: String,
        /// Dotted name.
        key: String,
        /// The wanted value.
        value: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A network namespace of our own; removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: OwnedFd,
}

impl Namespace {
    /// Makes a namespace with a unique name that ends in `role`, its loopback up.
    ///
    /// # Errors
    /// When `ip` is absent or refuses, mostly for lack of privileges.
    pub fn new(role: &str) -> Result<Self, NetnsError> {
        remove_orphans();
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{n}-{role}", std::process::id());
        command::ip(&format!("netns add {name}"))?;
        let opened = fs::File::open(Path::new(DIRECTORY).join(&name));
        let handle = match opened {
            Ok(file) => OwnedFd::from(file),
            Err(source) => {
                let _ = command::ip(&format!("netns del {name}"));
                return Err(NetnsError::Enter { name, source });
            }
        };
        let namespace = Self { name, handle };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name below `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// `ip -n <this namespace>` with these space-separated arguments; what it printed.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn ip(&self, arguments: &str) -> Result<String, NetnsError> {
        Ok(command::ip(&format!("-n {} {arguments}", self.name))?)
    }

    /// Runs `work` in a fresh thread that lives in this namespace, and hands back its answer.
    ///
    /// Sockets made there, and threads started there, stay in the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn run_in<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let outcome = thread::scope(|scope| {
            let inside = scope.spawn(|| -> nix::Result<T> {
                setns(&self.handle, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            inside.join()
        });
        match outcome {
            Ok(entered) => entered.map_err(|errno| NetnsError::Enter {
                name: self.name.clone(),
                source: errno.into(),
            }),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A command that will run in this namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        enter_before_exec(&mut command, &self.path());
        command
    }

    /// Sets a sysctl of this namespace, by its dotted name below `net.`.
    ///
    /// # Errors
    /// When there is no such sysctl or the kernel refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), NetnsError> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.run_in(|| fs::write(path, value))?
            .map_err(|source| NetnsError::Sysctl {
                name: self.name.clone(),
                key: key.to_owned(),
                value: value.to_owned(),
                source,
            })
    }

    /// The descriptor of the namespace, for `setns` by other means.
    #[must_use]
    pub fn raw_fd(&self) -> i32 {
        self.handle.as_raw_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The name may be gone already; nothing is left to do about it then.
        let _ = command::ip(&format!("netns del {}", self.name));
    }
}

/// Lets `command` run in the network namespace that the file `namespace` stands for.
///
/// By its path, since a command may outlive a borrow of the descriptor.
pub(crate) fn enter_before_exec(command: &mut Command, namespace: &Path) {
    let path = CString::new(namespace.as_os_str().as_encoded_bytes());
    // SAFETY: the closure runs between fork and exec and calls only open, setns and close, which
    // are async-signal-safe; it allocates nothing.
    unsafe {
        command.pre_exec(move || {
            let path = path.as_ref().map_err(|_| io::ErrorKind::InvalidInput)?;
            let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let outcome = match libc::setns(fd, libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            };
            libc::close(fd);
            outcome
        });
    }
}

/// Removes namespaces of lab processes that live no more (killed before they could clean up).
fn remove_orphans() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if owner(&name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = command::ip(&format!("netns del {name}"));
        }
    }
}

/// The process id inside a name of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_read_from_our_names_only() {
        assert_eq!(owner("fvlab-41-3-server"), Some(41));
        assert_eq!(owner("fvlab-x-3-server"), None);
        assert_eq!(owner("blue"), None);
    }
}
