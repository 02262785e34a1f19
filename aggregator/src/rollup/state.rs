//! What a partition must know to go on where another left it.
//!
//! Input: the state. Output: bytes with the number of their form, and back; a form that is not known is refused.

use prost::Message;

use crate::input::Sequences;
use crate::store::{Checkpoint, StoreError};

/// Number of the form of [`Stored`]; another one is another meaning.
const FORM: u32 = 1;

/// Numbers that follow from the log up to `position`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Windows that began before it are passed over.
    pub(super) begin_ms: u64,
    /// Offset after the last event.
    pub(super) position: i64,
    /// Windows that end here or before are closed.
    pub(super) watermark_ms: u64,
    /// Of the newest event; rises with every one.
    pub(super) version_us: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(uint32, tag = "1")]
    form: u32,
    #[prost(uint64, tag = "2")]
    begin_ms: u64,
    #[prost(bytes = "vec", tag = "3")]
    sequences: Vec<u8>,
}

impl State {
    /// The bytes, with the sequences that were seen.
    pub(super) fn encode(&self, sequences: &Sequences) -> Vec<u8> {
        let stored = Stored {
            form: FORM,
            begin_ms: self.begin_ms,
            sequences: sequences.encode(),
        };
        stored.encode_to_vec()
    }

    /// The state and the sequences of a checkpoint.
    pub(super) fn decode(checkpoint: &Checkpoint) -> Result<(Self, Sequences), StoreError> {
        let wrong = |what: String| {
            let number = checkpoint.partition;
            StoreError::Unreadable(format!("checkpoint of partition {number}: {what}"))
        };
        let stored = Stored::decode(checkpoint.state.as_slice())
            .map_err(|error| wrong(error.to_string()))?;
        if stored.form != FORM {
            let what = format!("its form is {}, this version reads {FORM}", stored.form);
            return Err(wrong(what));
        }
        let sequences =
            Sequences::decode(&stored.sequences).map_err(|error| wrong(error.to_string()))?;
        let state = Self {
            begin_ms: stored.begin_ms,
            position: checkpoint.position,
            watermark_ms: checkpoint.watermark_ms,
            version_us: checkpoint.version_us,
        };
        Ok((state, sequences))
    }
}
