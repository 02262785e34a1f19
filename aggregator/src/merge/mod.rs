//! merge mod.
