//! Where things are, from the workspace's root.

use std::path::{Path, PathBuf};

/// The workspace's root.
pub fn root() -> PathBuf {
    // deploy/xtask, so the root is two above.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Cargo's target directory, where everything that is made lies.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
