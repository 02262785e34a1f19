//! The guests' first file system: our guest program as init, and what it needs there (`ip`; for checks of its own the sampler and `tc`
//! too), each with the libraries that it is linked with, and the modules of every kernel. One archive serves all guests of a purpose.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use lab::command;

use super::kernels::Kernel;
use super::modules::Purpose;
use crate::paths;

/// Mount points and places to write to.
const FOLDERS: [&str; 7] = ["dev", "proc", "sys", "tmp", "run", "modules", "usr/bin"];
/// Tools of this system.
const TOOLS: [&str; 2] = ["ip", "tc"];
/// Our own programs, by their names and where the guest looks for them.
const PROGRAMS: [(&str, &str); 2] = [
    ("xtask-guest", "init"),
    ("flowvitals-sampler", "usr/bin/flowvitals-sampler"),
];

/// Writes the archive; where it is.
pub fn make(kernels: &[&Kernel], purpose: Purpose) -> Result<PathBuf> {
    // The first of each is all that a root needs.
    let count = match purpose {
        Purpose::Checks => 2,
        Purpose::Debian => 1,
    };
    let folder = paths::target().join("vm-test");
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for name in FOLDERS {
        fs::create_dir_all(root.join(name))?;
    }
    for (name, place) in &PROGRAMS[..count] {
        let program = std::env::current_exe()?.with_file_name(name);
        let stripped = root.join(place);
        command::run(Command::new("strip").arg("-o").arg(&stripped).arg(&program))
            .with_context(|| format!("{} is not built", program.display()))?;
        add_libraries(&root, &program)?;
    }
    for name in &TOOLS[..count] {
        let tool = find(name)?;
        fs::copy(&tool, root.join("usr/bin").join(name))?;
        add_libraries(&root, &tool)?;
    }
    for kernel in kernels {
        let place = root.join("modules").join(&kernel.release);
        fs::create_dir_all(&place)?;
        for (order, module) in kernel.modules(purpose)?.iter().enumerate() {
            fs::copy(module, place.join(format!("{order:02}.ko")))?;
        }
    }
    pack(&root, &folder.join(format!("{}.cpio", purpose.name())))
}

fn pack(root: &Path, archive: &Path) -> Result<PathBuf> {
    let archive = std::path::absolute(archive)?;
    let script = "find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet > \"$1\"";
    let mut pack = Command::new("sh");
    pack.args(["-c", script, "sh"]).arg(&archive);
    command::run(pack.current_dir(root)).context("cannot pack the guests' files")?;
    Ok(archive)
}

fn find(tool: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut places = folders.map(|folder| folder.join(tool));
    let found = places.find(|place| place.is_file());
    found.with_context(|| format!("no {tool} here: cargo xtask setup"))
}

/// Puts what a program is linked with where the guest's loader looks for it: at the same place as here.
fn add_libraries(root: &Path, program: &Path) -> Result<()> {
    let listed = command::run(Command::new("ldd").arg(program))?;
    let words = listed.split_whitespace();
    for library in words.filter(|word| word.starts_with('/')) {
        let place = root.join(library.trim_start_matches('/'));
        if !place.exists() {
            fs::create_dir_all(place.parent().unwrap_or(root))?;
            fs::copy(library, &place).with_context(|| library.to_owned())?;
        }
    }
    Ok(())
}
