//! The tools besides rustc that make a BPF object: bpf-linker, and one that strips.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, tools};

/// The linker that borrows the LLVM of the pinned compiler; another version gives other bytes.
const LINKER_VERSION: &str = "0.10.4";

/// bpf-linker of the pinned version: the one in PATH, or one of our own below target/.
pub fn linker(sysroot: &Path) -> Result<PathBuf> {
    let own = tools::folder().join("bin/bpf-linker");
    for candidate in [PathBuf::from("bpf-linker"), own.clone()] {
        let version = process::output(with_llvm(&candidate, sysroot).arg("--version"));
        if version.is_ok_and(|text| text.trim().ends_with(LINKER_VERSION)) {
            return Ok(candidate);
        }
    }
    tools::install("bpf-linker", LINKER_VERSION)?;
    Ok(own)
}

/// Drops debug sections but keeps BTF: rustc's own objcopy, or LLVM's from the system.
pub fn strip(object: &Path, sysroot: &Path) -> Result<()> {
    let inside = process::output(Command::new("find").arg(sysroot.join("lib/rustlib")).args([
        "-name",
        "rust-objcopy",
        "-type",
        "f",
    ]))?;
    let tool = inside.lines().next().unwrap_or("llvm-objcopy");
    let mut command = with_llvm(Path::new(tool), sysroot);
    command
        .args(["--strip-debug", "--remove-section=.eh_frame"])
        .arg("--remove-section=.rel.eh_frame")
        .arg(object);
    process::output(&mut command)
        .context("rustc brings no rust-objcopy here, so Debian's package llvm must be there")?;
    Ok(())
}

/// A tool that loads LLVM from the compiler's own folder.
pub fn with_llvm(tool: &Path, sysroot: &Path) -> Command {
    let mut command = Command::new(tool);
    command.env("LD_LIBRARY_PATH", sysroot.join("lib"));
    command
}
