//! The window stage's state at the end of a window: what a new life of the daemon needs to go on counting.
//!
//! Input: streams, epochs, totals. Output: protobuf bytes, kept by the spool as its reference; and back.
//! Counts are cumulative and sparse: pairs of (words left out, value), so that an idle stream costs a few bytes. They are written as
//! varints in one pass: it is done at every window edge. Cells of another layout are not read as ours (`abi_version`), nor those of
//! another kernel side (`attachment`). Sequences are not among it: each life counts its own from 0.
//! Limits: about 2 KiB for a slot with a full histogram.

use prost::Message;
use prost::encoding::{decode_varint, encode_varint};

use super::{
    counts::{self, Counts},
    heartbeat::FlowTotals,
    streams::{Epoch, Stream, Streams},
};

/// What the words of a stream that plays take, bytes.
const USUAL_BYTES: usize = 512;

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
    #[prost(message, repeated, tag = "7")]
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
    /// Words of the cell at the end of the window, as varints: how many zeros come first, and the word, in turn.
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

    /// All words of the cell; `None` if they are more than a cell has, or no pairs.
    pub fn words(&self, length: usize) -> Option<Vec<u64>> {
        let mut words = vec![0; length];
        let mut at = 0usize;
        let mut pairs = self.words.as_slice();
        while !pairs.is_empty() {
            let zeros = decode_varint(&mut pairs).ok()?;
            at = at.checked_add(usize::try_from(zeros).ok()?)?;
            *words.get_mut(at)? = decode_varint(&mut pairs).ok()?;
            at += 1;
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
    let mut pairs = Vec::with_capacity(USUAL_BYTES);
    let mut zeros = 0;
    for word in words {
        if *word == 0 {
            zeros += 1;
        } else {
            encode_varint(zeros, &mut pairs);
            encode_varint(*word, &mut pairs);
            zeros = 0;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_come_back(words in prop::collection::vec(prop_oneof![Just(0u64), any::<u64>()], 0..100)) {
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
        assert_eq!(of(&[3, 1]).words(4), Some(vec![0, 0, 0, 1]));
        assert_eq!(of(&[3, 1]).words(3), None);
        let (odd, torn, far) = (
            [3, 1, 0],
            [3, 0x80],
            [[0xff; 9].as_slice(), &[1, 1]].concat(),
        );
        for words in [odd.as_slice(), &torn, &far] {
            assert_eq!(of(words).words(4), None);
        }
    }
}
