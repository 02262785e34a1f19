//! Sequences on their way to a checkpoint and back.
//!
//! Input: what was seen of each key. Output: bytes, and back the same, but for counters, which begin again. Names are written once,
//! numbers as differences: about 20 bytes a key.

use std::collections::HashMap;

use prost::{DecodeError, Message};

use super::decode::Topic;
use super::intervals::Intervals;
use super::names::Id;
use super::sequences::{Key, Seen, Sequences, Small};

#[derive(Clone, PartialEq, Message)]
struct StoredSequences {
    #[prost(string, repeated, tag = "1")]
    names: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    keys: Vec<StoredKey>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredKey {
    /// Places in `names`.
    #[prost(uint32, tag = "1")]
    node: u32,
    #[prost(uint32, tag = "2")]
    stream: u32,
    /// Place in [`Topic::ALL`].
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(fixed64, tag = "4")]
    instance: u64,
    #[prost(uint64, tag = "5")]
    heard_ms: u64,
    #[prost(uint64, tag = "6")]
    given_up: u64,
    /// First, then distance to last, to the next first, and so on.
    #[prost(uint64, repeated, tag = "7")]
    ends: Vec<u64>,
}

impl Sequences {
    /// The bytes of what was seen.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut places = HashMap::<Id, u32>::new();
        let mut place = |id: Id| {
            *places.entry(id).or_insert_with(|| {
                names.push(self.names().name(id).to_owned());
                u32::try_from(names.len() - 1).unwrap_or(u32::MAX)
            })
        };
        let key = |(small, seen): (&Small, &Seen)| StoredKey {
            node: place(small.node),
            stream: place(small.stream),
            kind: small.kind as u32,
            instance: small.instance,
            heard_ms: seen.heard_ms,
            given_up: seen.sequences.given_up(),
            ends: differences(&seen.sequences),
        };
        let keys = self.seen().map(key).collect();
        StoredSequences { names, keys }.encode_to_vec()
    }

    /// What bytes say was seen. Keys that make no sense are left out: their events pass as new.
    ///
    /// # Errors
    /// If the bytes are none of ours.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored = StoredSequences::decode(bytes)?;
        let mut sequences = Self::default();
        for key in &stored.keys {
            let name = |place: u32| stored.names.get(place as usize).map(String::as_str);
            let kind = Topic::ALL.get(key.kind as usize);
            let intervals = Intervals::of_ends(&sums(&key.ends), key.given_up);
            if let (Some(node), Some(stream), Some(kind), Some(seen)) =
                (name(key.node), name(key.stream), kind, intervals)
            {
                let heard_ms = key.heard_ms;
                let key = Key {
                    node,
                    instance: key.instance,
                    stream,
                    kind: *kind,
                };
                sequences.put(key, heard_ms, seen);
            }
        }
        Ok(sequences)
    }
}

fn differences(intervals: &Intervals) -> Vec<u64> {
    let mut before = 0;
    let ends = intervals.iter().flat_map(|(first, last)| [first, last]);
    let difference = |end: u64| end - std::mem::replace(&mut before, end);
    ends.map(difference).collect()
}

fn sums(differences: &[u64]) -> Vec<u64> {
    let mut before = 0_u64;
    let sum = |difference: &u64| {
        before = before.saturating_add(*difference);
        before
    };
    differences.iter().map(sum).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Key, Taken};
    use super::*;

    proptest! {
        #[test]
        fn goes_on_as_if_nothing_had_happened(
            before in prop::collection::vec((0_u64..3, 0_u64..90), 0..200),
            after in prop::collection::vec((0_u64..4, 0_u64..120), 0..200),
        ) {
            let take = |sequences: &mut Sequences, (key, sequence): (u64, u64)| {
                let (node, stream) = (format!("edge-{}", key % 2), format!("sport-{}", key / 2));
                let key = Key { node: &node, instance: key, stream: &stream, kind: Topic::Window };
                sequences.take(key, sequence, 7)
            };
            let mut whole = Sequences::default();
            for event in before {
                let _ = take(&mut whole, event);
            }
            let mut saved = Sequences::decode(&whole.encode()).expect("ours");
            prop_assert_eq!(saved.missing_now(), whole.missing_now());
            for event in after {
                let expected: Taken = take(&mut whole, event);
                prop_assert_eq!(take(&mut saved, event), expected);
            }
        }

        #[test]
        fn ends_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Sequences::decode(&bytes);
        }
    }

    #[test]
    fn a_site_fits_into_few_bytes() {
        let mut sequences = Sequences::default();
        for node in 0..100_u64 {
            for stream in 0..17 {
                let (node_name, stream) = (format!("edge-{node}"), format!("customer-{stream}"));
                let key = Key {
                    node: &node_name,
                    instance: node << 32 | 7,
                    stream: &stream,
                    kind: Topic::Window,
                };
                sequences.take(key, 70_000, 1_700_000_000_000);
            }
        }
        let bytes = sequences.encode().len();
        assert!(bytes < 1_700 * 35, "{bytes}");
    }
}
