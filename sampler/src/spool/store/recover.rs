//! What earlier lives left: looked through once, at start.
//!
//! Input: the files of a directory. Output: the books about them, and what was [`Found`]. Limits: one segment in memory at a time; a
//! segment that cannot be read, or is not ours, keeps nobody from counting: it is set aside, and said.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use tracing::{info, warn};

use super::{Found, Store, can_pass};
use crate::spool::directory;
use crate::spool::format::{self, Fault, HEAD_BYTES, Head};
use crate::spool::reference::Reference;
use crate::spool::segments::{Segment, SpoolId};

impl Store {
    /// Looks through everything. `newest` is the newest reference.
    pub(super) fn look_through(&mut self, newest: Option<&Reference>) -> io::Result<Found> {
        let mut found = Found::default();
        for number in directory::segments(self.directory.path())? {
            let confirmed = newest
                .filter(|newest| newest.end.segment == number)
                .map_or(0, |newest| newest.confirmed);
            self.recover(number, confirmed, &mut found);
        }
        self.remove_orphans()?;
        if let Some(newest) = newest {
            self.segments.skip(newest.end.segment);
            if self.settings.resume {
                found.uncounted = self.cut_behind(newest.end);
                // Before the next reference: behind that one they would count again.
                if let Err(error) = self.flush() {
                    warn!(%error, "spool: events that are counted again cannot be taken out; they may come twice");
                }
            }
        }
        found.records = self.segments.unconfirmed();
        self.sweep();
        Ok(found)
    }

    /// Acks whose segment is gone could confirm records of another.
    fn remove_orphans(&self) -> io::Result<()> {
        for number in directory::files(self.directory.path(), ".ack")? {
            if self.segments.get(number).is_none() {
                fs::remove_file(self.directory.acks(number))?;
            }
        }
        Ok(())
    }

    /// Gives up records of an edge whose reference was not written: nobody saw them, and the new life counts that window again.
    fn cut_behind(&mut self, end: SpoolId) -> u64 {
        let behind: Vec<SpoolId> = self
            .segments
            .iter()
            .filter(|segment| segment.number >= end.segment)
            .flat_map(|segment| {
                (0..segment.records).map(|index| SpoolId {
                    segment: segment.number,
                    index,
                })
            })
            .filter(|id| *id >= end)
            .collect();
        behind
            .into_iter()
            .map(|id| u64::from(self.confirm(id)))
            .sum()
    }

    /// `confirmed`: so many first records of it, by a reference.
    fn recover(&mut self, number: u64, confirmed: u32, found: &mut Found) {
        // Even if it stays where it is, none of ours gets its number.
        self.segments.skip(number);
        let bytes = match fs::read(self.directory.segment(number)) {
            Ok(bytes) => bytes,
            Err(error) if can_pass(&error) => {
                found.aside += 1;
                warn!(segment = number, %error, "a spool segment cannot be read now: left for the next start");
                return;
            }
            Err(error) => {
                return self.set_aside(number, &format!("cannot be read: {error}"), found);
            }
        };
        match format::read_head(&bytes) {
            Head::Ours(inside) if inside == number => {
                self.read_records(number, &bytes, confirmed, found);
            }
            // Cut before the first record: nothing was ever in it.
            Head::Cut => {
                let length = bytes.len() as u64;
                found.torn_bytes += length;
                self.segments.push(Segment::new(number, length, true));
            }
            Head::Version(version) => {
                self.set_aside(number, &format!("has format version {version}"), found);
            }
            Head::Ours(_) | Head::Foreign => {
                self.set_aside(number, "is no segment of this spool", found);
            }
        }
    }

    fn set_aside(&mut self, number: u64, what: &str, found: &mut Found) {
        found.aside += 1;
        match self.directory.set_aside(number) {
            Ok(aside) => {
                warn!(aside = %aside.display(), "a spool segment {what}: set aside, not read")
            }
            Err(error) => warn!(segment = number, %error, "a spool segment {what}: not read"),
        }
    }

    fn read_records(&mut self, number: u64, bytes: &[u8], confirmed: u32, found: &mut Found) {
        let mut segment = Segment::new(number, HEAD_BYTES as u64, true);
        let mut unreadable = Vec::new();
        let mut at = HEAD_BYTES;
        loop {
            match format::check(&bytes[at..]) {
                Ok(raw) => {
                    segment.add(raw.size() as u64, raw.stamp().end_ms);
                    at += raw.size();
                }
                Err(Fault::End) => break,
                // One bad record among good ones: the next begins where this one says that it ends.
                Err(Fault::Corrupt(length)) if format::check(&bytes[at + length..]).is_ok() => {
                    unreadable.push(segment.records);
                    segment.add(length as u64, 0);
                    at += length;
                }
                Err(Fault::Cut | Fault::Corrupt(_)) => {
                    let torn = bytes.len() - at;
                    found.torn_bytes += torn as u64;
                    let path = self.directory.segment(number);
                    warn!(path = %path.display(), bytes = torn, "the end of a spool segment is torn: cut");
                    if let Err(error) = cut(&path, at as u64) {
                        info!(path = %path.display(), %error, "the torn end stays in the file, unread");
                    }
                    break;
                }
            }
        }
        let confirmed = 0..confirmed.min(segment.records);
        self.segments.push(segment);
        let acks = fs::read(self.directory.acks(number)).unwrap_or_default();
        let id = |index| SpoolId {
            segment: number,
            index,
        };
        for index in format::acked(number, &acks) {
            self.segments.confirm(id(index));
        }
        let noted: Vec<u32> = confirmed
            .filter(|index| self.segments.confirm(id(*index)))
            .collect();
        if !noted.is_empty() {
            self.noted = (number, noted);
        }
        for index in unreadable {
            found.unreadable += u64::from(self.segments.confirm(id(index)));
        }
    }
}

fn cut(path: &Path, at: u64) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_len(at)
}
