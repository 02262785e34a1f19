//! The spool: events on disk until a broker has them.
//!
//! Input: batches of encoded windows and heartbeats, one per window edge. Output: their places, so that they can be confirmed; the
//! backlog, oldest first, for a throttled replay. The window stage never waits for it: files are touched in the spool's own thread,
//! syncs are made in another.
//!
//! ```text
//! window stage ─► outlet ─► spool thread: write() ─► queue ─► sink ─► broker
//!                              │    ▲                          │
//!                         sync thread └── done, given back ◄───┘
//! ```
//!
//! * A batch is written by one call before any of its events is produced: kill -9 loses nothing that a broker could know of, a
//!   power loss at most `fsync_ms`. The heartbeat, which names the next sequences, stands last.
//! * An event is **out** while the sink has it in memory, **pending** while it is on disk only, **done** when it was confirmed.
//!   A segment whose events are all done is removed; what the reference notes, and acks beside the segment, make a new life send
//!   the others only.
//! * Full: the oldest segment goes; events of it that were pending are lost and counted for their stream.
//! * The disk says no, or does not answer within [`PATIENCE`]: events go on from memory, and it is said. Tried again every
//!   second.
//! * Pulses are not spooled: they are the fast path, worth nothing after some seconds, and their counts are in the windows. They
//!   wait in the queue's memory (20 s of ten streams), whose oldest are dropped and counted.
//! * State that a new life goes on from is in [`mod@reference`], beside the segments rather than in every record: it is overwritten, so
//!   that it takes no room from the events.
//!
//! Formats are written down in [`mod@format`] and [`mod@reference`]. Limits: `max_bytes`, acks included; references, dead letters (4 MiB)
//! and what was set aside come on top. Units: bytes, events, ms.
//!
//! Kept crates that were looked at: yaque (one reader that confirms in order), okaywal (every commit waits for its fsync), queue-file
//! (head only), commitlog (no confirmations, no new release), disk_backed_queue (SQLite; a transaction per batch). None confirms
//! out of order, drops its oldest at a bound and keeps fsync out of the writer's way; so this is a module of our own.

mod dead_letter;
pub mod directory;
mod faults;
pub mod format;
mod handle;
mod inspect;
mod reader;
pub mod reference;
mod room;
mod segments;
mod status;
pub mod store;
mod sync;
mod ticket;
mod worker;

pub use directory::DirectoryError;
pub use faults::Faults;
pub use handle::{PATIENCE, Replayed, Spool, SpoolSettings};
pub use inspect::{Inspection, inspect};
pub use reference::{Reference, ReferenceFiles, boot_id};
pub use room::{expected_bytes_per_s, expected_room};
pub use segments::SpoolId;
pub use status::SpoolStatus;
pub use store::{Batch, Found};
pub use ticket::Ticket;
