//! The machine's files: a minimal Debian with systemd, from the package sources that apt uses here.
//!
//! Made once below target/systemd-test, and again when what is in it changes. Read-only for every machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use lab::command;

use crate::{paths, progress};

const SUITE: &str = "bookworm";
/// Besides what every Debian has: PID 1 and its bus, what our packages need (there is no network later), an edge and players, and what
/// other distributions install packages with.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,libssl3,zlib1g,nginx-light,curl,rpm";
/// Where apt says where packages come from; the first that there is.
const SOURCES: [&str; 2] = [
    "/etc/apt/sources.list.d/debian.sources",
    "/etc/apt/sources.list",
];

/// The folder of the root, made if it is not there as it should be.
pub fn make() -> Result<PathBuf> {
    let folder = paths::target().join("systemd-test");
    let (root, stamp) = (folder.join("root"), folder.join("made-of.txt"));
    let wanted = format!("{SUITE}: {PACKAGES}\n");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(root.canonicalize()?);
    }
    println!("making a Debian root with systemd (about 100 MB to fetch, a minute or two)");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    progress::during("Debian root", || {
        command::run(&mut bootstrap(&root)?).context("mmdebstrap")
    })?;
    fs::write(stamp, wanted)?;
    Ok(root.canonicalize()?)
}

fn bootstrap(root: &Path) -> Result<Command> {
    let Some(sources) = SOURCES.iter().find(|path| Path::new(path).exists()) else {
        bail!("apt has no sources here: none of {}", SOURCES.join(", "));
    };
    let mut command = Command::new("mmdebstrap");
    command.args([
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
    ]);
    command.arg(format!("--include={PACKAGES}"));
    // A cache needs no journal to survive a power cut.
    command.arg("--dpkgopt=force-unsafe-io");
    // The folder may be where apt's own user cannot look.
    command.arg("--aptopt=APT::Sandbox::User \"root\"");
    command.arg("--dpkgopt=path-exclude=/usr/share/locale/*");
    command.arg(SUITE).arg(root).arg(sources);
    Ok(command)
}
