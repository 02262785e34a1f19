//! input mod.
