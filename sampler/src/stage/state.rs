//! The window stage's state at the end of a window: what a new life of the daemon needs to go on counting.
//!
//! Input: streams, epochs, totals. Output: protobuf bytes, kept by the spool as its reference; and back.
//! Counts are cumulative and sparse: pairs of (words left out, value), so that an idle stream costs a few bytes. A layout of other cells
//! is not read as ours: `abi_version` stands in front.
//! Limits: about 2 KiB for a slot with a full histogram.

use prost::Message;

use super::{
    heartbeat::FlowTotals,
    streams::{Epoch, Stream},
};

/// State of the stage.
#[derive(Clone, PartialEq, Message)]
pub struct StageState {
    /// Version of the contract with the kernel side.
    #[prost(uint32, tag = "1")]
    pub abi_version: u32,
    /// The kernel side's number of the next window.
    #[prost(uint32, tag = "2")]
    pub window_number: u32,
    /// Sequence of the next heartbeat.
    #[prost(uint64, tag = "3")]
    pub next_sequence: u64,
    /// Steps of the wall clock.
    #[prost(sint64, tag = "4")]
    pub clock_step_ms: i64,
    /// Cumulative flows: selected, sampled, picked up, closed.
    #[prost(uint64, repeated, tag = "5")]
    pub flows: Vec<u64>,
    /// Streams, by id.
    #[prost(message, repeated, tag = "6")]
    pub streams: Vec<StreamBooks>,
    /// Slots in use.
    #[prost(message, repeated, tag = "7")]
    pub slots: Vec<SlotBooks>,
}

/// A stream.
#[derive(Clone, PartialEq, Message)]
pub struct StreamBooks {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Sequence of its next window.
    #[prost(uint64, tag = "2")]
    pub next_sequence: u64,
    /// Sequence of its next pulse.
    #[prost(uint64, tag = "3")]
    pub next_pulse_sequence: u64,
    /// Cumulative: flows refused.
    #[prost(uint64, tag = "4")]
    pub lost_flows: u64,
    /// Cumulative: reads that failed.
    #[prost(uint64, tag = "5")]
    pub lost_reads: u64,
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
    /// New flows come here.
    #[prost(bool, tag = "5")]
    pub admits: bool,
    /// Flows that ended unseen.
    #[prost(uint64, tag = "6")]
    pub ended_unseen: u64,
    /// Words of the cell at the end of the window: how many zeros come first, and the word, in turn.
    #[prost(uint64, repeated, tag = "7")]
    pub words: Vec<u64>,
    /// Stalled time of the walk by group, none if it is all zero.
    #[prost(uint64, repeated, tag = "8")]
    pub walked_us: Vec<u64>,
}

impl StreamBooks {
    pub(super) fn of(stream: &Stream) -> Self {
        Self {
            name: stream.wanted.name.clone(),
            next_sequence: stream.next_sequence,
            next_pulse_sequence: stream.next_pulse_sequence,
            lost_flows: stream.lost_flows,
            lost_reads: stream.lost_reads,
        }
    }
}

impl SlotBooks {
    pub(super) fn of(epoch: &Epoch) -> Self {
        let idle = epoch.walked_us.iter().all(|us| *us == 0);
        Self {
            slot: epoch.slot,
            stream: epoch.stream as u32,
            rate_epoch: epoch.rate_epoch,
            threshold: epoch.threshold,
            admits: epoch.admits,
            ended_unseen: epoch.ended_unseen,
            words: sparse(epoch.counted.words()),
            walked_us: if idle {
                Vec::new()
            } else {
                epoch.walked_us.to_vec()
            },
        }
    }

    /// All words of the cell; `None` if they are more than a cell has.
    pub fn words(&self, length: usize) -> Option<Vec<u64>> {
        let mut words = vec![0; length];
        let mut at = 0usize;
        for pair in self.words.chunks(2) {
            let [zeros, word] = *pair else { return None };
            at = at.checked_add(usize::try_from(zeros).ok()?)?;
            *words.get_mut(at)? = word;
            at += 1;
        }
        Some(words)
    }
}

impl StageState {
    pub(super) fn of(
        number: u32,
        totals: &FlowTotals,
        streams: &[Stream],
        epochs: &[Epoch],
    ) -> Self {
        Self {
            abi_version: ebpf_abi::ABI_VERSION,
            window_number: number,
            next_sequence: totals.next_sequence,
            clock_step_ms: totals.clock_step_ms,
            flows: vec![
                totals.flows_selected,
                totals.flows_sampled,
                totals.flows_picked_up,
                totals.flows_closed,
            ],
            streams: streams.iter().map(StreamBooks::of).collect(),
            slots: epochs.iter().map(SlotBooks::of).collect(),
        }
    }
}

fn sparse(words: &[u64]) -> Vec<u64> {
    let mut pairs = Vec::new();
    let mut zeros = 0;
    for word in words {
        if *word == 0 {
            zeros += 1;
        } else {
            pairs.extend([zeros, *word]);
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
        let books = SlotBooks {
            words: vec![3, 1],
            ..SlotBooks::default()
        };
        assert_eq!(books.words(4), Some(vec![0, 0, 0, 1]));
        assert_eq!(books.words(3), None);
        let odd = SlotBooks {
            words: vec![u64::MAX],
            ..SlotBooks::default()
        };
        assert_eq!(odd.words(3), None);
    }
}
