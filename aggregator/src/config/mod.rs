//! config mod.
