//! Whether Debian's own checker of packages finds anything.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::archive;
use crate::process;

/// What it may find, and why that is so.
const TOLERATED: [(&str, &str); 2] = [
    (
        "initial-upload-closes-no-bugs",
        "they are not uploaded to Debian",
    ),
    (
        "non-standard-file-perm",
        "aggregator.toml may hold passwords",
    ),
];

/// Has lintian look at the Debian packages; fails where it finds a warning or an error.
pub fn run(packages: &[PathBuf]) -> Result<()> {
    println!("checking with lintian");
    let tolerated: Vec<_> = TOLERATED.iter().map(|(tag, _)| *tag).collect();
    let debian = packages
        .iter()
        .filter(|package| archive::is_debian(package));
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--tag-display-limit", "0"]);
    lintian.args(["--suppress-tags", &tolerated.join(",")]);
    // It warns of being root itself.
    lintian.arg("--allow-root");
    process::run(lintian.args(debian))
}
