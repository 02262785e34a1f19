//! What was decided, handed to those who are to hear of it.
//!
//! Input: alerts and records. Output: requests to the Alertmanagers.

pub mod alertmanager;
pub mod watchdog;
