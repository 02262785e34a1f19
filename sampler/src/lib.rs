//! The daemon on each edge node.
//!
//! The way of the data: `config → rules → kernel → stage → sink`, with `metrics` beside it.

pub mod exit;

pub mod config;

pub mod kernel;

pub mod stage;
