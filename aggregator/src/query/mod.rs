//! Questions about streams, answered from memory and from the store.
//!
//! ```text
//! question ─► plan ─► rows of the store ──┐
//!               └───► rows of memory ─────┴─► Fold ─► Answer, Point
//! ```
//!
//! What lies in memory whole is answered from there: it is there first, also when the store is away. Any other span is answered from
//! the store as far as memory does not reach, and from memory beyond it: the two never overlap, since a window is in the one part
//! or the other by its start. Rows are added up as they come, an hour or a day of them at a time.

mod gather;
mod memory;
mod plan;

pub use gather::{Gathered, Lookup, Source};
pub use memory::rows as rows_in_memory;
pub use plan::{MINUTE_MS, NoPlan, Plan, SECOND_MS};
