//! `cargo xtask package`: .deb and .rpm of sampler and aggregator.
//!
//! In: the workspace; what goes into a package is said in `[package.metadata.deb]` and `[package.metadata.generate-rpm]` of
//! sampler/Cargo.toml and aggregator/Cargo.toml. Out: the packages, in `target/package/<profile>/`. cargo-deb and
//! cargo-generate-rpm write the archives; they see a target directory of their own, in which lies what is made for them:
//! stripped programs, man pages, completions.

mod archive;
mod check;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use archive::Writer;

use crate::{cli, paths, process};

/// The crates that become packages.
const CRATES: [&str; 2] = ["sampler", "aggregator"];

/// Builds and checks them all, and says what came of it.
pub fn run(options: &cli::Package) -> Result<()> {
    let start = Instant::now();
    let profile = Profile::of(options.dev);
    build(profile, &["manual"])?;
    let tree = lay_out(profile)?;
    let writer = Writer {
        tree: &tree,
        into: &tree,
        version: options.version.as_deref(),
        quick: options.dev,
    };
    archive::install_tools(&["cargo-deb", "cargo-generate-rpm"])?;
    let mut packages = Vec::new();
    for package in CRATES {
        println!("packing {package}");
        packages.push(writer.debian(package)?);
        packages.push(writer.rpm(package)?);
    }
    check::run(&packages)?;
    println!("done in {:.0} s:", start.elapsed().as_secs_f64());
    for package in &packages {
        println!("  {}", archive::summary(package)?);
    }
    Ok(())
}

/// Builds what `cargo xtask systemd-test` tries: the packages, those of the sampler in a higher version below `newer/`, and the
/// program that tries them.
pub fn run_for_trial(profile: Profile) -> Result<()> {
    build(profile, &["manual", "stack"])?;
    let tree = lay_out(profile)?;
    archive::install_tools(&["cargo-deb", "cargo-generate-rpm"])?;
    println!("packing");
    let writer = Writer {
        tree: &tree,
        into: &tree,
        version: None,
        quick: true,
    };
    let mut packages = Vec::new();
    for package in CRATES {
        packages.push(writer.debian(package)?);
        packages.push(writer.rpm(package)?);
    }
    check::run(&packages)?;
    // An .rpm keeps the revision apart.
    let rpm = format!("{}+newer", env!("CARGO_PKG_VERSION"));
    let debian = format!("{rpm}-1");
    let into = tree.join("newer");
    let newer = |version| Writer {
        into: &into,
        version: Some(version),
        ..writer
    };
    newer(&debian).debian("sampler")?;
    newer(&rpm).rpm("sampler")?;
    Ok(())
}

/// Builds what `cargo xtask vm-test` needs: the same programs as for the packages that are tried, so that nothing is compiled twice.
pub fn build_for_guests() -> Result<()> {
    build(Profile::Dev, &["manual", "stack"])
}

/// How the programs are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As they are shipped.
    Release,
    /// As `cargo build` makes them.
    Dev,
}

impl Profile {
    /// The one of programs that are tried, or of those that are shipped.
    pub fn of(dev: bool) -> Self {
        match dev {
            true => Self::Dev,
            false => Self::Release,
        }
    }

    /// What cargo calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }

    /// Where packages go.
    fn packages(self) -> PathBuf {
        paths::target().join("package").join(self.name())
    }

    /// Where cargo puts what it made.
    pub fn folder(self) -> PathBuf {
        paths::target().join(match self {
            Self::Release => "release",
            Self::Dev => "debug",
        })
    }
}

/// Compiles what is packed, and those of our own programs: the one that writes the manual is among them.
fn build(profile: Profile, own: &[&str]) -> Result<()> {
    let name = profile.name();
    println!("building the programs (profile {name}; ten minutes the first time)");
    let mut build = process::cargo();
    build.args(["build", "--locked", "--profile", name, "--package", "xtask"]);
    for package in CRATES {
        build.args(["--package", package, "--bin", &program(package)]);
    }
    for part in own {
        build.args(["--bin", &format!("xtask-{part}")]);
        build.args(["--features", &format!("xtask/{part}")]);
    }
    // It drives the sampler where there is nothing else.
    if own.contains(&"stack") {
        build.args(["--bin", "xtask-guest"]);
    }
    process::run(&mut build)
}

/// The program of a crate, and its packages' name.
fn program(package: &str) -> String {
    format!("flowvitals-{package}")
}

/// Lays out what is packed beside files of the source tree; the target directory that the tools see.
fn lay_out(profile: Profile) -> Result<PathBuf> {
    // The tools run in the crates' folders.
    let tree = std::path::absolute(profile.packages())?;
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let folder = tree.join("release");
    fs::create_dir_all(folder.join("bin"))?;
    process::run(Command::new(profile.folder().join("xtask-manual")).arg(&folder))?;
    // Without a time, so that the same source gives the same bytes.
    let pages = fs::read_dir(folder.join("man"))?;
    let pages: Vec<_> = pages.map(|page| Ok(page?.path())).collect::<Result<_>>()?;
    process::output(Command::new("gzip").args(["-9", "--no-name"]).args(pages))?;
    for package in CRATES {
        let program = program(package);
        let stripped = folder.join("bin").join(&program);
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&stripped);
        process::output(strip.arg(profile.folder().join(&program)))
            .with_context(|| format!("cannot strip {program}"))?;
    }
    Ok(tree)
}
