//! The daemon on each edge node.
//!
//! The way of the data: `config → rules → kernel → stage → sink`, with `metrics` beside it.
#![warn(unreachable_pub)]

pub mod cli;
pub mod exit;

pub mod check;
pub mod config;
pub mod rules;

pub mod kernel;

pub mod stage;
