//! The last window's cumulatives: what a new life of the daemon goes on from.
//!
//! Input: opaque bytes (the window stage's) for every window edge. Output: the newest that is whole.
//! They lie in two files that are overwritten in turn, so that one is always whole. They are written **after** the edge's records and
//! **before** any of these is produced: a record behind the newest reference's place was never seen by a broker.
//! Never synced: what the kernel counted does not outlive a power loss either, and a reference of another boot is void.
//!
//! ```text
//! reference   "FVREFER\n"  version u32 = 2  length u32 of the body  crc32c u32 of length and body  0 u32  body
//! body        boot id [16]  count u64 of references so far  instance u64  counted_ms u64  at_risk u64
//!             segment u64 and index u64 of the place after the last record
//!             confirmed u64, so many first records of that segment  bytes of the window stage
//! ```
//! `confirmed` saves most acks their own writing: once a window, with what is written anyway.
//! Limits: a body of 64 MiB. `at_risk`: events of that life that were neither confirmed nor on disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::SpoolId;

const MAGIC: &[u8; 8] = b"FVREFER\n";
const VERSION: u32 = 2;
const HEAD_BYTES: usize = 24;
const FIXED_BYTES: usize = 72;
/// Largest body.
const MAX_BYTES: usize = 64 << 20;
const NAMES: [&str; 2] = ["reference.a", "reference.b"];

/// State at the end of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// Id of the kernel's boot.
    pub boot_id: [u8; 16],
    /// The daemon's life.
    pub instance: u64,
    /// Until when all is counted, Unix time: when the window was closed, not its nominal end, which a stop does not wait for.
    pub counted_ms: u64,
    /// Events that were in memory only.
    pub at_risk: u64,
    /// Place after the last record that was in the spool then.
    pub end: SpoolId,
    /// So many first records of that place's segment need the spool no more.
    pub confirmed: u32,
    /// The window stage's own.
    pub state: Vec<u8>,
}

impl Reference {
    /// What stands before the stage's state.
    fn head(&self, count: u64) -> Vec<u8> {
        let length = FIXED_BYTES + self.state.len();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + FIXED_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(length as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&self.boot_id);
        let SpoolId { segment, index } = self.end;
        for number in [
            count,
            self.instance,
            self.counted_ms,
            self.at_risk,
            segment,
            index.into(),
            self.confirmed.into(),
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let sum = crc32c::crc32c_append(checksum(&bytes), &self.state);
        bytes[16..20].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// It, and its count.
    fn decode(bytes: &[u8]) -> Option<(u64, Self)> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        if bytes.get(..8)? != MAGIC || word(8)? != VERSION {
            return None;
        }
        let whole = &bytes.get(..HEAD_BYTES + word(12)? as usize)?;
        if whole.len() < HEAD_BYTES + FIXED_BYTES || checksum(whole) != word(16)? {
            return None;
        }
        let reference = Self {
            boot_id: bytes.get(HEAD_BYTES..HEAD_BYTES + 16)?.try_into().ok()?,
            instance: number(HEAD_BYTES + 24)?,
            counted_ms: number(HEAD_BYTES + 32)?,
            at_risk: number(HEAD_BYTES + 40)?,
            end: SpoolId {
                segment: number(HEAD_BYTES + 48)?,
                index: u32::try_from(number(HEAD_BYTES + 56)?).ok()?,
            },
            confirmed: u32::try_from(number(HEAD_BYTES + 64)?).ok()?,
            state: whole.get(HEAD_BYTES + FIXED_BYTES..)?.to_vec(),
        };
        Some((number(HEAD_BYTES + 16)?, reference))
    }
}

fn checksum(whole: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&whole[12..16]);
    crc32c::crc32c_append(sum, &whole[HEAD_BYTES..])
}

/// Id of this boot; zeros where the system does not say.
pub fn boot_id() -> [u8; 16] {
    static ID: OnceLock<[u8; 16]> = OnceLock::new();
    *ID.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        u128::from_str_radix(&digits, 16)
            .unwrap_or_default()
            .to_be_bytes()
    })
}

/// The two files.
#[derive(Debug)]
pub struct ReferenceFiles {
    paths: [PathBuf; 2],
    open: [Option<File>; 2],
    next: usize,
    count: u64,
    /// `at_risk` of the newest that this life wrote.
    at_risk: Option<u64>,
}

impl ReferenceFiles {
    /// Opens them and reads the newest reference.
    pub fn open(directory: &Path) -> (Self, Option<Reference>) {
        let paths = NAMES.map(|name| directory.join(name));
        let read = |path: &PathBuf| {
            let bytes = fs::read(path).ok()?;
            Reference::decode(&bytes)
        };
        let [a, b] = [read(&paths[0]), read(&paths[1])];
        let count = |one: &Option<(u64, Reference)>| one.as_ref().map_or(0, |(count, _)| *count);
        // By count, not by time: the wall clock may have been set back. The newest stays until the next one is whole.
        let (newest, next) = match count(&a) > count(&b) {
            true => (a, 1),
            false => (b, 0),
        };
        let files = Self {
            paths,
            open: [None, None],
            next,
            count: count(&newest),
            at_risk: None,
        };
        (files, newest.map(|(_, reference)| reference))
    }

    /// Writes the next one over the older of the two.
    ///
    /// # Errors
    /// The disk's; the newest that was written before stays.
    pub fn write(&mut self, reference: &Reference) -> io::Result<()> {
        if reference.state.len() > MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let file = &mut self.open[self.next];
        if file.is_none() {
            let opened = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&self.paths[self.next])?;
            *file = Some(opened);
        }
        if let Some(file) = file {
            let head = reference.head(self.count + 1);
            file.write_all_at(&head, 0)?;
            file.write_all_at(&reference.state, head.len() as u64)?;
        }
        self.count += 1;
        self.next ^= 1;
        self.at_risk = Some(reference.at_risk);
        Ok(())
    }

    /// Notes in the newest reference how many events are at risk at a stop in good order: what was in memory at the last window has
    /// mostly arrived since. Nothing is done where this life has written none.
    ///
    /// # Errors
    /// The disk's.
    pub fn settle(&mut self, at_risk: u64) -> io::Result<()> {
        if self.at_risk.is_none_or(|noted| noted == at_risk) {
            return Ok(());
        }
        let bytes = fs::read(&self.paths[self.next ^ 1])?;
        match Reference::decode(&bytes) {
            Some((_, newest)) => self.write(&Reference { at_risk, ..newest }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(counted_ms: u64, state: &[u8]) -> Reference {
        Reference {
            boot_id: boot_id(),
            instance: 77,
            counted_ms,
            at_risk: 3,
            end: SpoolId {
                segment: 5,
                index: 9,
            },
            confirmed: 4,
            state: state.to_vec(),
        }
    }

    #[test]
    fn the_newest_whole_one_is_read() {
        let place = tempfile::tempdir().expect("a directory");
        let (mut files, none) = ReferenceFiles::open(place.path());
        assert_eq!(none, None);
        for (counted_ms, state) in [(1000, &b"a long state"[..]), (9000, b"two"), (3000, b"3")] {
            files.write(&reference(counted_ms, state)).expect("written");
            let (_, newest) = ReferenceFiles::open(place.path());
            assert_eq!(newest, Some(reference(counted_ms, state)));
        }
        // Killed while it wrote the fourth over the second: the third holds. The next write goes over the torn one.
        let torn = place.path().join(NAMES[1]);
        let mut bytes = fs::read(&torn).expect("read");
        let last = FIXED_BYTES + HEAD_BYTES;
        bytes[last] ^= 1;
        fs::write(&torn, bytes).expect("written");
        let (mut files, newest) = ReferenceFiles::open(place.path());
        assert_eq!(newest, Some(reference(3000, b"3")));
        files.write(&reference(4000, b"four")).expect("written");
        let whole = NAMES.map(|name| {
            let bytes = fs::read(place.path().join(name)).expect("read");
            Reference::decode(&bytes).map(|(_, reference)| reference.counted_ms)
        });
        assert_eq!(whole, [Some(3000), Some(4000)]);
    }

    #[test]
    fn a_stop_in_good_order_leaves_only_what_is_at_risk_then() {
        let place = tempfile::tempdir().expect("a directory");
        let newest = || ReferenceFiles::open(place.path()).1;
        let (mut files, _) = ReferenceFiles::open(place.path());
        files.settle(0).expect("nothing to write");
        assert_eq!(newest(), None);
        files.write(&reference(1000, b"state")).expect("written");
        files.settle(1).expect("written");
        let expected = Reference {
            at_risk: 1,
            ..reference(1000, b"state")
        };
        assert_eq!(newest(), Some(expected.clone()));
        // Another life's word is not touched.
        let (mut next, _) = ReferenceFiles::open(place.path());
        next.settle(0).expect("nothing to write");
        assert_eq!(newest(), Some(expected));
    }

    #[test]
    fn no_prefix_and_no_other_version_passes() {
        let one = reference(1, b"state");
        let mut bytes = [one.head(1), one.state].concat();
        assert!((0..bytes.len()).all(|end| Reference::decode(&bytes[..end]).is_none()));
        bytes[8] = 1;
        assert_eq!(Reference::decode(&bytes), None);
    }
}
