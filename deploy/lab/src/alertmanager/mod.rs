//! Real Alertmanagers of our own: Debian's program with the shipped configuration, ended by process id.
//!
//! Each has a folder below `target/alertmanager/` (configuration, data, log, pid) and a free port on the loopback; there is no gossip.
//! The shipped receivers are pointed at [`webhook::Webhook`]. Limits: the Debian package prometheus-alertmanager must be there.

pub mod webhook;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock;
use crate::server::{ServerError, free_port};

const PROGRAM: &str = "prometheus-alertmanager";
/// First start on a loaded machine of two cores, with some room.
const READY: Duration = Duration::from_secs(60);
/// Where the shipped configuration expects its receivers.
const SHIPPED_RECEIVERS: &str = "http://127.0.0.1:9095";
const TOLD_LINES: usize = 20;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// An Alertmanager that cannot be started or reached.
#[derive(Debug, thiserror::Error)]
pub enum AlertmanagerError {
    /// A file of it cannot be read or written, or the program not started.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing free to listen on.
    #[error(transparent)]
    Port(#[from] ServerError),
    /// It did not answer in time.
    #[error("{PROGRAM} did not get ready; the end of {log}:\n{tail}", log = .log.display())]
    NotReady {
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
}

/// How one is made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Base URL that the shipped receivers are pointed at; absent: as shipped.
    pub receivers: Option<String>,
    /// `--web.config.file`: TLS and logins, for which it is asked nothing but its port before it counts as ready.
    pub web_config: Option<PathBuf>,
}

/// A running one. Killed, and its folder removed, when dropped.
#[derive(Debug)]
pub struct Alertmanager {
    port: u16,
    place: PathBuf,
    web_config: Option<PathBuf>,
    child: Option<Child>,
}

/// The shipped configuration.
#[must_use]
pub fn shipped() -> PathBuf {
    deploy().join("alertmanager").join("alertmanager.yml")
}

fn deploy() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

fn work_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| deploy().with_file_name("target"), PathBuf::from);
    std::path::absolute(target.join("alertmanager")).unwrap_or_else(|_| target.join("alertmanager"))
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> AlertmanagerError {
    let path = path.to_owned();
    move |source| AlertmanagerError::File { path, source }
}

impl Alertmanager {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When the program is missing, or does not get ready.
    pub fn start(options: &Options) -> Result<Self, AlertmanagerError> {
        remove_orphans();
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let place = work_folder().join(format!("lab-{}-{n}", std::process::id()));
        fs::create_dir_all(&place).map_err(file_error(&place))?;
        let mut config = fs::read_to_string(shipped()).map_err(file_error(&shipped()))?;
        if let Some(receivers) = &options.receivers {
            config = config.replace(SHIPPED_RECEIVERS, receivers);
        }
        let path = place.join("alertmanager.yml");
        fs::write(&path, config).map_err(file_error(&path))?;
        let mut started = Self {
            port: free_port()?,
            place,
            web_config: options.web_config.clone(),
            child: None,
        };
        started.spawn()?;
        Ok(started)
    }

    /// `http://127.0.0.1:port`, or `https://localhost:port` where it has a web configuration.
    #[must_use]
    pub fn url(&self) -> String {
        match self.web_config {
            None => format!("http://127.0.0.1:{}", self.port),
            Some(_) => format!("https://localhost:{}", self.port),
        }
    }

    /// Kills it as a power cut would: SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
            let _ = fs::remove_file(self.place.join("pid"));
        }
    }

    /// Starts it again on its old port and data, and waits until it answers.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn restart(&mut self) -> Result<(), AlertmanagerError> {
        self.kill();
        self.spawn()
    }

    /// Lets it hang: connections are made, nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().map(Child::id);
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    fn log(&self) -> PathBuf {
        self.place.join("log")
    }

    fn spawn(&mut self) -> Result<(), AlertmanagerError> {
        let path = self.log();
        let log = fs::OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(file_error(&path))?;
        let errors = log.try_clone().map_err(file_error(&path))?;
        let option = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
        let mut program = Command::new(PROGRAM);
        program
            .arg(option(
                "config.file",
                &self.place.join("alertmanager.yml").display(),
            ))
            .arg(option("storage.path", &self.place.join("data").display()))
            .arg(option(
                "web.listen-address",
                &format_args!("127.0.0.1:{}", self.port),
            ))
            .arg(option("cluster.listen-address", &""));
        if let Some(web) = &self.web_config {
            program.arg(option("web.config.file", &web.display()));
        }
        program
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C at the terminal is for us; we end it ourselves.
            .process_group(0);
        let child = program.spawn().map_err(file_error(Path::new(PROGRAM)))?;
        let pid = self.place.join("pid");
        let written = fs::write(&pid, child.id().to_string());
        self.child = Some(child);
        written.map_err(file_error(&pid))?;
        let mut ready = false;
        clock::wait_until(READY, || {
            ready = self.is_ready();
            ready || self.has_ended()
        });
        if ready { Ok(()) } else { Err(self.not_ready()) }
    }

    fn has_ended(&mut self) -> bool {
        let ended = |child: &mut Child| child.try_wait().is_ok_and(|status| status.is_some());
        self.child.as_mut().is_none_or(ended)
    }

    fn is_ready(&self) -> bool {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
            return false;
        };
        if self.web_config.is_some() {
            return true;
        }
        let mut answer = [0; 15];
        let asked = stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .and_then(|()| stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n"))
            .and_then(|()| stream.read_exact(&mut answer));
        asked.is_ok() && answer.ends_with(b"200 OK")
    }

    fn not_ready(&self) -> AlertmanagerError {
        let log = self.log();
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TOLD_LINES)..].join("\n");
        AlertmanagerError::NotReady { log, tail }
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.kill();
        // What cannot be removed lies below target/ and is removed by the next start.
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// Ends and removes what lab processes that live no more have left.
fn remove_orphans() {
    let Ok(entries) = fs::read_dir(work_folder()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix("lab-")
            .and_then(|rest| rest.split_once('-'))
            .and_then(|(pid, _)| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            kill_in(&entry.path());
            // Another process may be removing it at the same time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// SIGKILL to the Alertmanager of a folder: process ids are used again, so it must look like it.
fn kill_in(place: &Path) {
    let pid = fs::read_to_string(place.join("pid")).unwrap_or_default();
    let Ok(pid) = pid.trim().parse::<i32>() else {
        return;
    };
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    if line.contains(PROGRAM) && line.contains(&*place.to_string_lossy()) {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}
