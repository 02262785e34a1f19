//! Descriptors that the service manager keeps while the service restarts (systemd's file descriptor store).
//!
//! Input: descriptors with names. Output: `FDSTORE=1` and `FDSTOREREMOVE=1` datagrams to `$NOTIFY_SOCKET`; at the next start the same
//! descriptors, by `$LISTEN_FDS` and `$LISTEN_FDNAMES`. Nothing where these are unset. A manager that has no room (`FileDescriptorStoreMax=`)
//! closes what it gets, without a word: the next start then finds nothing.
//! Limits: names of up to 255 characters without a colon.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use sd_notify::NotifyState;

/// Whether somebody is there who may keep descriptors.
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Gives the manager a copy to keep.
///
/// # Errors
/// When the manager's socket does not take it.
pub fn store(name: &str, fd: impl AsFd) -> io::Result<()> {
    // Without FDPOLL=0 the manager drops what polls as broken, which BPF maps always do (Linux `bpf_map_poll`).
    let states = [
        NotifyState::FdStore,
        NotifyState::FdName(name),
        NotifyState::Custom("FDPOLL=0"),
    ];
    sd_notify::notify_with_fds(&states, &[fd.as_fd()])
}

/// Has the manager close what it keeps under a name.
///
/// # Errors
/// When the manager's socket does not take it.
pub fn remove(name: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
}

/// What the manager kept: names and descriptors. The manager keeps its own copies. For the start, and once: the second
/// call would hand out descriptors that are in use.
///
/// # Errors
/// When the environment makes no sense.
pub fn take() -> io::Result<Vec<(String, OwnedFd)>> {
    let passed = sd_notify::listen_fds_with_names()?;
    // SAFETY: the manager made these for us (`$LISTEN_PID` is ours), and nobody else in this process takes them.
    let owned = passed.map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) }));
    Ok(owned.collect())
}
