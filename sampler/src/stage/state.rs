//! The window stage's state at the end of a window: what a new life of the daemon needs to go on counting.
//!
//! Input: streams, epochs, totals. Output: protobuf bytes, kept by the spool as its reference; and back.
//! Counts are cumulative and sparse, so that an idle stream costs a few bytes, and written in one pass without a branch for a length:
//! it is done at every window edge. Cells of another layout are not read as ours (`abi_version`), nor those of
//! another kernel side (`attachment`). Sequences are not among it: each life counts its own from 0.
//!
//! ```text
//! word   control u8: low half bytes of the value (1 to 8), high half words that are 0 before it (15: see zeros)
//!        zeros u16, if there are 15 or more   value, little endian, without its leading zero bytes
//! ```
//! Limits: about 2 KiB for a slot with a full histogram; cells of fewer than 65,536 words.

use prost::Message;

use super::{
    counts::{self, Counts},
    heartbeat::FlowTotals,
    streams::{Epoch, Stream, Streams},
};

/// What the words of a stream that plays take, bytes.
const USUAL_BYTES: usize = 512;
/// Words that are looked at together.
const BLOCK: usize = 16;
/// In a control byte: so many words that are 0, or more.
const MANY: u8 = 15;
const _: () = assert!(counts::WORDS <= u16::MAX as usize);

/// State of the stage.
#[derive(Clone, PartialEq, Message)]
pub struct StageState {
    /// Version of the contract with the kernel side.
    #[prost(uint32, tag = "1")]
    pub abi_version: u32,
    /// Cumulative flows: selected, sampled, picked up, closed, refused.
    #[prost(uint64, repeated, tag = "5")]
    pub flows: Vec<u64>,
    /// Streams, by id.
    #[prost(message, repeated, tag = "6")]
    pub streams: Vec<StreamBooks>,
    /// Slots in use.
    #[prost(message, repeated, tag = "12")]
    pub slots: Vec<SlotBooks>,
    /// The running window.
    #[prost(message, optional, tag = "8")]
    pub clock: Option<ClockBooks>,
    /// Rates are divided by 2 to this power.
    #[prost(uint32, tag = "9")]
    pub halvings: u32,
    /// Id of the sampling key.
    #[prost(fixed32, tag = "10")]
    pub key_id: u32,
    /// The kernel side whose counts these are.
    #[prost(message, optional, tag = "11")]
    pub attachment: Option<Attachment>,
}

/// A kernel side, from its attach on. It can outlive the daemon.
#[derive(Clone, PartialEq, Message)]
pub struct Attachment {
    /// The kernel's id of its cells.
    #[prost(uint32, tag = "1")]
    pub cells_id: u32,
    /// When it was attached, Unix time.
    #[prost(uint64, tag = "2")]
    pub attached_ms: u64,
    /// Time before it in which nobody counted, ms: since the last window of the life before. 0: none, or not known.
    #[prost(uint64, tag = "3")]
    pub uncounted_ms: u64,
    /// Why; empty where no life was before.
    #[prost(string, tag = "4")]
    pub uncounted_reason: String,
}

/// The clock of windows. Times as in [`WindowClock`](super::clock::WindowClock): the monotonic ones hold for one boot.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ClockBooks {
    /// Length of windows.
    #[prost(uint32, tag = "1")]
    pub window_ms: u32,
    /// Length of the running one.
    #[prost(uint32, tag = "2")]
    pub running_ms: u32,
    /// Its begin, Unix time.
    #[prost(uint64, tag = "3")]
    pub start_wall_ms: u64,
    /// Its begin, monotonic.
    #[prost(uint64, tag = "4")]
    pub start_us: u64,
    /// Its end, monotonic.
    #[prost(uint64, tag = "5")]
    pub edge_us: u64,
    /// Wall clock less monotonic clock.
    #[prost(sint64, tag = "6")]
    pub offset_ms: i64,
}

/// A stream.
#[derive(Clone, PartialEq, Message)]
pub struct StreamBooks {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Number of its next rate.
    #[prost(uint32, tag = "6")]
    pub next_epoch: u32,
    /// RTT samples above this are slow.
    #[prost(uint32, tag = "7")]
    pub rtt_slow_us: u32,
}

/// A slot: one stream at one rate.
#[derive(Clone, PartialEq, Message)]
pub struct SlotBooks {
    /// The slot.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// Id of the stream.
    #[prost(uint32, tag = "2")]
    pub stream: u32,
    /// Number of the rate.
    #[prost(uint32, tag = "3")]
    pub rate_epoch: u32,
    /// Its threshold.
    #[prost(fixed64, tag = "4")]
    pub threshold: u64,
    /// Flows that ended unseen.
    #[prost(uint64, tag = "6")]
    pub ended_unseen: u64,
    /// Words of the cell at the end of the window, sparse.
    #[prost(bytes = "vec", tag = "7")]
    pub words: Vec<u8>,
}

impl StreamBooks {
    fn of(stream: &Stream) -> Self {
        Self {
            name: stream.wanted.name.clone(),
            next_epoch: stream.next_epoch(),
            rtt_slow_us: stream.wanted.rtt_slow_us,
        }
    }
}

impl SlotBooks {
    fn of(epoch: &Epoch) -> Self {
        Self {
            slot: epoch.slot,
            stream: epoch.stream as u32,
            rate_epoch: epoch.rate_epoch,
            threshold: epoch.threshold,
            ended_unseen: epoch.ended_unseen,
            words: sparse(epoch.counted.words()),
        }
    }

    /// All words of the cell; `None` if they are more than a cell has, or not words.
    pub fn words(&self, length: usize) -> Option<Vec<u64>> {
        let mut words = vec![0; length];
        let mut at = 0usize;
        let mut rest = self.words.as_slice();
        while let Some((control, after)) = rest.split_first() {
            rest = after;
            let mut zeros = usize::from(control >> 4);
            if zeros == usize::from(MANY) {
                let (count, after) = rest.split_first_chunk()?;
                (zeros, rest) = (u16::from_le_bytes(*count).into(), after);
            }
            let (value, after) = rest.split_at_checked(usize::from(control & 15))?;
            let mut word = [0; 8];
            word.get_mut(..value.len())?.copy_from_slice(value);
            at += zeros;
            *words.get_mut(at)? = u64::from_le_bytes(word);
            (at, rest) = (at + 1, after);
        }
        Some(words)
    }

    pub(super) fn counted(&self) -> Option<Counts> {
        self.words(counts::WORDS).map(Counts::from)
    }
}

impl StageState {
    pub(super) fn of(
        totals: &FlowTotals,
        streams: &Streams,
        clock: ClockBooks,
        key_id: u32,
    ) -> Self {
        Self {
            abi_version: ebpf_abi::ABI_VERSION,
            flows: vec![
                totals.flows_selected,
                totals.flows_sampled,
                totals.flows_picked_up,
                totals.flows_closed,
                totals.flows_refused,
            ],
            streams: streams.streams().iter().map(StreamBooks::of).collect(),
            slots: streams.epochs().iter().map(SlotBooks::of).collect(),
            clock: Some(clock),
            halvings: streams.halvings(),
            key_id,
            attachment: None,
        }
    }

    /// Totals as far as they are the kernel side's and not a life's.
    pub(super) fn totals(&self) -> Option<FlowTotals> {
        let [selected, sampled, picked_up, closed, refused] = self.flows[..] else {
            return None;
        };
        Some(FlowTotals {
            flows_selected: selected,
            flows_sampled: sampled,
            flows_picked_up: picked_up,
            flows_closed: closed,
            flows_refused: refused,
            refused_earlier: refused,
            ..FlowTotals::default()
        })
    }
}

fn sparse(words: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    let mut zeros = 0;
    for block in words.chunks(BLOCK) {
        // Most of a cell is zeros, in long runs.
        if block.iter().fold(0, |all, word| all | word) == 0 {
            zeros += block.len();
            continue;
        }
        for word in block {
            if *word == 0 {
                zeros += 1;
            } else {
                put(zeros, *word, &mut bytes);
                zeros = 0;
            }
        }
    }
    bytes
}

/// Appends a word that is not 0, after so many that are.
fn put(zeros: usize, word: u64, to: &mut Vec<u8>) {
    let unused = word.leading_zeros() / 8;
    let length = 8 - unused as u8;
    if zeros < usize::from(MANY) {
        to.push((zeros as u8) << 4 | length);
    } else {
        to.push(MANY << 4 | length);
        to.extend_from_slice(&(zeros as u16).to_le_bytes());
    }
    // All eight bytes are written, and the unused ones overwritten by what follows: a copy of fixed length is a single store.
    to.extend_from_slice(&word.to_le_bytes());
    to.truncate(to.len() - unused as usize);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_come_back(words in prop::collection::vec(prop_oneof![9 => Just(0u64), 1 => any::<u64>(), 1 => 1..300u64], 0..200)) {
            let books = SlotBooks { words: sparse(&words), ..SlotBooks::default() };
            let bytes = books.encode_to_vec();
            let read = SlotBooks::decode(bytes.as_slice()).expect("decodes");
            prop_assert_eq!(read.words(words.len()), Some(words));
        }
    }

    #[test]
    fn too_many_words_are_no_cell() {
        let of = |words: &[u8]| SlotBooks {
            words: words.to_vec(),
            ..SlotBooks::default()
        };
        assert_eq!(of(&[0x31, 1]).words(4), Some(vec![0, 0, 0, 1]));
        assert_eq!(of(&[0x31, 1]).words(3), None);
        let (odd, torn, long, far) = (
            [0x31, 1, 0x01],
            [0x32, 1],
            [[0x09].as_slice(), &[1; 9]].concat(),
            [0xf1, 0xff, 0xff, 1],
        );
        for words in [odd.as_slice(), &torn, &long, &far] {
            assert_eq!(of(words).words(4), None);
        }
    }
}
