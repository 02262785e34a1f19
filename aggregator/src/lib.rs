//! From the nodes' events to what all flows of a stream did.
//!
//! The way of the data: `consume → input → merge → alert → publish`, and `api` answers. `input`, `merge` and `alert` are pure: bytes and
//! times come in as arguments, nothing in them reads a clock or waits. `daemon` wires them.

/// Decoding and merging a window is dozens of small allocations. Here, not in `main`, so that the benches measure what the daemon does.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
