//! The wiring: what comes from the brokers goes into the site, what is asked for comes out of it. Each role has a file of its own.

mod alert;
mod alerting;
mod board;
mod outputs;
mod run;
mod sift;
mod site;
mod state;
pub mod store;

pub use alerting::Alerting;
pub use board::{Boards, Told};
pub use run::{Failure, run};
pub use site::Site;

use std::time::{SystemTime, UNIX_EPOCH};

/// The time of day, Unix ms.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
