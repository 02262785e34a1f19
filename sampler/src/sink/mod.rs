//! The end of the pipeline: events leave the node.
//!
//! Input: events from the window stage. Output: records in Kafka topics, JSON lines, or a table for a person.
//! Limits: between window stage and sink stand the spool, if there is one, and one bounded queue. What finds no room in the queue is
//! replayed from the spool later, or dropped; every drop is counted for its stream in the [`Ledger`].
//!
//! ```text
//! window stage ─► outlet ─► spool ─► queue ─► sink ─► broker
//!                             └──── replay ────┘
//! ```

mod kafka;
mod ledger;
mod outlet;
mod queue;
mod record;
mod stdout;
mod table;

pub use kafka::{Breaker, Drained, KafkaError, KafkaSettings, KafkaSink, Topics, client_config};
pub use ledger::{Dropped, Earlier, Ledger, Loss, Reason, SinkState, Totals};
pub use outlet::Outlet;
pub use queue::{Capacity, Origin, QueueReceiver, QueueSender, Queued, queue, spooled_queue};
pub use record::{Kind, Record, Stamp};
pub use sampler_event::Event;
pub use stdout::JsonLines;
pub use table::Table;
