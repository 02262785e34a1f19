//! Placeholder docs, replaced by the first real module.
