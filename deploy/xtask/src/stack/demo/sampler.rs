//! The sampler as an operator would start it: the built binary with a configuration file.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::clock;
use lab::network::Network;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::streams;

/// How its start went.
pub enum Start {
    /// It is attached.
    Attached(Sampler),
    /// This kernel or this user cannot load its program, in the sampler's words.
    Impossible(String),
}

/// Its exit statuses for that: the kernel cannot do it, a privilege is missing.
const IMPOSSIBLE: [i32; 2] = [69, 77];

/// A running sampler; ended by force when dropped without [`Sampler::stop`].
pub struct Sampler {
    process: Child,
    folder: PathBuf,
}

impl Sampler {
    /// Starts it in the edge's namespace and waits until it is attached.
    pub fn start(network: &Network, folder: &Path, brokers: &[String]) -> Result<Start> {
        let program = std::env::current_exe()?.with_file_name("flowvitals-sampler");
        if !program.exists() {
            bail!(
                "{} is not built: cargo build --release -p sampler",
                program.display()
            );
        }
        let file = folder.join("sampler.toml");
        fs::write(&file, streams::config(network, folder, brokers))?;
        fs::create_dir_all(folder.join("state"))?;
        let log = fs::File::create(folder.join("sampler.log"))?;
        let process = network
            .server()
            .command(&program)
            .args(["run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at the terminal is for us; we end it ourselves.
            .process_group(0)
            .spawn()
            .context("cannot start the sampler")?;
        let mut sampler = Self {
            process,
            folder: folder.to_owned(),
        };
        let healthy = network.server().run_in(|| {
            clock::wait_until(Duration::from_secs(30), || {
                sampler.has_ended() || is_healthy()
            })
        })?;
        let status = sampler.process.try_wait()?.and_then(|status| status.code());
        if status.is_some_and(|code| IMPOSSIBLE.contains(&code)) {
            return Ok(Start::Impossible(sampler.last_words()));
        }
        if !healthy || sampler.has_ended() {
            bail!("the sampler does not run: {}", sampler.last_words());
        }
        Ok(Start::Attached(sampler))
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// SIGTERM: it folds the open flows, sends the last window, and ends.
    pub fn stop(mut self) -> Result<()> {
        kill(
            Pid::from_raw(i32::try_from(self.process.id())?),
            Signal::SIGTERM,
        )?;
        if !clock::wait_until(Duration::from_secs(20), || self.has_ended()) {
            bail!("the sampler did not end in 20 s: {}", self.last_words());
        }
        let status = self.process.wait()?;
        if !status.success() {
            bail!("the sampler ended with {status}: {}", self.last_words());
        }
        Ok(())
    }

    fn has_ended(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|status| status.is_some())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("sampler.log")).unwrap_or_default();
        let said = log
            .lines()
            .rfind(|line| line.starts_with("flowvitals-sampler: "));
        said.or_else(|| log.lines().next_back())
            .unwrap_or("it said nothing")
            .to_owned()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks /healthz, in the namespace of the calling thread.
fn is_healthy() -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(streams::METRICS)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| {
        answer
            .lines()
            .next()
            .is_some_and(|line| line.contains(" 200 "))
    })
}
