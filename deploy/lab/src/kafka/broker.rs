//! How a broker is formatted and started, and what its files tell.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use super::KIND;
use super::files::Place;
use crate::command;
use crate::server::{ServerError, file_error};

/// A small heap, and no compiler that takes longer than the broker lives.
const JVM: [&str; 5] = [
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
];

fn java(classpath: &str) -> Command {
    let mut java = Command::new("java");
    let logging = KIND.deploy_folder().join("log4j2.properties");
    java.args(JVM)
        .arg(format!(
            "-Dlog4j2.configurationFile=file:{}",
            logging.display()
        ))
        .args(["-cp", classpath]);
    java
}

/// The broker whose folder is `place`.
pub(super) fn broker(classpath: &str, place: &Path) -> Command {
    let mut broker = java(classpath);
    broker.arg(KIND.class).arg(place.join("server.properties"));
    broker
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
) -> Result<(), ServerError> {
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
            // A thread that broke has said so.
            tool.join().unwrap_or(Ok(String::new()))?;
        }
        Ok(())
    })
}

/// Gives a user another password, as the administrator whose properties (of the JVM's client) are in a file.
pub(super) fn set_password(
    classpath: &str,
    brokers: &str,
    properties: &Path,
    user: &User,
) -> Result<(), ServerError> {
    let mut tool = java(classpath);
    let scram = format!("SCRAM-SHA-512=[password={}]", user.password);
    tool.args(["kafka.admin.ConfigCommand", "--bootstrap-server", brokers])
        .arg("--command-config")
        .arg(properties)
        .args(["--alter", "--entity-type", "users"])
        .args(["--entity-name", &user.name, "--add-config", &scram]);
    command::run(&mut tool)?;
    Ok(())
}

/// 16 random bytes as Kafka writes them: URL-safe base64 without padding.
pub(super) fn random_id() -> Result<String, ServerError> {
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

/// Epoch and node that it follows as the leader of the metadata, from the file in which Raft keeps that.
pub(super) fn vote(place: &Path) -> Option<(u64, usize)> {
    let path = place.join("data/__cluster_metadata-0/quorum-state");
    let text = fs::read_to_string(path).ok()?;
    let number = |name: &str| -> Option<u64> {
        let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
        let end = rest.find([',', '}'])?;
        rest[..end].trim().parse().ok()
    };
    let leader = usize::try_from(number("leaderId")?).ok()?;
    Some((number("leaderEpoch")?, leader))
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
}
