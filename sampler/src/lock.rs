//! One daemon at a time: an advisory lock that is held while its file is open, and ends with the process.
//!
//! Input: an open file or directory. Output: the same, locked, or that another process has it, and which. Limits: holds against processes
//! that ask for it too.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::sys::stat::{major, minor};

/// Takes the lock of a file.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] if another process, or this one by another opening, has it.
pub fn lock(file: File) -> io::Result<File> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let holder = holder(&file).map_or(String::new(), |pid| format!(" (process {pid})"));
            let text = format!("is in use by another sampler{holder}");
            Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The process that has it, if it can be seen from here.
fn holder(file: &File) -> Option<u32> {
    let found = file.metadata().ok()?;
    find_holder(
        &fs::read_to_string("/proc/locks").ok()?,
        (major(found.dev()), minor(found.dev()), found.ino()),
    )
}

/// From lines like `1: FLOCK ADVISORY WRITE 1234 00:1b:42 0 EOF`: device in hexadecimal, inode in decimal digits.
fn find_holder(locks: &str, (major, minor, inode): (u64, u64, u64)) -> Option<u32> {
    let place = format!("{major:02x}:{minor:02x}:{inode}");
    let pid = locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(4);
        let pid = fields.next()?;
        (fields.next()? == place).then_some(pid)
    });
    pid?.parse().ok().filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_or_directory_has_one_owner_until_it_is_closed() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let directory = tempfile::tempdir().expect("a directory");
        for path in [file.path(), directory.path()] {
            let open = || File::open(path).expect("open");
            let first = lock(open()).expect("ours");
            let second = lock(open()).expect_err("taken");
            assert_eq!(second.kind(), io::ErrorKind::ResourceBusy);
            let us = format!(
                "is in use by another sampler (process {})",
                std::process::id()
            );
            assert_eq!(second.to_string(), us);
            drop(first);
            lock(open()).expect("free again");
        }
    }

    #[test]
    fn the_holder_is_found_in_the_kernels_list() {
        let locks = "1: POSIX  ADVISORY  READ 7 fe:00:99 0 EOF\n2: FLOCK  ADVISORY  WRITE 1234 00:1b:42 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 00:1b:42 0 EOF\n3: FLOCK  ADVISORY  WRITE 0 00:1b:43 0 EOF\njunk\n";
        assert_eq!(find_holder(locks, (0, 0x1b, 42)), Some(1234));
        assert_eq!(
            find_holder(locks, (0, 0x1b, 43)),
            None,
            "of another pid namespace"
        );
        assert_eq!(find_holder(locks, (0, 0x1b, 44)), None);
    }
}
