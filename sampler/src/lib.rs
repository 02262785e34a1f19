//! The daemon on an edge node.

pub mod exit;
pub mod kernel;
