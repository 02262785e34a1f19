//! Where roll-ups are kept: one trait, and the stores behind it.
//!
//! ```text
//! rollup ─► rows, checkpoint ─► Store (embedded | Cassandra) ─► rows of a stream and a span ─► API
//! ```
//!
//! Tables (logical; how they are laid out is each store's business):
//!
//! | table | key | row | kept |
//! |---|---|---|---|
//! | `stream_second` | stream, `window_start_ms`, part | [`Row`] | 48 h |
//! | `stream_minute` | stream, `window_start_ms`, part | [`Row`] | 90 d |
//! | `node_minute` | stream, `window_start_ms`, node, part | [`NodeRow`] | 7 d |
//! | `alert_history` | alert key, episode, `at_ms`, `offset` | [`AlertRow`] | 90 d |
//! | `alert_evidence` | alert key, episode, `window_start_ms`, id | [`EvidenceRow`] | 90 d |
//! | `checkpoint` | partition | [`Checkpoint`] | as long as it is written |
//!
//! **Every write is an upsert that may come again.** A row is a part of its window: [`Part::Closed`] is written with everything
//! that came in time, once or several times with growing [`Row::version_us`]; of two, the greater version stands, so that an owner
//! that does not know yet that it is none never takes a newer row's place. A late event is a part of its own. **Readers add up the
//! parts** ([`Sums::beside`]).
//!
//! A store belongs to one site; its name is given when it is opened. Nothing here reads a clock: ages are arguments.

mod answer;
pub mod cassandra;
mod embedded;
mod row;
mod target;
mod wire;

#[cfg(test)]
pub(crate) mod testing;

pub use answer::{Fold, Folded};
pub use embedded::Embedded;
pub(crate) use row::add_gauges;
pub use row::{NoPart, NodeRow, Part, Pool, PoolKey, Row, Sums};
use std::fmt;
use std::pin::Pin;
pub use target::Target;
pub use wire::{decode_sums, encode_sums};

/// How long rows are kept, ms: `stream_second`.
pub const SECONDS_KEPT_MS: u64 = 48 * 3_600_000;
/// How long rows are kept, ms: `stream_minute`.
pub const MINUTES_KEPT_MS: u64 = 90 * 86_400_000;
/// How long rows are kept, ms: `node_minute`.
pub const NODE_MINUTES_KEPT_MS: u64 = 7 * 86_400_000;
/// How long rows are kept, ms: `alert_history` and `alert_evidence`.
pub const ALERTS_KEPT_MS: u64 = 90 * 86_400_000;

/// Why a store did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, is full, or answers with an error: ask again later.
    #[error("{0}")]
    Unavailable(String),
    /// Another process holds it.
    #[error("{0}")]
    Held(String),
    /// What it holds cannot be read: it was written by another version, or is damaged.
    #[error("{0}")]
    Unreadable(String),
}

/// An answer that is waited for.
pub type Future<'a, T> =
    Pin<Box<dyn std::future::Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What is written together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Into `stream_second`.
    pub seconds: Vec<Row>,
    /// Into `stream_minute`.
    pub minutes: Vec<Row>,
    /// Into `node_minute`.
    pub node_minutes: Vec<NodeRow>,
    /// How far partitions are with them; written after the rows, or with them where that is one step.
    pub checkpoints: Vec<Checkpoint>,
}

impl Batch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows() == 0 && self.checkpoints.is_empty()
    }

    /// Rows in it.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.seconds.len() + self.minutes.len() + self.node_minutes.len()
    }
}

/// How far the store is with a partition of the window topic: everything that must not be read again to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
    /// The lowest offset that an open row still needs: reading begins there.
    pub offset: i64,
    /// The offset up to which events are in rows, open or written.
    pub position: i64,
    /// Windows that end no later are closed, Unix ms.
    pub watermark_ms: u64,
    /// Version of the newest row, as [`Row::version_us`]: of two checkpoints the greater stands.
    pub version_us: u64,
    /// Everything else, in the roll-up's own versioned form.
    pub state: Vec<u8>,
}

/// A checkpoint without its state: cheap to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Number of the partition.
    pub partition: i32,
    /// As [`Checkpoint::position`].
    pub position: i64,
    /// As [`Checkpoint::watermark_ms`].
    pub watermark_ms: u64,
}

/// One change of an alert's episode, as its topic has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRow {
    /// `rule|site|stream`.
    pub key: String,
    /// Id of the episode.
    pub episode: String,
    /// When it changed, Unix ms.
    pub at_ms: u64,
    /// Offset in the alert topic: with `at_ms` the identity of the change.
    pub offset: i64,
    /// The state that it went to.
    pub state: String,
    /// The value of the record: JSON.
    pub value: Vec<u8>,
}

/// One window around the onset of an episode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceRow {
    /// `rule|site|stream`.
    pub key: String,
    /// Id of the episode.
    pub episode: String,
    /// Start of the window, Unix ms.
    pub window_start_ms: u64,
    /// Identity of the event: `node/instance/sequence`.
    pub id: String,
    /// The event as it was on the wire: protobuf `StreamWindow`.
    pub event: Vec<u8>,
}

/// A store. Spans are half open, `from_ms <= window_start_ms < to_ms`; rows come by `window_start_ms`, then the text of the part.
pub trait Store: Send + Sync + fmt::Debug {
    /// What it is, for status and log: `embedded /var/lib/…`, `cassandra 10.0.0.1:9042, …`.
    fn name(&self) -> String;

    /// Writes rows, then the checkpoints. Rows of an error may be written or not; writing again is safe.
    fn write<'a>(&'a self, batch: &'a Batch) -> Future<'a, ()>;

    /// Rows of `stream_second`.
    fn seconds<'a>(&'a self, stream: &'a str, from_ms: u64, to_ms: u64) -> Future<'a, Vec<Row>>;

    /// Rows of `stream_minute`.
    fn minutes<'a>(&'a self, stream: &'a str, from_ms: u64, to_ms: u64) -> Future<'a, Vec<Row>>;

    /// Rows of `node_minute`; by `window_start_ms`, then node, then part.
    fn node_minutes<'a>(
        &'a self,
        stream: &'a str,
        from_ms: u64,
        to_ms: u64,
    ) -> Future<'a, Vec<NodeRow>>;

    /// Names of the streams that have rows in `stream_minute` or `stream_second` since a moment, sorted. A store may answer with
    /// some whose last row is older, by a day at most.
    fn streams(&self, since_ms: u64) -> Future<'_, Vec<String>>;

    /// The checkpoint of a partition.
    fn checkpoint<'a>(&'a self, topic: &'a str, partition: i32) -> Future<'a, Option<Checkpoint>>;

    /// How far all partitions of a topic are, by partition.
    fn progress<'a>(&'a self, topic: &'a str) -> Future<'a, Vec<Progress>>;

    /// Writes changes of alerts.
    fn write_alerts<'a>(&'a self, rows: &'a [AlertRow]) -> Future<'a, ()>;

    /// Writes evidence.
    fn write_evidence<'a>(&'a self, rows: &'a [EvidenceRow]) -> Future<'a, ()>;

    /// All changes of an episode, by `at_ms`, then `offset`.
    fn alert<'a>(&'a self, key: &'a str, episode: &'a str) -> Future<'a, Vec<AlertRow>>;

    /// The newest `limit` changes of any episode in a span of `at_ms`, newest first.
    fn alerts(&self, from_ms: u64, to_ms: u64, limit: usize) -> Future<'_, Vec<AlertRow>>;

    /// Evidence of an episode, by `window_start_ms`, then id.
    fn evidence<'a>(&'a self, key: &'a str, episode: &'a str) -> Future<'a, Vec<EvidenceRow>>;

    /// Whether it answers and would write.
    fn ping(&self) -> Future<'_, ()>;

    /// Drops what is older than it is kept; where the store does that by itself, nothing happens. Returns rows dropped.
    fn sweep(&self, _now_ms: u64) -> Future<'_, u64> {
        Box::pin(async { Ok(0) })
    }

    /// Bytes that it takes on this machine, where that can be said.
    fn bytes(&self) -> Option<u64> {
        None
    }
}
