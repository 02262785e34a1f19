//! The end of the pipeline: events leave the node.
//!
//! Input: events from the window stage. Output: records in Kafka topics, JSON lines, or a table for a person.
//! Limits: between window stage and sink stands one bounded queue that drops its oldest event when it is full; every
//! drop is counted for its stream in the [`Ledger`].
//!
//! The spool's place is between [`Record::of`] and [`QueueSender::push`]: it writes records, and feeds the queue.

mod kafka;
mod ledger;
mod queue;
mod record;
mod stdout;
mod table;

pub use kafka::{Drained, KafkaError, KafkaSettings, KafkaSink, Topics, client_config};
pub use ledger::{Ledger, Loss, SinkState, Totals};
pub use queue::{Capacity, QueueReceiver, QueueSender, Queued, queue};
pub use record::{Kind, Record};
pub use sampler_event::Event;
pub use stdout::JsonLines;
pub use table::Table;
