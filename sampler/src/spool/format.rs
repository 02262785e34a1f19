//! The bytes of a segment. Pure.
//!
//! Input: records. Output: their bytes, and back; what does not check out is told apart from what is cut off.
//! Limits: a record of at most [`MAX_BODY_BYTES`]. All numbers are little endian.
//!
//! ```text
//! segment   "FVSPOOL\n"  version u32 = 1  number u64  crc32c u32 of what stands before
//! record    length u32 of the body  crc32c u32 of length and body  body
//! body      kind u8 (0 node, 1 window)  0 u8  key length u16
//!           instance u64  sequence u64  end_ms u64 (end of the window, Unix time)  key  payload (protobuf)
//! ack       index u32 of a record in its segment  crc32c u32 of segment number and index
//! ```

use super::SpoolId;
use crate::sink::{Kind, Record, Stamp};

/// Version of segments and their acks; a file of any other is not read.
pub const VERSION: u32 = 1;
/// Length of a segment's head.
pub const HEAD_BYTES: usize = 24;
/// Largest body of a record.
pub const MAX_BODY_BYTES: usize = 4 << 20;
/// Length of an ack.
pub const ACK_BYTES: usize = 8;
/// Before the body: length and checksum.
pub const PREFIX_BYTES: usize = 8;

const MAGIC: &[u8; 8] = b"FVSPOOL\n";
const FIXED_BYTES: usize = 28;

/// What the head of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A segment of this number.
    Ours(u64),
    /// A segment of another version.
    Version(u32),
    /// Cut off, as a crash leaves it.
    Cut,
    /// Something else.
    Foreign,
}

/// Why there is no record at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing more.
    End,
    /// A record that is not whole, or zeros.
    Cut,
    /// A record of so many bytes, prefix included, that does not check out.
    Corrupt(usize),
}

/// Head of segment `number`.
pub fn head(number: u64) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&number.to_le_bytes());
    let sum = crc32c::crc32c(&bytes[..20]);
    bytes[20..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads a segment's head.
pub fn read_head(bytes: &[u8]) -> Head {
    if bytes.len() < HEAD_BYTES {
        return match MAGIC.starts_with(&bytes[..bytes.len().min(8)]) {
            true => Head::Cut,
            false => Head::Foreign,
        };
    }
    let version = u32_at(bytes, 8);
    if &bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..20]) != u32_at(bytes, 20) {
        return match bytes[..HEAD_BYTES].iter().all(|byte| *byte == 0) {
            true => Head::Cut,
            false => Head::Foreign,
        };
    }
    match version {
        VERSION => Head::Ours(u64_at(bytes, 12)),
        other => Head::Version(other),
    }
}

/// Bytes that a record takes in a segment; none if it is too large for one.
pub fn record_bytes(record: &Record) -> Option<usize> {
    let body = FIXED_BYTES + record.key.len() + record.payload.len();
    let fits = body <= MAX_BODY_BYTES && u16::try_from(record.key.len()).is_ok();
    fits.then_some(PREFIX_BYTES + body)
}

/// Appends a record for which [`record_bytes`] has an answer.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    let body = FIXED_BYTES + record.key.len() + record.payload.len();
    out.extend_from_slice(&(body as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[kind_byte(record.kind), 0]);
    out.extend_from_slice(&(record.key.len() as u16).to_le_bytes());
    let Stamp {
        instance,
        sequence,
        end_ms,
    } = record.stamp;
    for number in [instance, sequence, end_ms] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(record.key.as_bytes());
    out.extend_from_slice(&record.payload);
    let sum = checksum(&out[start..]);
    out[start + 4..start + PREFIX_BYTES].copy_from_slice(&sum.to_le_bytes());
}

/// Of length and body: a length that was hit by a bit does not pass for another record's.
fn checksum(record: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&record[..4]);
    crc32c::crc32c_append(sum, &record[PREFIX_BYTES..])
}

/// Length of the body that a prefix announces, if that can be.
pub fn body_bytes(prefix: &[u8]) -> Option<usize> {
    let length = u32_at(prefix, 0) as usize;
    (FIXED_BYTES..=MAX_BODY_BYTES)
        .contains(&length)
        .then_some(length)
}

/// The record at the beginning of `bytes`, checked, and its length with the prefix.
pub fn check(bytes: &[u8]) -> Result<Raw<'_>, Fault> {
    if bytes.is_empty() {
        return Err(Fault::End);
    }
    let whole = (bytes.len() >= PREFIX_BYTES)
        .then(|| body_bytes(bytes))
        .flatten()
        .map(|body| PREFIX_BYTES + body)
        .filter(|length| *length <= bytes.len())
        .ok_or(Fault::Cut)?;
    let record = &bytes[..whole];
    if checksum(record) != u32_at(record, 4) {
        return Err(Fault::Corrupt(whole));
    }
    Raw::new(record).ok_or(Fault::Corrupt(whole))
}

/// A record in the bytes of its segment.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    bytes: &'a [u8],
    kind: Kind,
    key: &'a str,
}

impl<'a> Raw<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let body = &bytes[PREFIX_BYTES..];
        let kind = match body[0] {
            0 => Kind::Node,
            1 => Kind::Window,
            _ => return None,
        };
        let key_bytes = usize::from(u16::from_le_bytes([body[2], body[3]]));
        let key = body.get(FIXED_BYTES..FIXED_BYTES + key_bytes)?;
        let key = std::str::from_utf8(key).ok()?;
        Some(Self { bytes, kind, key })
    }

    /// Its length in the segment.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Kind of the event.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Key of the event.
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// Whose event of which window it is.
    pub fn stamp(&self) -> Stamp {
        Stamp {
            instance: u64_at(self.bytes, PREFIX_BYTES + 4),
            sequence: u64_at(self.bytes, PREFIX_BYTES + 12),
            end_ms: u64_at(self.bytes, PREFIX_BYTES + 20),
        }
    }

    /// A copy that stands by itself.
    pub fn record(&self) -> Record {
        let payload = &self.bytes[PREFIX_BYTES + FIXED_BYTES + self.key.len()..];
        Record {
            kind: self.kind,
            key: self.key.to_owned(),
            stamp: self.stamp(),
            payload: payload.to_vec(),
        }
    }
}

/// The ack of a record.
pub fn ack(id: SpoolId) -> [u8; ACK_BYTES] {
    let mut bytes = [0; ACK_BYTES];
    bytes[..4].copy_from_slice(&id.index.to_le_bytes());
    bytes[4..].copy_from_slice(&ack_sum(id).to_le_bytes());
    bytes
}

/// Indices of the records that a file of acks of this segment confirms; what does not check out confirms nothing.
pub fn acked(segment: u64, bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(ACK_BYTES).filter_map(move |ack| {
        let id = SpoolId {
            segment,
            index: u32_at(ack, 0),
        };
        (u32_at(ack, 4) == ack_sum(id)).then_some(id.index)
    })
}

fn ack_sum(id: SpoolId) -> u32 {
    let sum = crc32c::crc32c(&id.segment.to_le_bytes());
    crc32c::crc32c_append(sum, &id.index.to_le_bytes())
}

fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Node => 0,
        Kind::Window => 1,
        // Pulses are not spooled; read back, this byte is no record.
        Kind::Pulse => u8::MAX,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at + 4)) << 32 | u64::from(u32_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(key: &str, sequence: u64, payload: Vec<u8>) -> Record {
        Record {
            kind: Kind::Window,
            key: key.to_owned(),
            stamp: Stamp {
                instance: 7 << 40,
                sequence,
                end_ms: 1_795_000_000_000,
            },
            payload,
        }
    }

    #[test]
    fn heads_tell_versions_cuts_and_strangers_apart() {
        let ours = head(0x0102_0304_0506);
        assert_eq!(read_head(&ours), Head::Ours(0x0102_0304_0506));
        assert_eq!(read_head(&ours[..20]), Head::Cut);
        assert_eq!(read_head(&[]), Head::Cut);
        assert_eq!(read_head(&[0; 64]), Head::Cut);
        assert_eq!(
            read_head(b"a text of somebody else, long enough"),
            Head::Foreign
        );
        let mut newer = ours;
        newer[8] = 9;
        let sum = crc32c::crc32c(&newer[..20]).to_le_bytes();
        newer[20..].copy_from_slice(&sum);
        assert_eq!(read_head(&newer), Head::Version(9));
    }

    #[test]
    fn acks_of_another_segment_or_of_zeros_confirm_nothing() {
        let id = |segment, index| SpoolId { segment, index };
        let file = [ack(id(4, 0)), ack(id(4, 9)), [0; 8], ack(id(5, 3))].concat();
        assert_eq!(acked(4, &file).collect::<Vec<_>>(), [0, 9]);
        assert_eq!(acked(4, &file[..15]).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn too_large_has_no_place() {
        assert!(record_bytes(&record("k", 0, vec![0; MAX_BODY_BYTES])).is_none());
        assert!(record_bytes(&record(&"k".repeat(70_000), 0, Vec::new())).is_none());
    }

    proptest! {
        #[test]
        fn records_come_back_and_no_cut_or_flipped_bit_passes(
            key in "[a-z]{0,9}",
            sequence: u64,
            payload in prop::collection::vec(any::<u8>(), 0..200),
            cut in 1usize..1000,
            bit in 0usize..10_000,
        ) {
            let record = record(&key, sequence, payload);
            let mut bytes = Vec::new();
            encode(&record, &mut bytes);
            prop_assert_eq!(Some(bytes.len()), record_bytes(&record));
            let raw = check(&bytes).expect("whole");
            prop_assert_eq!((raw.size(), raw.key(), raw.kind()), (bytes.len(), key.as_str(), Kind::Window));
            prop_assert_eq!(raw.record(), record);
            let shorter = bytes.len() - cut.min(bytes.len());
            let expected = if shorter == 0 { Fault::End } else { Fault::Cut };
            prop_assert_eq!(check(&bytes[..shorter]).err(), Some(expected));
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(check(&bytes).is_err());
        }
    }
}
