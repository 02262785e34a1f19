//! Images of folders: disks of a guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use lab::command;

use crate::progress;

/// Besides what the folder holds, for what a machine writes. None of it is taken before it is written.
const ROOM_MIB: u64 = 1024;

/// The image of the root, made once beside it.
pub fn of_root(root: &Path) -> Result<PathBuf> {
    let image = root.with_extension("ext4");
    if !image.exists() {
        println!("making a disk of the Debian root");
        make(root, &image, ROOM_MIB)?;
    }
    Ok(image)
}

/// The image of the packages, made anew each time.
pub fn of_packages(folder: &Path, root: &Path) -> Result<PathBuf> {
    let image = root.with_file_name("packages.ext4");
    make(folder, &image, 16)?;
    Ok(image)
}

fn make(folder: &Path, image: &Path, room_mib: u64) -> Result<()> {
    let used = command::run(
        Command::new("du")
            .args(["--summarize", "--block-size=1M"])
            .arg(folder),
    )?;
    let used = used.split_whitespace().next().context("nothing of du")?;
    // A tenth for what the file system itself takes.
    let size_mib = used.parse::<u64>()? * 11 / 10 + room_mib;
    // Whole or not there: a half of one would be taken for it the next time.
    let half = image.with_extension("half");
    if half.exists() {
        fs::remove_file(&half)?;
    }
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-t", "ext4", "-d"]).arg(folder).arg(&half);
    progress::during("disk image", || {
        command::run(make.arg(format!("{size_mib}M")))
    })
    .context("mke2fs")?;
    fs::rename(&half, image)?;
    Ok(())
}
