//! Placeholder docs, replaced by the first real module.

pub mod node_stats;
pub mod notify;
