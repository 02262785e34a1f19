//! The agent in a guest with a systemd of its own: does for root what the host orders over a virtio port, one thing at a time.
//!
//! Limits: what a command leaves running with its output open holds up the answer; the host has a limit of its own for that.

use std::fs::{self, OpenOptions};
use std::io::{BufReader, ErrorKind, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::agent::{Answer, Order};

/// What ports are called; their numbers are those of the machine's devices, and nobody makes links by their names without udev.
const PORTS: &str = "vport";
/// Between the request to end and the end.
const GRACE: &str = "--kill-after=5";

/// Serves until the machine goes down.
pub fn serve() -> Result<()> {
    let path = port()?;
    let port = OpenOptions::new().read(true).write(true).open(&path);
    let mut answers = port.with_context(|| path.display().to_string())?;
    let mut orders = BufReader::new(answers.try_clone()?);
    loop {
        match Order::read(&mut orders) {
            Ok(order) => run(&order)?.write(&mut answers)?,
            // Nobody is connected at the other end yet.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(error).context("the host's orders"),
        }
    }
}

fn run(order: &Order) -> Result<Answer> {
    let mut command = Command::new("timeout");
    let seconds = order.limit.as_secs().to_string();
    command.args([GRACE, &seconds, "sh", "-c", &order.text]);
    command.stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who ends without reading it says more by the status.
        let _ = stdin.write_all(order.input.as_bytes());
    }
    let ended = child.wait_with_output()?;
    let by_signal = ended.status.signal().map(|signal| 128 + signal);
    Ok(Answer {
        status: ended.status.code().or(by_signal).unwrap_or(-1),
        output: ended.stdout,
        complaint: ended.stderr,
    })
}

/// The only one that there is.
fn port() -> Result<PathBuf> {
    let entries = fs::read_dir("/dev")?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut names = names.map(|name| name.to_string_lossy().into_owned());
    let name = names.find(|name| name.starts_with(PORTS));
    Ok(Path::new("/dev").join(name.context("no virtio port")?))
}
