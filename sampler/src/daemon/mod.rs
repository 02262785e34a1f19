//! The daemon: everything wired, from the kernel side to the sink.
//!
//! ```text
//! main thread: config ─► ports ─► load or take over, attach ─► capabilities given up ─► runtime
//! window task: edge ─► walk ─► cells ─► stage ─► outlet ─► spool ─► queue ─► sink task ─► Kafka | stdout
//!                                          └────► registry ◄─ endpoint task
//! ```

mod dry_run;
mod keep;
mod life;
mod node;
mod off;
mod pipeline;
mod prepare;
mod rates;
mod side;
mod spending;
mod time;

pub use prepare::{Failure, Mode, Prepared, prepare};
pub(crate) use prepare::{kafka_error, kafka_settings, spool_error};

pub use dry_run::dry_run;
pub use pipeline::run;
