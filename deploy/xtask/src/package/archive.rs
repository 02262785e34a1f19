//! The tools that write the archives, and what they wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{paths, process, tools};

/// Crates of the tools, and their versions.
const TOOLS: [(&str, &str); 2] = [("cargo-deb", "3.8.0"), ("cargo-generate-rpm", "0.21.1")];

/// Installs those of these tools that are not there in their pinned version.
pub fn install_tools(wanted: &[&str]) -> Result<()> {
    let wanted = TOOLS.iter().filter(|(name, _)| wanted.contains(name));
    for (name, version) in wanted {
        if !is_there(name, version) {
            tools::install(name, version)?;
        }
    }
    Ok(())
}

fn is_there(name: &str, version: &str) -> bool {
    let said = process::output(Command::new(path(name)).arg("--version"));
    said.is_ok_and(|said| said.trim().ends_with(version))
}

fn path(name: &str) -> PathBuf {
    tools::folder().join("bin").join(name)
}

/// How packages are written.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// The target directory that the tools see.
    pub tree: &'a Path,
    /// Where packages go.
    pub into: &'a Path,
    /// Another version than Cargo.toml's.
    pub version: Option<&'a str>,
    /// Whether quick beats small.
    pub quick: bool,
}

impl Writer<'_> {
    /// Writes the .deb of a crate; its path.
    pub fn debian(&self, package: &str) -> Result<PathBuf> {
        let mut tool = tool("cargo-deb", package);
        // It asks cargo where things are built.
        tool.env("CARGO_TARGET_DIR", self.tree);
        tool.args(["--no-build", "--no-strip", "--output"]);
        // Without the last, one that is not there yet would be the package's name.
        tool.arg(self.into.join(""));
        if let Some(version) = self.version {
            tool.args(["--deb-version", version]);
        }
        if self.quick {
            tool.arg("--fast");
        }
        process::output(&mut tool)?;
        self.written(package, "deb")
    }

    /// Writes the .rpm of a crate; its path.
    pub fn rpm(&self, package: &str) -> Result<PathBuf> {
        let mut tool = tool("cargo-generate-rpm", package);
        // The same on every machine, whether rpm's own scripts are there or not.
        tool.args(["--auto-req", "builtin"]);
        tool.arg("--target-dir").arg(self.tree);
        tool.arg("--output").arg(self.into);
        if let Some(version) = self.version {
            let version = format!("version = \"{version}\"");
            tool.args(["--set-metadata", &version]);
        }
        if self.quick {
            tool.args(["--payload-compress", "none"]);
        }
        process::output(&mut tool)?;
        self.written(package, "rpm")
    }

    /// The one package of that crate and kind.
    fn written(&self, package: &str, kind: &str) -> Result<PathBuf> {
        let name = super::program(package);
        for entry in fs::read_dir(self.into)? {
            let path = entry?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            if file.starts_with(&name) && path.extension().is_some_and(|e| e == kind) {
                return Ok(path);
            }
        }
        bail!("no {name}*.{kind} in {}", self.into.display())
    }
}

/// Called as cargo calls its subcommands, in the crate's folder.
fn tool(name: &str, package: &str) -> Command {
    let mut command = Command::new(path(name));
    command.current_dir(paths::root().join(package));
    command.arg(name.trim_start_matches("cargo-"));
    command
}

/// Path, size and number of files.
pub fn summary(package: &Path) -> Result<String> {
    let listed = if is_debian(package) {
        process::output(Command::new("dpkg-deb").arg("--contents").arg(package))?
    } else {
        let list = ["--query", "--list", "--package"];
        process::output(Command::new("rpm").args(list).arg(package))?
    };
    let files = listed.lines().filter(|line| !line.ends_with('/')).count();
    let bytes = fs::metadata(package)
        .with_context(|| package.display().to_string())?
        .len();
    let mib = bytes as f64 / f64::from(1 << 20);
    let path = package.display();
    Ok(format!("{path}: {mib:.1} MiB, {files} files"))
}

/// Whether it is a .deb.
pub fn is_debian(package: &Path) -> bool {
    package.extension().is_some_and(|kind| kind == "deb")
}
