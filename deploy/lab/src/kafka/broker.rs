//! How a broker is formatted and started.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use super::KIND;
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

/// Writes the cluster's identity into the data folders of all nodes, one process after another.
pub(super) fn format(classpath: &str, folder: &Path, nodes: usize) -> Result<(), ServerError> {
    let cluster = cluster_id()?;
    for id in 1..=nodes {
        let mut tool = java(classpath);
        tool.args(["kafka.tools.StorageTool", "format", "-t", &cluster, "-c"])
            .arg(folder.join(id.to_string()).join("server.properties"));
        command::run(&mut tool)?;
    }
    Ok(())
}

/// 16 random bytes as Kafka writes them: URL-safe base64 without padding.
fn cluster_id() -> Result<String, ServerError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_22_digits_and_no_option() {
        for _ in 0..200 {
            let id = cluster_id().unwrap();
            assert_eq!(id.len(), 22);
            assert!(!id.starts_with('-'), "{id}");
        }
    }
}
