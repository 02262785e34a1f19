//! A service manager as far as its descriptor store goes: keeps what a service gives it, and gives it back at the next start.
//!
//! Like systemd it takes no more than the shipped unit allows, and drops what polls as broken unless it was asked not to poll.

use std::{
    io::IoSliceMut,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{net::UnixDatagram, process::CommandExt},
    },
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use lab::{netns::Namespace, unit::Unit};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};

/// First descriptor that a service is given (sd_listen_fds(3)).
const FIRST: RawFd = 3;
/// Descriptors are moved out of the way to numbers from here on first.
const ASIDE: RawFd = 500;

/// What is kept, in the order in which it came.
type Store = Arc<Mutex<Vec<(String, OwnedFd)>>>;

/// A running manager.
pub struct Supervisor {
    directory: tempfile::TempDir,
    store: Store,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts it.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a timeout");
        let unit = Unit::shipped("flowvitals-sampler.service").expect("the unit");
        let room = unit.settings("FileDescriptorStoreMax")[0]
            .parse()
            .expect("a number");
        let (store, stop) = (Store::default(), Arc::new(AtomicBool::new(false)));
        let (kept, stopped) = (Arc::clone(&store), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some((text, fds)) = receive(&socket) {
                    obey(&text, fds, room, &kept);
                }
            }
        });
        Self {
            directory,
            store,
            stop,
            thread: Some(thread),
        }
    }

    /// The store itself.
    pub fn store(&self) -> MutexGuard<'_, Vec<(String, OwnedFd)>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names in the store.
    pub fn names(&self) -> Vec<String> {
        self.store().iter().map(|(name, _)| name.clone()).collect()
    }

    /// Its start of a program in a namespace, with everything that is kept.
    pub fn command(&self, namespace: &Namespace, program: &str) -> Command {
        let store = self.store();
        // Only the process that is started knows its id; exec keeps it.
        let mut command = namespace.command("/bin/sh");
        command
            .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\"", program])
            .env("NOTIFY_SOCKET", self.directory.path().join("notify"));
        if store.is_empty() {
            return command;
        }
        let names: Vec<_> = store.iter().map(|(name, _)| name.as_str()).collect();
        command
            .env("LISTEN_FDS", store.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        let copies: Vec<OwnedFd> = store
            .iter()
            .map(|(_, fd)| fd.try_clone().expect("a copy"))
            .collect();
        let pass = move || {
            // SAFETY: fcntl(2) and dup2(2) may be called between fork and exec.
            unsafe {
                let mut aside = Vec::with_capacity(copies.len());
                for fd in &copies {
                    aside.push(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, ASIDE));
                }
                for (to, fd) in (FIRST..).zip(aside) {
                    if fd < 0 || libc::dup2(fd, to) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
            }
            Ok(())
        };
        // SAFETY: it calls nothing else.
        unsafe { command.pre_exec(pass) };
        command
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One message, if one comes in time.
fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    let mut bytes = [0; 4096];
    let mut control = nix::cmsg_space!([RawFd; 32]);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut control), flags).ok()?;
    let mut fds = Vec::new();
    for part in message.cmsgs().expect("control messages") {
        if let ControlMessageOwned::ScmRights(passed) = part {
            // SAFETY: the kernel has just made them for us.
            fds.extend(
                passed
                    .into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    let length = message.bytes;
    Some((String::from_utf8_lossy(&bytes[..length]).into_owned(), fds))
}

fn obey(text: &str, fds: Vec<OwnedFd>, room: usize, store: &Store) {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
    let name = value("FDNAME=").unwrap_or("stored");
    if value("FDSTOREREMOVE=") == Some("1") {
        store.retain(|(kept, _)| kept != name);
    }
    if value("FDSTORE=") == Some("1") {
        for fd in fds {
            let broken = value("FDPOLL=") != Some("0") && polls_as_broken(&fd);
            if store.len() < room && !broken {
                store.push((name.to_owned(), fd));
            }
        }
    }
}

fn polls_as_broken(fd: impl AsFd) -> bool {
    let mut polled = [PollFd::new(fd.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready != 0)
}
