//! The window stage's state at the end of a window: what a new life of the daemon needs to go on counting.
//!
//! Input: streams, epochs, totals. Output: protobuf bytes, kept by the spool as its reference; and back.
//! Counts are cumulative and sparse, so that an idle stream costs a few bytes. Cells of another layout are not read as ours
//! (`abi_version`), nor those of another kernel side (`attachment`). Sequences are not among it: each life counts its own from 0.
//! Limits: about 2 KiB for a slot with a full histogram; cells of as many words as `sparse` takes.

use prost::Message;

use super::{
    counts::{self, Counts},
    heartbeat::FlowTotals,
    sparse,
    streams::{Epoch, Stream, Streams},
};

/// What the words of a stream that plays take, bytes.
const USUAL_BYTES: usize = 512;
const _: () = assert!(counts::WORDS < sparse::MOST);

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
    #[prost(message, repeated, tag = "13")]
    pub slots: Vec<SlotBooks>,
    /// Words of their cells at the end of the window, sparse, one slot after the other.
    #[prost(bytes = "vec", tag = "14")]
    pub words: Vec<u8>,
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
    /// So many bytes of the words are its cell's.
    #[prost(uint32, tag = "7")]
    pub words_bytes: u32,
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
    fn of(epoch: &Epoch, words: &mut Vec<u8>) -> Self {
        Self {
            slot: epoch.slot,
            stream: epoch.stream as u32,
            rate_epoch: epoch.rate_epoch,
            threshold: epoch.threshold,
            ended_unseen: epoch.ended_unseen,
            words_bytes: epoch.put_words(words) as u32,
        }
    }
}

impl StageState {
    pub(super) fn of(
        totals: &FlowTotals,
        streams: &Streams,
        clock: ClockBooks,
        key_id: u32,
    ) -> Self {
        let epochs = streams.epochs();
        let mut words = Vec::with_capacity(epochs.len() * USUAL_BYTES);
        let slots = epochs.iter().map(|epoch| SlotBooks::of(epoch, &mut words));
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
            slots: slots.collect(),
            words,
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

    /// Slots with what their cells had counted; `None` if the words are not those of as many cells.
    pub(super) fn slots(&self) -> Option<Vec<(&SlotBooks, Counts)>> {
        let mut rest = self.words.as_slice();
        let slots = self.slots.iter().map(|books| {
            let (words, after) = rest.split_at_checked(books.words_bytes as usize)?;
            rest = after;
            let words = sparse::words(words, counts::WORDS)?;
            Some((books, Counts::from(words)))
        });
        slots.collect()
    }
}
