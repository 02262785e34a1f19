//! api mod.
