//! The daemon on each edge node.

pub mod config;
pub mod exit;
pub mod rules;
