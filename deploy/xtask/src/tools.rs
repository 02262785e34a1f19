//! Tools from crates.io in pinned versions, installed below target/tools when they are needed.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{paths, process};

/// Where they are installed.
pub fn folder() -> PathBuf {
    paths::target().join("tools")
}

/// Installs a crate's programs there.
pub fn install(name: &str, version: &str) -> Result<()> {
    println!("installing {name} {version} into target/tools (a minute or two)");
    let mut install = process::cargo();
    install
        .args(["install", "--locked", "--version", version, name, "--root"])
        .arg(folder())
        // A directory of its own, so that the workspace's lock on target/ is not waited for.
        .env("CARGO_TARGET_DIR", folder().join("build"));
    process::run(&mut install).with_context(|| format!("cannot install {name}"))
}
