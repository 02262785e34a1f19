//! consume mod.
