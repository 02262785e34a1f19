//! The lives of the daemon: a random id of this one, the id of the one before, and that there is only one at a time.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
};

const FILE: &str = "instance";
/// Not the spool's, which may lie in the same directory.
const LOCK: &str = "instance.lock";

/// Makes the state directory this process' own, for as long as the file is open.
pub(super) fn lock(state: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(state.join(LOCK))?;
    crate::lock::lock(file)
}

/// Writes a file anew: whoever reads it finds the old content or the new one, never half of one.
pub(super) fn replace(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    let new = path.with_added_extension("new");
    fs::write(&new, content)?;
    fs::rename(new, path)
}

/// Ids of this life and of the one before; 0: none known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) instance: u64,
    pub(super) previous: u64,
}

impl Life {
    /// A life that leaves no trace.
    pub(super) fn unrecorded() -> Self {
        Self {
            instance: rand::random::<u64>().max(1),
            previous: 0,
        }
    }

    /// Begins a life, and notes it in the state directory.
    pub(super) fn begin(state: &Path) -> io::Result<Self> {
        let path = state.join(FILE);
        let previous = match fs::read_to_string(&path) {
            Ok(text) => u64::from_str_radix(text.trim(), 16).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let life = Self {
            previous,
            ..Self::unrecorded()
        };
        replace(&path, format!("{:016x}\n", life.instance))?;
        Ok(life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_one_daemon() {
        let state = tempfile::tempdir().expect("a directory");
        let first = lock(state.path()).expect("ours");
        let second = lock(state.path()).expect_err("taken");
        assert_eq!(second.kind(), io::ErrorKind::ResourceBusy);
        drop(first);
        lock(state.path()).expect("free again");
    }

    #[test]
    fn a_life_knows_the_one_before() {
        let state = tempfile::tempdir().expect("a directory");
        let first = Life::begin(state.path()).expect("first");
        assert_eq!(first.previous, 0);
        let second = Life::begin(state.path()).expect("second");
        assert_eq!(second.previous, first.instance);
        assert_ne!(second.instance, first.instance);
        fs::write(state.path().join(FILE), "junk").expect("junk");
        assert_eq!(Life::begin(state.path()).expect("third").previous, 0);
    }
}
