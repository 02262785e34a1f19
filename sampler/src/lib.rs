//! Placeholder docs, replaced by the first real module.

pub mod doctor;
pub mod latency;
pub mod metrics;
pub mod node_stats;
pub mod notify;
pub mod sink;
pub mod top;
