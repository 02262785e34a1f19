//! One process a directory.
//!
//! Input: a directory. Output: a lock that the system lifts when its holder ends, however it ends. The file holds the holder's
//! number, for the words of those who come second.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use crate::store::StoreError;

/// The lock; lifted when dropped.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "it is held, not read")] File);

impl Lock {
    /// Makes the directory if it is not there, and takes its lock.
    pub(super) fn take(directory: &Path) -> Result<Self, StoreError> {
        let failed = |what: &str, error: std::io::Error| {
            StoreError::Unavailable(format!("{what} {}: {error}", directory.display()))
        };
        fs::create_dir_all(directory).map_err(|error| failed("cannot make", error))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join("lock"))
            .map_err(|error| failed("cannot write in", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only words.
                let _ = file.read_to_string(&mut holder);
                let directory = directory.display();
                let holder = holder.trim();
                return Err(StoreError::Held(format!(
                    "process {holder} has the store {directory}"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed("cannot lock", error)),
        }
        let number = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.write_all(number.as_bytes()))
            .map_err(|error| failed("cannot write in", error))?;
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/store");
        let first = Lock::take(&path).expect("free");
        let Err(StoreError::Held(words)) = Lock::take(&path) else {
            panic!("it is taken");
        };
        let number = std::process::id().to_string();
        assert!(
            words.contains(&number) && words.contains("deep/store"),
            "{words}"
        );
        drop(first);
        Lock::take(&path).expect("free again");
        assert!(Lock::take(Path::new("/proc/none")).is_err());
    }
}
