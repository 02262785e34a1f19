//! From a partition's log to the rows of the store. Pure: no clock, nothing waits.
//!
//! ```text
//! window, offset, append time ─► Partition ─► rows of what closed, late parts, now and then what is still open
//!                                    │
//!                                    └─► Checkpoint: where to read on, and what must be known there
//! ```
//!
//! **What is written follows from the log alone**, in its order: when a window closes, which event is late, what a row holds. So
//! any owner of the partition, after any crash, writes the same rows again, and every write is an upsert.
//!
//! A window closes when the partition's watermark reaches its end: the greatest end of a window that came, less the lateness. An
//! event of a closed window is a row part of its own. When a partition falls silent its open rows can be written too
//! ([`Partition::provisional`]); they stay open.
//!
//! A [`Checkpoint`](crate::store::Checkpoint) holds two offsets. From `offset` on, events of rows that were open are still needed; all
//! others up to `position` are in the store. A new owner reads from the first: up to the second it takes only events of rows that were
//! open there, from then on all that are new.
//!
//! Without a checkpoint, the first rows would lack what came before the first record read: windows that began before it was
//! appended are passed over and counted, unless reading began with the log itself.
//! Limits: [`MAX_STREAMS`] streams with open rows; about 15 kB a stream and 200 bytes a (node, stream) in each open row.

mod open;
mod partition;
mod state;

#[cfg(test)]
mod tests;

pub use partition::{Begin, Counts, MAX_STREAMS, Options, Partition};
