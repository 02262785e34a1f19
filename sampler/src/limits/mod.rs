//! The sampler's own cost against its limit. Pure: every time is an argument.
//!
//! ```text
//! getrusage ───────────────────────► daemon ┐
//! run time of the kernel programs,          ├─► Budget: the last minute ─► Governor ─► rates, detach or a word
//! measured or estimated (Meter) ──► kernel  ┘
//! ```

pub mod budget;
pub mod cost;
pub mod governor;

pub use budget::Budget;
pub use cost::{Cost, Meter};
pub use governor::{Governor, Verdict};
