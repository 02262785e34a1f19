//! Whether events could wait on the disk, and what waits there now.
//!
//! Input: the spool's directory and bound. Output: one [`Check`]. Nothing is changed; a spool that is in use is looked at all the same.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::report::{Check, Essential};
use crate::config::Config;
use crate::spool::{self, directory};

const TODO: &str =
    "make it a directory of the service's user with mode 0700, or set spool.directory";

/// What the configuration says of the spool.
#[derive(Clone, Debug)]
pub struct SpoolSubject {
    /// Where it lies.
    pub directory: PathBuf,
    /// Its bound.
    pub max_bytes: u64,
    /// How long that lasts, at least about.
    pub room: Duration,
}

impl SpoolSubject {
    /// From a configuration; none where events go to standard output.
    pub fn of(config: &Config) -> Option<Self> {
        let max_bytes = config.spool.max_bytes;
        let streams = config.streams.len();
        (!config.kafka.brokers.is_empty()).then(|| Self {
            directory: config.spool.directory.clone(),
            max_bytes,
            room: spool::expected_room(max_bytes, streams, config.window.length_ms),
        })
    }
}

/// Looks at it.
pub fn check(subject: &SpoolSubject) -> Check {
    let SpoolSubject {
        directory: path,
        max_bytes,
        room,
    } = subject;
    let lasts = format!(
        "at most {} MiB, {} minutes without a broker if every stream is active",
        max_bytes >> 20,
        room.as_secs() / 60
    );
    let place = path.display();
    let found = match directory::judge(path).map(|()| spool::inspect(path)) {
        Err(directory::DirectoryError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Check::ok(
                "spool",
                format!("{place}: made at the first start; {lasts}"),
            );
        }
        Err(error) => {
            let essential = Some(Essential::Configuration);
            return Check::no("spool", format!("{place} {error}"), TODO, essential);
        }
        Ok(Err(error)) => return Check::no("spool", format!("{place}: {error}"), TODO, None),
        Ok(Ok(found)) => found,
    };
    let mut text = format!(
        "{place}: {} bytes in {} segments; {lasts}",
        found.bytes, found.segments
    );
    if let Some(age) = found.oldest {
        text += &format!("; the oldest was last written {} s ago", age.as_secs());
    }
    if found.aside > 0 {
        text += &format!("; {} segments of another version set aside", found.aside);
    }
    let missing = max_bytes.saturating_sub(found.bytes);
    if found.free_bytes < missing {
        let free = found.free_bytes >> 20;
        let todo = "make room on that file system, or lower spool.max_bytes; until then the oldest events may be lost sooner";
        return Check::no("spool", format!("{text}; only {free} MiB free"), todo, None);
    }
    Check::ok("spool", text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::report::Level;
    use super::*;

    #[test]
    fn says_what_lies_there_and_what_is_wrong() {
        let place = tempfile::tempdir().expect("a directory");
        let mut subject = SpoolSubject {
            directory: place.path().join("spool"),
            max_bytes: 1 << 20,
            room: Duration::from_secs(600),
        };
        let absent = check(&subject);
        assert_eq!(absent.level, Level::Ok);
        assert!(absent.found.contains("10 minutes"), "{absent:?}");
        fs::create_dir(&subject.directory).expect("made");
        fs::write(subject.directory.join("0000000000000001.seg"), "12345").expect("written");
        let there = check(&subject);
        assert!(there.found.contains("5 bytes in 1 segments"), "{there:?}");
        subject.max_bytes = 1 << 60;
        assert!(check(&subject).found.contains("MiB free"));
        fs::set_permissions(&subject.directory, fs::Permissions::from_mode(0o777)).expect("set");
        let open = check(&subject);
        assert_eq!(
            (open.level, open.essential),
            (Level::No, Some(Essential::Configuration))
        );
    }
}
