//! The spool's directory: whose it is, that nobody else uses it, what lies in it.
//!
//! Input: a path. Output: the directory, locked, or why it may not be used. Limits: names of segments are 16 hex digits and
//! `.seg`, of their acks `.ack`; a segment that is not ours to read is renamed to `.aside` and never deleted.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::lock::lock;

/// Group and others may not write.
const FORBIDDEN_MODE: u32 = 0o022;
const LOCK: &str = "lock";

/// Why a directory cannot be the spool.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Somebody else could write events into it, or read none of ours.
    #[error("belongs to user {owner}, and this is user {user}")]
    Owner {
        /// Its owner.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Others may write.
    #[error("has mode {0:04o}: others may write")]
    Mode(u32),
    /// It is something else.
    #[error("is not a directory")]
    NotADirectory,
    /// The system says no; or another daemon has it.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The directory, ours while this lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: Option<File>,
}

impl Directory {
    /// Makes it if it is not there, and locks it. On a read-only file system without a lock file it is used unlocked.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        if !path.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        judge(path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .or_else(|_| File::open(path.join(LOCK)));
        let lock = match file.and_then(lock) {
            Ok(file) => Some(file),
            Err(error) if is_of_the_disk(&error) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            path: path.to_path_buf(),
            _lock: lock,
        })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// File of a segment.
    pub fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:016x}.seg"))
    }

    /// File of its acks.
    pub fn acks(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:016x}.ack"))
    }

    /// A new file that only we can read.
    pub fn create(path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    }

    /// Appends to a file that only we can read.
    pub fn append(path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
    }

    /// Takes away a segment and its acks; what stays behind is reported.
    pub fn remove(&self, number: u64) -> io::Result<()> {
        // Acks last: without them the segment would come again, whole.
        fs::remove_file(self.segment(number))?;
        match fs::remove_file(self.acks(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Renames a segment that is not ours to read.
    pub fn set_aside(&self, number: u64) -> io::Result<PathBuf> {
        let aside = self.segment(number).with_extension("aside");
        fs::rename(self.segment(number), &aside)?;
        Ok(aside)
    }
}

/// Numbers of the segments in a directory, oldest first.
pub fn segments(path: &Path) -> io::Result<Vec<u64>> {
    files(path, ".seg")
}

/// Numbers of the files with an ending, lowest first.
pub fn files(path: &Path, ending: &str) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(ending))
            .filter(|digits| digits.len() == 16)
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Whether a directory that is there may be the spool.
pub fn judge(path: &Path) -> Result<(), DirectoryError> {
    let found = fs::metadata(path)?;
    if !found.is_dir() {
        return Err(DirectoryError::NotADirectory);
    }
    let user = geteuid().as_raw();
    if found.uid() != user {
        return Err(DirectoryError::Owner {
            owner: found.uid(),
            user,
        });
    }
    let mode = found.mode() & 0o7777;
    if mode & FORBIDDEN_MODE != 0 {
        return Err(DirectoryError::Mode(mode));
    }
    Ok(())
}

/// Whether an error is one of the disk's state, which can pass, and not of the configuration.
fn is_of_the_disk(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    fn refused(path: &Path, expected: &str) {
        let error = Directory::open(path).expect_err("refused").to_string();
        assert_eq!(error, expected);
    }

    #[test]
    fn is_made_private_and_used_by_one() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("a/spool");
        let first = Directory::open(&path).expect("ours");
        let mode = fs::metadata(&path).expect("there").mode();
        assert_eq!(mode & 0o777, 0o700);
        let second = Directory::open(&path).expect_err("taken").to_string();
        assert!(
            second.starts_with("is in use by another sampler"),
            "{second}"
        );
        drop(first);
        Directory::open(&path).expect("free again");
    }

    #[test]
    fn wrong_mode_owner_or_kind_is_refused_with_the_reason() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("spool");
        fs::create_dir(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).expect("set");
        refused(&path, "has mode 0770: others may write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).expect("set");
        Directory::open(&path).expect("ours");
        if geteuid().is_root() {
            chown(&path, Some(12345), None).expect("given away");
            refused(&path, "belongs to user 12345, and this is user 0");
        }
        let file = place.path().join("file");
        fs::write(&file, "").expect("written");
        refused(&file, "is not a directory");
    }

    #[test]
    fn segments_are_found_in_order_and_nothing_else_is() {
        let place = tempfile::tempdir().expect("a directory");
        for name in [
            "00000000000000ff.seg",
            "0000000000000002.seg",
            "0000000000000002.ack",
            "7.seg",
            "lock",
            "0000000000000003.aside",
        ] {
            fs::write(place.path().join(name), "").expect("written");
        }
        assert_eq!(segments(place.path()).expect("read"), [2, 255]);
    }
}
