//! One daemon at a time: an advisory lock that is held while its file is open, and ends with the process.
//!
//! Input: an open file. Output: the same, locked, or that another process has it. Limits: holds against processes that ask for it too.

use std::fs::{File, TryLockError};
use std::io;

/// Takes the lock of a file.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] if another process, or this one by another opening, has it.
pub fn lock(file: File) -> io::Result<File> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "is in use by another sampler",
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_owner_until_it_is_closed() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let open = || File::open(file.path()).expect("open");
        let first = lock(open()).expect("ours");
        let second = lock(open()).expect_err("taken");
        assert_eq!(second.kind(), io::ErrorKind::ResourceBusy);
        drop(first);
        lock(open()).expect("free again");
    }
}
