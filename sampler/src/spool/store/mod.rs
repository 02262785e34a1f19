//! Segments on disk and the books about them, together.
//!
//! Input: encoded batches, confirmations. Output: ids of what was written, records to replay, what was lost and whose it was.
//! Blocks for as long as the disk does: it lives in the spool's own thread. Limits: [`StoreSettings::max_bytes`], acks included;
//! a batch is written whole or not at all, and never split over two segments.

mod recover;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use tracing::warn;

use crate::sink::{Kind, Record};
use crate::spool::directory::{Directory, DirectoryError};
use crate::spool::faults::Faults;
use crate::spool::format::{self, ACK_BYTES, Fault, HEAD_BYTES, Raw};
use crate::spool::reader::Reader;
use crate::spool::reference::Reference;
use crate::spool::segments::{Segment, Segments, SpoolId};

/// So many segments make a full spool.
const SEGMENTS: u64 = 16;
/// Smallest segment.
const MIN_SEGMENT_BYTES: u64 = 64 << 10;
/// Largest segment.
const MAX_SEGMENT_BYTES: u64 = 4 << 20;

/// Settings of a store.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Where the files lie.
    pub directory: PathBuf,
    /// Bound of all segments and acks together.
    pub max_bytes: u64,
    /// The new life goes on from the newest reference, and counts again what was counted after it.
    pub resume: bool,
    /// What a test makes go wrong.
    pub faults: Option<Arc<dyn Faults>>,
}

/// Records on their way to the disk: encoded, in order, of kinds that are spooled.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    records: Vec<(u32, u64)>,
}

impl Batch {
    /// An empty one with room for `records`.
    pub fn with_room_for(records: &[Record]) -> Self {
        let bytes = records.iter().filter_map(format::record_bytes);
        Self {
            bytes: Vec::with_capacity(bytes.sum()),
            records: Vec::with_capacity(records.len()),
        }
    }

    /// Adds a record; false if it is one that is not spooled.
    pub fn push(&mut self, record: &Record) -> bool {
        let Some(bytes) = format::record_bytes(record)
            .filter(|_| matches!(record.kind, Kind::Window | Kind::Node))
        else {
            return false;
        };
        format::encode(record, &mut self.bytes);
        self.records.push((bytes as u32, record.stamp.end_ms));
        true
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Records in it.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// Whose records were lost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose {
    /// Their stream; none: heartbeats, or not known.
    pub stream: Option<String>,
    /// They are an earlier life's.
    pub earlier: bool,
}

/// What was lost, by owner.
pub type Losses = BTreeMap<Whose, u64>;

/// What was found at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Records that nobody confirmed.
    pub records: u64,
    /// Records that do not check out, and stretches that could not be told apart.
    pub unreadable: u64,
    /// Bytes of records that were not whole.
    pub torn_bytes: u64,
    /// Segments set aside.
    pub aside: u64,
    /// Records of a window that the new life counts again; nobody saw them.
    pub uncounted: u64,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    directory: Directory,
    settings: StoreSettings,
    segments: Segments,
    active: Option<Active>,
    /// What was confirmed and is not written down, by segment.
    acks: BTreeMap<u64, Vec<u32>>,
    /// The newest reference's segment, and what of it was confirmed and is written down only there.
    noted: (u64, Vec<u32>),
    reader: Option<Reader>,
    /// Segments that were written to since they were last brought to the disk, and hold what no broker has confirmed.
    unsynced: BTreeMap<u64, Arc<File>>,
    /// A segment was made: its name is not on the disk yet.
    named: bool,
}

#[derive(Debug)]
struct Active {
    number: u64,
    file: Arc<File>,
}

impl Store {
    /// Opens a directory and looks through everything in it. `newest` is the newest reference.
    ///
    /// # Errors
    /// When the directory may not be used, or cannot be read.
    pub fn open(
        settings: StoreSettings,
        newest: Option<&Reference>,
    ) -> Result<(Self, Found), DirectoryError> {
        let mut store = Self {
            directory: Directory::open(&settings.directory)?,
            settings,
            segments: Segments::default(),
            active: None,
            acks: BTreeMap::new(),
            noted: (0, Vec::new()),
            reader: None,
            unsynced: BTreeMap::new(),
            named: false,
        };
        let found = store.look_through(newest)?;
        Ok((store, found))
    }

    /// Writes a batch; the ids go up from the one returned. What had to make room is added to `losses`.
    ///
    /// # Errors
    /// The disk's; then nothing of the batch is in the spool.
    pub fn append(&mut self, batch: &Batch, losses: &mut Losses) -> io::Result<SpoolId> {
        let length = batch.bytes();
        self.make_room(length, losses);
        let number = self.active_for(length)?;
        let (Some(active), Some(segment)) = (&self.active, self.segments.get_mut(number)) else {
            return Err(io::Error::other("no segment to write to"));
        };
        let first = SpoolId {
            segment: number,
            index: segment.records,
        };
        if let Some(faults) = &self.settings.faults {
            faults.before_write()?;
        }
        if let Err(error) = (&*active.file).write_all(&batch.bytes) {
            // What was written of it would be in the way of the next batch.
            let good = segment.bytes;
            if active.file.set_len(good).is_err() {
                self.seal();
            }
            return Err(error);
        }
        for (bytes, end_ms) in &batch.records {
            segment.add((*bytes).into(), *end_ms);
        }
        let file = Arc::clone(&active.file);
        self.unsynced.insert(number, file);
        Ok(first)
    }

    /// Drops the oldest segments until `length` bytes more fit.
    fn make_room(&mut self, length: u64, losses: &mut Losses) {
        while self.bytes() + length > self.settings.max_bytes {
            match self.segments.oldest_sealed() {
                Some(number) => self.drop_segment(number, losses),
                None if self.active.is_some() => self.seal(),
                None => return,
            }
        }
    }

    fn drop_segment(&mut self, number: u64, losses: &mut Losses) {
        let Some(segment) = self.segments.remove(number) else {
            return;
        };
        if segment.pending() > 0 {
            let mut missing = segment.pending();
            let path = self.directory.segment(number);
            let mut count = |index, raw: &Raw<'_>| {
                if segment.is_pending(index) {
                    missing -= 1;
                    let stream = (raw.kind() != Kind::Node).then(|| raw.key().to_owned());
                    let whose = Whose {
                        stream,
                        earlier: segment.earlier,
                    };
                    *losses.entry(whose).or_default() += 1;
                }
            };
            if let Err(error) = each_record(&path, segment.bytes, &mut count) {
                warn!(%error, path = %path.display(), "a segment that goes cannot be read: whose events they were is not known");
            }
            if missing > 0 {
                let whose = Whose {
                    stream: None,
                    earlier: segment.earlier,
                };
                *losses.entry(whose).or_default() += missing;
            }
        }
        self.discard(number);
    }

    fn discard(&mut self, number: u64) {
        self.acks.remove(&number);
        self.unsynced.remove(&number);
        if self
            .reader
            .as_ref()
            .is_some_and(|reader| reader.segment() == number)
        {
            self.reader = None;
        }
        if let Err(error) = self.directory.remove(number) {
            warn!(segment = number, %error, "a spool segment cannot be removed; its events may be sent again");
        }
    }

    /// The segment to append to, a new one if the old is full or gone.
    fn active_for(&mut self, length: u64) -> io::Result<u64> {
        let limit =
            (self.settings.max_bytes / SEGMENTS).clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES);
        if let Some(active) = &self.active {
            let segment = self.segments.get(active.number);
            let fits = segment.is_some_and(|s| s.records == 0 || s.bytes + length <= limit);
            if fits {
                return Ok(active.number);
            }
            self.seal();
        }
        let number = self.segments.next_number();
        let path = self.directory.segment(number);
        let mut file = Directory::create(&path)?;
        if let Err(error) = file.write_all(&format::head(number)) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.segments
            .push(Segment::new(number, HEAD_BYTES as u64, false));
        self.active = Some(Active {
            number,
            file: Arc::new(file),
        });
        self.named = true;
        Ok(number)
    }

    /// Ends the segment that is written to.
    pub fn seal(&mut self) {
        if let Some(active) = self.active.take()
            && let Some(segment) = self.segments.get_mut(active.number)
        {
            segment.sealed = true;
        }
        self.sweep();
    }

    /// Whether something is to be brought to the disk.
    pub fn is_unsynced(&self) -> bool {
        !self.unsynced.is_empty()
    }

    /// What is to be brought to the disk: segments with unconfirmed records that were written to since the last call, sealed ones too,
    /// and after a new one the directory.
    pub fn take_unsynced(&mut self) -> Vec<Arc<File>> {
        let mut files: Vec<_> = std::mem::take(&mut self.unsynced).into_values().collect();
        if std::mem::take(&mut self.named) {
            // One that cannot be opened to be synced is worth no trouble: the files are.
            files.extend(File::open(self.directory.path()).ok().map(Arc::new));
        }
        files
    }

    /// The sink has so many records from `first` on in memory.
    pub fn hand_out(&mut self, first: SpoolId, count: u32) {
        self.segments.hand_out(first, count);
    }

    /// Confirms a record. True: it was not before.
    pub fn confirm(&mut self, id: SpoolId) -> bool {
        let new = self.segments.confirm(id);
        if new {
            self.acks.entry(id.segment).or_default().push(id.index);
            // What brokers have needs no disk to survive a power loss.
            if self
                .segments
                .get(id.segment)
                .is_some_and(|s| s.unconfirmed() == 0)
            {
                self.unsynced.remove(&id.segment);
            }
        }
        new
    }

    /// The sink let go of a record, to be replayed later. False: it is gone.
    pub fn give_back(&mut self, id: SpoolId) -> bool {
        self.segments.give_back(id)
    }

    /// Writes down what was confirmed, and takes away what needs no place any more.
    ///
    /// # Errors
    /// The disk's: a new life would send those events again.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sweep();
        let mut result = Ok(());
        for (segment, indices) in std::mem::take(&mut self.acks) {
            let ack = |index: &u32| {
                format::ack(SpoolId {
                    segment,
                    index: *index,
                })
            };
            let acks: Vec<u8> = indices.iter().flat_map(ack).collect();
            let written = Directory::append(&self.directory.acks(segment))
                .and_then(|mut file| file.write_all(&acks));
            result = result.and(written);
        }
        result
    }

    /// A reference was written: what it says is confirmed needs no acks. Takes away what needs no place any more.
    pub fn noted(&mut self, reference: &Reference) {
        self.sweep();
        let segment = reference.end.segment;
        let (before, held) = &mut self.noted;
        if *before != segment {
            // This reference says nothing of that one's.
            if self.segments.get(*before).is_some() && !held.is_empty() {
                self.acks.entry(*before).or_default().append(held);
            }
            (*before, *held) = (segment, Vec::new());
        }
        if let Some(indices) = self.acks.get_mut(&segment) {
            held.extend(indices.extract_if(.., |index| *index < reference.confirmed));
            if indices.is_empty() {
                self.acks.remove(&segment);
            }
        }
    }

    /// Whether everything that was confirmed is written down.
    pub fn is_flushed(&self) -> bool {
        self.acks.is_empty()
    }

    fn sweep(&mut self) {
        for number in self.segments.finished() {
            self.segments.remove(number);
            self.discard(number);
        }
    }

    /// Hands out up to `count` of the oldest records that are on disk only. Those that cannot be read are added to `losses`.
    ///
    /// # Errors
    /// The disk's; the record at which it happened is tried again at the next call.
    pub fn next(
        &mut self,
        count: usize,
        losses: &mut Losses,
    ) -> io::Result<Vec<(SpoolId, Record, bool)>> {
        let mut records = Vec::new();
        while records.len() < count
            && let Some(id) = self.segments.take_next()
        {
            let Some(segment) = self.segments.get(id.segment) else {
                continue;
            };
            let earlier = segment.earlier;
            match self.read(id) {
                Ok(Some(record)) => records.push((id, record, earlier)),
                Err(error) if can_pass(&error) => {
                    self.give_back(id);
                    self.reader = None;
                    // What was read before goes its way; the error comes again if it stays.
                    return if records.is_empty() {
                        Err(error)
                    } else {
                        Ok(records)
                    };
                }
                // A bad place on the disk must not stand in the way of what comes after it.
                unreadable => {
                    if let Err(error) = unreadable {
                        warn!(%error, segment = id.segment, index = id.index, "a spooled event cannot be read: given up and counted");
                        self.reader = None;
                    }
                    self.confirm(id);
                    let whose = Whose {
                        stream: None,
                        earlier,
                    };
                    *losses.entry(whose).or_default() += 1;
                }
            }
        }
        Ok(records)
    }

    fn read(&mut self, id: SpoolId) -> io::Result<Option<Record>> {
        let fits = self.reader.as_ref().is_some_and(|reader| reader.can(id));
        if !fits {
            let path = self.directory.segment(id.segment);
            self.reader = Some(Reader::open(&path, id.segment)?);
        }
        match &mut self.reader {
            Some(reader) => reader.read(id.index),
            None => Ok(None),
        }
    }

    /// The books.
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Bytes in use, acks included.
    pub fn bytes(&self) -> u64 {
        self.segments.bytes(ACK_BYTES as u64)
    }
}

/// Whether a failed read is one of this machine's state, not of the record.
fn can_pass(error: &io::Error) -> bool {
    const STATES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EACCES];
    error
        .raw_os_error()
        .is_some_and(|code| STATES.contains(&code))
}

/// Calls `see` for every readable record of a segment.
fn each_record(
    path: &PathBuf,
    valid_bytes: u64,
    see: &mut impl FnMut(u32, &Raw<'_>),
) -> io::Result<()> {
    let mut bytes = fs::read(path)?;
    bytes.truncate(usize::try_from(valid_bytes).unwrap_or(usize::MAX));
    let (mut at, mut index) = (HEAD_BYTES.min(bytes.len()), 0);
    loop {
        at += match format::check(&bytes[at..]) {
            Ok(raw) => {
                see(index, &raw);
                raw.size()
            }
            Err(Fault::Corrupt(length)) => length,
            Err(Fault::End | Fault::Cut) => return Ok(()),
        };
        index += 1;
    }
}

#[cfg(test)]
mod tests;
