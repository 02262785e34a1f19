//! What the client's configuration names by file: certificates, keys, a password. They are replaced while the daemon runs.
//!
//! Input: the settings, the files. Output: a password; whether the files changed since a producer was made of them. librdkafka reads them
//! only when a producer is made. Limits: contents of files, names and times of a directory's entries (`ssl.ca.location` may be one);
//! looked at every [`LOOK`].

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::settings::{KafkaError, KafkaSettings};
use crate::secret;

/// Time between two looks at the files.
pub const LOOK: Duration = Duration::from_secs(2);
/// Properties that name a file.
const FILES: [&str; 5] = [
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.crl.location",
    "ssl.key.location",
    "ssl.keystore.location",
];
/// Longest password with its end of line, bytes.
const LONGEST: u64 = 4096;

/// All files that a producer is made of.
fn files(settings: &KafkaSettings) -> Vec<PathBuf> {
    let named = FILES
        .iter()
        .filter_map(|name| settings.properties.get(*name));
    let named = named.map(PathBuf::from);
    named.chain(settings.password_file.clone()).collect()
}

/// The password in a file, without the end of its line.
pub fn password(path: &Path) -> Result<String, KafkaError> {
    let refused = |reason: String| KafkaError::Password {
        path: path.to_path_buf(),
        reason,
    };
    let content = secret::read(path, LONGEST).map_err(|error| refused(error.to_string()))?;
    let text = String::from_utf8(content).map_err(|_| refused("is no text".to_owned()))?;
    let password = text.trim_end_matches(['\r', '\n']);
    match password.is_empty() {
        true => Err(refused("is empty".to_owned())),
        false => Ok(password.to_owned()),
    }
}

/// What is in the files.
type Print = [u8; 32];

/// The files of a producer, and what they held when it was made.
#[derive(Debug)]
pub struct Credentials {
    files: Vec<PathBuf>,
    used: Print,
    seen: Print,
    next: Instant,
}

impl Credentials {
    /// Those of the settings, as they are now.
    pub fn of(settings: &KafkaSettings, now: Instant) -> Self {
        let files = files(settings);
        let print = print(&files);
        Self {
            files,
            used: print,
            seen: print,
            next: now + LOOK,
        }
    }

    /// Looks, if it is time to: whether a new producer is to be made of what is there now. Said once for each content.
    pub fn changed(&mut self, now: Instant) -> bool {
        if self.files.is_empty() || now < self.next {
            return false;
        }
        self.next = now + LOOK;
        let print = print(&self.files);
        self.judge(print)
    }

    /// A certificate and its key are not replaced at one instant: what changed must be the same at two looks.
    fn judge(&mut self, print: Print) -> bool {
        let settled = print == self.seen;
        self.seen = print;
        let changed = settled && print != self.used;
        if changed {
            self.used = print;
        }
        changed
    }
}

/// A file that cannot be read has a print too: that of its error.
fn print(files: &[PathBuf]) -> Print {
    let mut hash = Sha256::new();
    for path in files {
        match read(path) {
            Ok(content) => hash.update(Sha256::digest(content)),
            Err(error) => hash.update(error.to_string()),
        }
    }
    hash.finalize().into()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_dir() {
        return fs::read(path);
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let found = fs::metadata(entry.path())?;
        let changed = (found.mtime(), found.mtime_nsec());
        entries.push(format!("{:?} {changed:?}", entry.file_name()));
    }
    entries.sort();
    Ok(entries.concat().into_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sink::Topics;

    fn settings(folder: &Path) -> KafkaSettings {
        let name = |file: &str| folder.join(file).to_string_lossy().into_owned();
        KafkaSettings {
            brokers: vec!["127.0.0.1:1".to_owned()],
            topics: Topics::with_window("w"),
            node: "edge-07".to_owned(),
            properties: [("ssl.ca.location".to_owned(), name("ca.pem"))].into(),
            password_file: Some(folder.join("password")),
            flush_timeout: Duration::ZERO,
        }
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    }

    #[test]
    fn a_change_is_told_once_when_it_has_settled() {
        let folder = tempfile::tempdir().expect("a directory");
        let (ca, secret) = (folder.path().join("ca.pem"), folder.path().join("password"));
        write(&ca, "one", 0o644);
        write(&secret, "a", 0o600);
        let mut now = Instant::now();
        let mut credentials = Credentials::of(&settings(folder.path()), now);
        let mut look = |credentials: &mut Credentials| {
            now += LOOK;
            credentials.changed(now)
        };
        assert!(!look(&mut credentials));
        write(&ca, "two", 0o644);
        assert!(!look(&mut credentials), "its key may not be there yet");
        write(&secret, "b", 0o600);
        assert!(!look(&mut credentials), "still on the way");
        assert!(look(&mut credentials));
        assert!(!look(&mut credentials), "told");
        fs::remove_file(&ca).expect("removed");
        assert!(!look(&mut credentials));
        assert!(look(&mut credentials), "gone is a change");
        // Put back before anybody looked: nothing has changed.
        write(&secret, "c", 0o600);
        write(&secret, "b", 0o600);
        assert!(!look(&mut credentials) && !look(&mut credentials));
    }

    #[test]
    fn a_directory_changes_with_its_entries() {
        let folder = tempfile::tempdir().expect("a directory");
        let before = print(&[folder.path().to_path_buf()]);
        fs::write(folder.path().join("0.pem"), "x").expect("written");
        assert_ne!(print(&[folder.path().to_path_buf()]), before);
    }

    #[test]
    fn a_password_is_a_line_that_others_cannot_read() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("password");
        write(&path, "secret word\n", 0o640);
        assert_eq!(password(&path).expect("a password"), "secret word");
        for (text, mode, reason) in [
            ("hidden", 0o644, "has mode 0644"),
            ("\n", 0o600, "is empty"),
        ] {
            write(&path, text, mode);
            let error = password(&path).expect_err("refused").to_string();
            assert!(
                error.contains(reason) && !error.contains("hidden"),
                "{error}"
            );
        }
        fs::remove_file(&path).expect("removed");
        let error = password(&path).expect_err("refused").to_string();
        assert!(error.contains("No such file"), "{error}");
    }
}
