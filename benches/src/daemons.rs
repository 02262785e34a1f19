//! Our built programs as an operator starts them; they end with their owner.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use lab::clock;
use lab::netns::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::Process;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running program.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `run --config FILE` of a program that lies beside this one, and waits until its log says that it is `ready`.
    pub fn start(namespace: &Namespace, name: &str, config: &Path, ready: &str) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name(name);
        ensure!(program.exists(), "{} is not built", program.display());
        let log = config.with_extension("log");
        let child = namespace
            .command(&program)
            .args([
                OsStr::new("run"),
                OsStr::new("--config"),
                config.as_os_str(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let mut daemon = Self { child, log };
        let came = clock::wait_until(PATIENCE, || {
            daemon.said().contains(ready) || daemon.has_ended()
        });
        if !came || daemon.has_ended() {
            bail!("{name} does not run: {}", daemon.said());
        }
        Ok(daemon)
    }

    /// What it uses.
    pub fn process(&self) -> Process {
        Process::new(self.child.id())
    }

    /// Has its configuration read again.
    pub fn reload(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), Signal::SIGHUP)?)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It ends by itself; killed if it does not.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        if !clock::wait_until(Duration::from_secs(20), || self.has_ended()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
