//! Packages of other Debian releases than this machine's, by apt with a configuration of its own: nothing of the system's is
//! changed, and nothing is installed.
//!
//! In: a folder to work in, and the mirrors that apt uses here. Out: releases of kernels, and unpacked packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use lab::command;

/// Suites that hold the kernels, and whether they have security updates.
const SUITES: [(&str, bool); 5] = [
    ("bullseye", true),
    ("bookworm", true),
    ("trixie", true),
    ("trixie-backports", false),
    ("sid", false),
];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Debian's kernel for virtual machines: small, and with all that we need.
const FLAVOUR: &str = "-cloud-amd64";

/// apt, with lists below a folder.
pub struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Writes the sources; the folder is made.
    pub fn new(folder: &Path) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let folder = folder.canonicalize()?;
        let used = command::run(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
        ]))?;
        fs::write(folder.join("sources.list"), sources(&used)?)?;
        Ok(Self { folder })
    }

    /// Fetches the lists. A suite that is gone is no error yet: apt's words are what it said of it.
    pub fn update(&self) -> Option<String> {
        let updated = command::run(self.command("apt-get").args(["--quiet=2", "update"]));
        updated.err().map(|error| error.to_string())
    }

    /// Releases of all cloud kernels, without their flavour.
    pub fn kernels(&self) -> Result<Vec<String>> {
        let pattern = format!("^linux-(image|binary)-[0-9].*{FLAVOUR}$");
        let mut search = self.command("apt-cache");
        let found = command::run(search.args(["search", "--names-only", &pattern]))?;
        let mut releases: Vec<_> = found
            .lines()
            .filter_map(|line| line.split(' ').next()?.strip_suffix(FLAVOUR))
            .filter_map(|name| {
                let image = name.strip_prefix("linux-image-");
                image.or_else(|| name.strip_prefix("linux-binary-"))
            })
            .map(str::to_owned)
            .collect();
        releases.sort();
        releases.dedup();
        Ok(releases)
    }

    /// Unpacks a kernel and its modules.
    pub fn unpack_kernel(&self, release: &str, into: &Path) -> Result<()> {
        let package = |part: &str| format!("linux-{part}-{release}{FLAVOUR}");
        // From 6.19 on the image is split, and the package of the old name depends on its parts.
        let parts = ["binary", "modules"].map(package);
        let mut show = self.command("apt-cache");
        let split = command::run(show.args(["show", &parts[0]])).is_ok();
        let wanted = match split {
            true => parts.to_vec(),
            false => vec![package("image")],
        };
        fs::create_dir_all(into)?;
        let mut download = self.command("apt-get");
        download.args(["--quiet=2", "download"]).args(&wanted);
        command::run(download.current_dir(into))?;
        for file in fs::read_dir(into)? {
            let file = file?.path();
            if file.extension().is_some_and(|e| e == "deb") {
                command::run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(into))?;
                fs::remove_file(&file)?;
            }
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let of_ours = |name: &str| self.folder.join(name).display().to_string();
        for option in [
            format!("Dir::Etc::SourceList={}", of_ours("sources.list")),
            format!("Dir::State::Lists={}", of_ours("lists")),
            format!("Dir::Cache={}", of_ours("cache")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::Preferences=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            // The folder may be where apt's own user cannot look.
            "APT::Sandbox::User=root".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }
}

/// The sources, from the places that apt uses here.
fn sources(used: &str) -> Result<String> {
    let mirror = |name: &str| {
        let ends = |uri: &&str| uri.trim_end_matches('/').ends_with(name);
        used.lines().find(ends).map(|uri| uri.trim_end_matches('/'))
    };
    let Some(main) = mirror("/debian") else {
        bail!("apt uses no Debian mirror here (none of its sources ends in /debian)");
    };
    if !Path::new(KEYRING).exists() {
        bail!("{KEYRING} is missing: install debian-archive-keyring");
    }
    let mut lines = Vec::new();
    for (suite, secured) in SUITES {
        lines.push(format!("deb [signed-by={KEYRING}] {main} {suite} main"));
        if let Some(security) = mirror("/debian-security").filter(|_| secured) {
            let suite = format!("{suite}-security");
            lines.push(format!("deb [signed-by={KEYRING}] {security} {suite} main"));
        }
    }
    Ok(lines.join("\n") + "\n")
}
