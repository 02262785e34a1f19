//! The sampler as an operator starts it: its binary with a configuration, events as JSON lines on standard output.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::clock;
use lab::netns::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sampler_event::{Event, NodeHeartbeat, StreamWindow};

/// Where the guest has it.
pub const PROGRAM: &str = "/usr/bin/flowvitals-sampler";
/// Longest wait for something that must happen; an emulated CPU is slow.
pub const PATIENCE: Duration = Duration::from_secs(90);
const CONFIG: &str = "/tmp/sampler.toml";
/// Takes it off when it is made.
pub const DISABLE_FILE: &str = "/tmp/disabled";

type Shared<T> = Arc<Mutex<T>>;

fn locked<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running sampler.
pub struct Sampler {
    process: Child,
    events: Shared<Vec<Event>>,
    log: Shared<String>,
    readers: Vec<JoinHandle<()>>,
}

impl Sampler {
    /// Starts it with these `[[stream]]` tables, and waits until it is attached.
    pub fn start(namespace: &Namespace, streams: &str) -> Result<Self> {
        // An emulated CPU makes the sampler dear: what it may cost is not what is tried here.
        let text = format!(
            "node = \"guest\"\nsite = \"vm-test\"\n[state]\ndirectory = \"/tmp/state\"\n[limits]\naction = \"log\"\n\
             disable_file = \"{DISABLE_FILE}\"\n{streams}"
        );
        fs::write(CONFIG, text)?;
        let mut command = namespace.command(PROGRAM);
        command
            .args(["run", "--config", CONFIG])
            .stdin(Stdio::null());
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = process.stdout.take().context("a pipe")?;
        let stderr = process.stderr.take().context("a pipe")?;
        let (events, log) = (Shared::default(), Shared::default());
        let readers = vec![read_events(stdout, &events, &log), read_log(stderr, &log)];
        let mut sampler = Self {
            process,
            events,
            log,
            readers,
        };
        let mut ended = false;
        let attached = clock::wait_until(PATIENCE, || {
            ended = sampler
                .process
                .try_wait()
                .is_ok_and(|status| status.is_some());
            ended || locked(&sampler.log).contains("attached at")
        });
        ensure!(
            attached && !ended,
            "it does not attach: {}",
            locked(&sampler.log)
        );
        Ok(sampler)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sum over all windows of a stream so far; of all streams if it is empty.
    pub fn sum(&self, stream: &str, of: impl Fn(&StreamWindow) -> u64) -> u64 {
        self.windows(stream).iter().map(of).sum()
    }

    /// All windows of a stream so far; of all streams if it is empty.
    pub fn windows(&self, stream: &str) -> Vec<StreamWindow> {
        let events = locked(&self.events);
        let windows = events.iter().filter_map(|event| match event {
            Event::Window(window) => Some((**window).clone()),
            _ => None,
        });
        windows
            .filter(|window| stream.is_empty() || window.stream == stream)
            .collect()
    }

    /// The newest heartbeat.
    pub fn heartbeat(&self) -> Option<NodeHeartbeat> {
        let events = locked(&self.events);
        events.iter().rev().find_map(|event| match event {
            Event::Node(node) => Some((**node).clone()),
            _ => None,
        })
    }

    fn heartbeats(&self) -> usize {
        let events = locked(&self.events);
        events
            .iter()
            .filter(|event| matches!(event, Event::Node(_)))
            .count()
    }

    /// Waits for `count` more windows to close, by their heartbeats.
    pub fn wait_windows(&self, count: usize) -> Result<()> {
        let wanted = self.heartbeats() + count;
        self.wait_for("windows are closed", || self.heartbeats() >= wanted)
    }

    /// Waits until something is so.
    pub fn wait_for(&self, what: &str, done: impl Fn() -> bool) -> Result<()> {
        if !clock::wait_until(PATIENCE, done) {
            bail!(
                "waited in vain until {what}; it said: {}",
                locked(&self.log)
            );
        }
        Ok(())
    }

    /// SIGTERM, and its end; events can be read after it.
    pub fn stop(&mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid())?), Signal::SIGTERM)?;
        let ended = clock::wait_until(PATIENCE, || {
            self.process.try_wait().is_ok_and(|status| status.is_some())
        });
        ensure!(ended, "it does not end");
        let status = self.process.wait()?;
        for reader in self.readers.drain(..) {
            let joined = reader.join();
            ensure!(joined.is_ok(), "a reader of what it said panicked");
        }
        ensure!(status.success(), "{status}: {}", locked(&self.log));
        Ok(())
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A line that is no event is kept among what it said, where a check that fails shows it.
fn read_events(
    from: impl Read + Send + 'static,
    events: &Shared<Vec<Event>>,
    log: &Shared<String>,
) -> JoinHandle<()> {
    let (events, log) = (Arc::clone(events), Arc::clone(log));
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(event) => locked(&events).push(event),
                Err(error) => locked(&log).push_str(&format!("no event ({error}): {line}\n")),
            }
        }
    })
}

/// It goes to the console too.
fn read_log(from: impl Read + Send + 'static, log: &Shared<String>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            eprintln!("{line}");
            locked(&log).push_str(&format!("{line}\n"));
        }
    })
}

/// Runs one of its commands that ends by itself: exit status, standard output, standard error.
pub fn ends(arguments: &[&str]) -> Result<(i32, String, String)> {
    let output = Command::new(PROGRAM).args(arguments).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().context("it was killed")?;
    Ok((code, text(&output.stdout), text(&output.stderr)))
}
