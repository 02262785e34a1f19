//! src metrics.
