//! From the nodes' events to what all flows of a stream did.
//!
//! The way of the data: `consume → input → merge → alert → publish`, and `api` answers. `input`, `merge` and `alert` are pure: bytes and
//! times come in as arguments, nothing in them reads a clock or waits. `daemon` wires them.

pub mod cli;
pub mod config;

pub mod check;

pub mod schema;

pub mod input;

pub mod merge;

pub mod alert;

pub mod store;

pub mod rollup;

pub mod consume;

pub mod publish;

pub mod test_alert;

pub mod query;
pub mod replay;

pub mod rule_test;

pub mod backtest;

pub mod api;

pub mod daemon;
