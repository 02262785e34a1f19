//! From records to events, each once.
//!
//! Input: Kafka records as they are. Output: events that hold to the contract ([`decode()`]), and whether one was there before
//! ([`sequences`]). Pure: times are arguments, nothing here waits.

mod shape;

pub mod decode;

mod intervals;
mod names;
pub mod partition;
mod saved;
pub mod sequences;

#[cfg(test)]
mod tests;

pub use decode::{Raw, Reason, Refused, Topic, decode};
pub use partition::partition_of;
pub use sequences::{Key, Sequences, Taken, Totals, sequence_of};
