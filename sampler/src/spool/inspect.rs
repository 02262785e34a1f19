//! A look at a spool from outside, for `doctor`.
//!
//! Input: a directory. Output: what lies there. Limits: reads no record and changes nothing; ages are those of the files.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::statvfs::statvfs;

/// What lies in a spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Bytes of segments and acks.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Time since the oldest segment was last written to.
    pub oldest: Option<Duration>,
    /// Segments of other versions, set aside.
    pub aside: u64,
    /// Free bytes of the file system.
    pub free_bytes: u64,
}

/// Looks.
///
/// # Errors
/// When the directory cannot be read.
pub fn inspect(path: &Path) -> io::Result<Inspection> {
    let mut found = Inspection::default();
    let now = SystemTime::now();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        let Ok(data) = fs::metadata(&file) else {
            continue; // gone meanwhile
        };
        match extension {
            Some("aside") => found.aside += 1,
            Some("ack") => found.bytes += data.len(),
            Some("seg") => {
                found.bytes += data.len();
                found.segments += 1;
                let age = data
                    .modified()
                    .ok()
                    .and_then(|time| now.duration_since(time).ok());
                found.oldest = found.oldest.max(age);
            }
            _ => {}
        }
    }
    let disk = statvfs(path)?;
    found.free_bytes = disk.blocks_available().saturating_mul(disk.fragment_size());
    Ok(found)
}
