//! Reads records of one segment, forwards.
//!
//! Input: a file, the index of a record. Output: the record. Limits: 64 KiB of buffer and one record; going back means to open the
//! file anew.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::SpoolId;
use super::format::{self, HEAD_BYTES, PREFIX_BYTES};
use crate::sink::Record;

const BUFFER_BYTES: usize = 64 << 10;

/// A segment, open at one of its records.
#[derive(Debug)]
pub struct Reader {
    segment: u64,
    next: u32,
    file: BufReader<File>,
    bytes: Vec<u8>,
}

impl Reader {
    /// Opens a segment at its first record.
    pub fn open(path: &Path, segment: u64) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
        file.seek(SeekFrom::Start(HEAD_BYTES as u64))?;
        Ok(Self {
            segment,
            next: 0,
            file,
            bytes: Vec::new(),
        })
    }

    /// The segment's number.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Whether a record lies before us.
    pub fn can(&self, id: SpoolId) -> bool {
        self.segment == id.segment && self.next <= id.index
    }

    /// Reads a record that [`Reader::can`] be read. `None`: its bytes do not check out.
    pub fn read(&mut self, index: u32) -> io::Result<Option<Record>> {
        while self.next < index {
            let length = self.prefix()?;
            self.file.seek_relative(length as i64)?;
            self.next += 1;
        }
        let length = self.prefix()?;
        self.bytes.resize(PREFIX_BYTES + length, 0);
        self.file.read_exact(&mut self.bytes[PREFIX_BYTES..])?;
        self.next += 1;
        Ok(format::check(&self.bytes).ok().map(|raw| raw.record()))
    }

    /// Reads a prefix; the length of the body that it announces.
    fn prefix(&mut self) -> io::Result<usize> {
        self.bytes.resize(PREFIX_BYTES, 0);
        self.file.read_exact(&mut self.bytes)?;
        let wrong = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "no record where one was written",
            )
        };
        format::body_bytes(&self.bytes).ok_or_else(wrong)
    }
}
