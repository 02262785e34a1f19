//! Events that no broker will ever take, kept for a person to look at.
//!
//! Input: a record and the reason. Output: lines of JSON in `dead-letter.jsonl`, the payload in hexadecimal.
//! Limits: [`MAX_BYTES`] a file and one older file, `dead-letter.old.jsonl`; what is older is gone. A payload beyond
//! [`MAX_PAYLOAD_BYTES`] is left out. Not synced.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::directory::Directory;
use crate::sink::Record;

/// Bound of a file.
const MAX_BYTES: u64 = 2 << 20;
/// Bound of a payload.
const MAX_PAYLOAD_BYTES: usize = 256 << 10;

/// The two files.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    old: PathBuf,
}

impl DeadLetters {
    /// In a directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            path: directory.join("dead-letter.jsonl"),
            old: directory.join("dead-letter.old.jsonl"),
        }
    }

    /// Adds an event.
    ///
    /// # Errors
    /// The disk's.
    pub fn add(&self, record: &Record, reason: &str, at_ms: u64) -> io::Result<()> {
        let payload = (record.payload.len() <= MAX_PAYLOAD_BYTES).then(|| hex(&record.payload));
        let line = json!({
            "at_ms": at_ms,
            "reason": reason,
            "schema": record.kind.schema(),
            "key": record.key,
            "instance": record.stamp.instance,
            "sequence": record.stamp.sequence,
            "bytes": record.payload.len(),
            "payload": payload,
        });
        let line = format!("{line}\n");
        let length = fs::metadata(&self.path).map_or(0, |found| found.len());
        if length > 0 && length + line.len() as u64 > MAX_BYTES {
            fs::rename(&self.path, &self.old)?;
        }
        Directory::append(&self.path)?.write_all(line.as_bytes())
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Kind, Stamp};

    fn record(length: usize) -> Record {
        Record {
            kind: Kind::Window,
            key: "sport".to_owned(),
            stamp: Stamp {
                instance: u64::MAX,
                sequence: 4,
                end_ms: 0,
            },
            payload: vec![0xab; length],
        }
    }

    #[test]
    fn is_readable_and_bounded() {
        let place = tempfile::tempdir().expect("a directory");
        let letters = DeadLetters::new(place.path());
        letters.add(&record(2), "too large", 9).expect("written");
        let text = fs::read_to_string(&letters.path).expect("read");
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).expect("JSON");
        assert_eq!(line["payload"], "abab");
        assert_eq!(line["instance"], u64::MAX);
        for _ in 0..30 {
            letters.add(&record(200_000), "r", 0).expect("written");
        }
        let sizes =
            [&letters.path, &letters.old].map(|path| fs::metadata(path).expect("there").len());
        assert!(
            sizes.iter().all(|size| (1..=MAX_BYTES).contains(size)),
            "{sizes:?}"
        );
        letters
            .add(&record(MAX_PAYLOAD_BYTES + 1), "r", 0)
            .expect("written");
        let text = fs::read_to_string(&letters.path).expect("read");
        assert!(
            text.lines()
                .last()
                .expect("a line")
                .contains(r#""payload":null"#)
        );
    }
}
