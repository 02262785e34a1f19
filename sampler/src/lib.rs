//! The daemon on each edge node.
//!
//! The way of the data: `config → rules → kernel → stage → spool → sink`, with `metrics` beside it.

pub mod cli;

pub mod check;
pub mod config;
pub mod rules;

mod lock;
mod secret;

pub mod kernel;

pub mod limits;

pub mod stage;

pub mod spool;

pub mod sink;

pub mod laws;

pub mod metrics;
pub mod node_stats;

pub mod control;
pub mod daemon;

pub mod doctor;
pub mod top;
