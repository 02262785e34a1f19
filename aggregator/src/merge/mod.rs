//! The nodes' events added up. Pure: all times are Unix ms and come with the events or as arguments.
//!
//! ```text
//! heartbeats ──► nodes: who is expected, who has reported
//! windows ─────► live: one sum per stream and window start ──► total and series over any multiple of the window
//! ```

mod answer;
mod live;
mod nodes;
mod progress;

pub(crate) use answer::Evidence;
pub use answer::{Answer, Point, Quantity};
pub use live::{
    AHEAD_MS, Added, HORIZON_MS, Live, LiveOptions, MAX_STREAMS, MAX_WINDOWS, Unknown, main_source,
};
pub use nodes::{NodeInfo, Nodes, Presence, StreamInfo};
