//! One broker process: formatted, started, watched, ended by its process id.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::KafkaError;
use super::files::{Place, deploy_folder, file_error};
use crate::netns;
use crate::{clock, command};

/// A small heap, and no compiler that takes longer than the broker lives.
const JVM: [&str; 5] = [
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
];

/// A broker, running or not.
#[derive(Debug)]
pub(super) struct Node {
    id: usize,
    port: u16,
    place: PathBuf,
    /// File of the network namespace to run in.
    namespace: Option<PathBuf>,
    child: Option<Child>,
}

fn java(classpath: &str) -> Command {
    let mut java = Command::new("java");
    let logging = deploy_folder().join("log4j2.properties");
    java.args(JVM)
        .arg(format!(
            "-Dlog4j2.configurationFile=file:{}",
            logging.display()
        ))
        .args(["-cp", classpath]);
    java
}

/// Somebody with a password.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: String,
}

/// Writes the cluster's identity, its first controllers and its users into the data folders of all nodes.
pub(super) fn format(
    classpath: &str,
    folder: &Path,
    nodes: &[Place],
    users: &[User],
) -> Result<(), KafkaError> {
    let cluster = random_id()?;
    let mut controllers = Vec::new();
    for (id, node) in (1..).zip(nodes) {
        let (host, port, directory) = (&node.host, node.ports.controller, random_id()?);
        controllers.push(format!("{id}@{host}:{port}:{directory}"));
    }
    let controllers = controllers.join(",");
    let tools = (1..=nodes.len()).map(|id| {
        let mut tool = java(classpath);
        tool.args(["kafka.tools.StorageTool", "format", "-t", &cluster, "-c"])
            .arg(folder.join(id.to_string()).join("server.properties"))
            .args(["--initial-controllers", &controllers]);
        for User { name, password } in users {
            let user = format!("SCRAM-SHA-512=[name={name},password={password}]");
            tool.args(["--add-scram", &user]);
        }
        tool
    });
    // Most of the time is the start of a Java machine: two at a time where there are two processors.
    std::thread::scope(|scope| {
        let running: Vec<_> = tools
            .map(|mut tool| scope.spawn(move || command::run(&mut tool)))
            .collect();
        for tool in running {
            let ended = tool.join().map_err(|_| KafkaError::Lost("format"))?;
            ended?;
        }
        Ok(())
    })
}

/// 16 random bytes as Kafka writes them: URL-safe base64 without padding.
pub(super) fn random_id() -> Result<String, KafkaError> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let source = Path::new("/dev/urandom");
    let mut bytes = [0_u8; 16];
    fs::File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(file_error(source))?;
    // A leading '-' would be taken for an option: the first six bits are below 62.
    bytes[0] &= 0x7f;
    let number = u128::from_be_bytes(bytes);
    // 22 digits of 6 bits hold 132 bits; the last four are zero.
    Ok((0..22)
        .map(|digit| {
            let shift = 122 - 6 * digit;
            let bits = if shift >= 0 {
                number >> shift
            } else {
                number << -shift
            };
            char::from(DIGITS[usize::from((bits & 63) as u8)])
        })
        .collect())
}

impl Node {
    pub(super) fn new(id: usize, port: u16, place: PathBuf, namespace: Option<PathBuf>) -> Self {
        Self {
            id,
            port,
            place,
            namespace,
            child: None,
        }
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn log(&self) -> PathBuf {
        self.place.join("log")
    }

    pub(super) fn start(&mut self, classpath: &str) -> Result<(), KafkaError> {
        let log_path = self.log();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(file_error(&log_path))?;
        let errors = log.try_clone().map_err(file_error(&log_path))?;
        let mut broker = java(classpath);
        broker
            .arg("kafka.Kafka")
            .arg(self.place.join("server.properties"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C at the terminal is for us; we end the broker ourselves.
            .process_group(0);
        if let Some(namespace) = &self.namespace {
            netns::enter_before_exec(&mut broker, namespace);
        }
        let child = broker.spawn().map_err(file_error(Path::new("java")))?;
        let pid = self.place.join("pid");
        fs::write(&pid, child.id().to_string()).map_err(file_error(&pid))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until the broker's port accepts; call it inside the cluster's namespace.
    pub(super) fn wait_port(&mut self, timeout: Duration) -> Result<(), KafkaError> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut up = false;
        clock::wait_until(timeout, || {
            up = TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
            up || self.has_ended()
        });
        if up { Ok(()) } else { Err(self.not_ready()) }
    }

    /// Whether it was started and not killed.
    pub(super) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Epoch and node that it follows as the leader of the metadata, from the file in which Raft keeps that.
    pub(super) fn vote(&self) -> Option<(u64, usize)> {
        let path = self.place.join("data/__cluster_metadata-0/quorum-state");
        let text = fs::read_to_string(path).ok()?;
        let number = |name: &str| -> Option<u64> {
            let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
            let end = rest.find([',', '}'])?;
            rest[..end].trim().parse().ok()
        };
        let leader = usize::try_from(number("leaderId")?).ok()?;
        Some((number("leaderEpoch")?, leader))
    }

    fn has_ended(&mut self) -> bool {
        let ended = |child: &mut Child| child.try_wait().is_ok_and(|status| status.is_some());
        self.child.as_mut().is_none_or(ended)
    }

    pub(super) fn not_ready(&self) -> KafkaError {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        KafkaError::NotReady {
            id: self.id,
            log: self.log(),
            tail: lines[lines.len().saturating_sub(15)..].join("\n"),
        }
    }

    /// SIGKILL, and no zombie left.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
            let _ = fs::remove_file(self.place.join("pid"));
        }
    }

    /// Forgets the process, which goes on.
    pub(super) fn leave(mut self) {
        self.child = None;
    }
}

/// The process ids that the nodes below `folder` wrote down.
pub(super) fn pids(folder: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("pid")).ok())
        .filter_map(|text| text.trim().parse().ok())
        .collect()
}

/// Whether this process is a broker of `folder`: process ids are used again.
pub(super) fn lives(pid: i32, folder: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    line.contains("kafka.Kafka") && line.contains(&*folder.to_string_lossy())
}

/// SIGTERM to all nodes below `folder`, SIGKILL to those that live after 30 s; how many there were.
pub(super) fn terminate(folder: &Path) -> usize {
    let ours: Vec<i32> = pids(folder)
        .into_iter()
        .filter(|pid| lives(*pid, folder))
        .collect();
    for pid in &ours {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGTERM);
    }
    clock::wait_until(Duration::from_secs(30), || {
        ours.iter().all(|pid| !lives(*pid, folder))
    });
    kill_all(folder);
    ours.len()
}

/// SIGKILL to all nodes below `folder`.
pub(super) fn kill_all(folder: &Path) {
    for pid in pids(folder).into_iter().filter(|pid| lives(*pid, folder)) {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_22_digits_and_no_option() {
        for _ in 0..200 {
            let id = random_id().unwrap();
            assert_eq!(id.len(), 22);
            assert!(!id.starts_with('-'), "{id}");
        }
    }

    #[test]
    fn another_process_is_no_broker_of_ours() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!lives(own, Path::new("/")));
    }
}
