//! The daemon on each edge node.

pub mod check;
pub mod cli;
pub mod config;
pub mod exit;
pub mod rules;
