//! Which modules of a kernel guests need, and those that these need. Pure but for reading them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::command;

/// What a guest is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Checks of our own, with a link between two namespaces, and its delay and loss.
    Checks,
    /// A whole Debian on a disk, with a network, and a port for orders.
    Debian,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Checks, Self::Debian];

    /// Its folder's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checks => "checks",
            Self::Debian => "debian",
        }
    }

    const fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Checks => &["veth", "sch_netem"],
            // ext4 asks for its checksum by the name of an algorithm, not of a module.
            Self::Debian => &[
                "crc32c_generic",
                "ext4",
                "virtio_pci",
                "virtio_blk",
                "virtio_net",
                "virtio_console",
            ],
        }
    }
}

/// Copies what a purpose needs of an unpacked kernel's files, plain and named in the order in which they are loaded. What is not there
/// as a file is in the image.
pub fn gather(files: &[PathBuf], purpose: Purpose, into: &Path) -> Result<()> {
    let mut there = BTreeMap::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if let Some(name) = name.trim_end_matches(".xz").strip_suffix(".ko") {
            there.insert(name.replace('-', "_"), file);
        }
    }
    fs::create_dir_all(into)?;
    let mut loaded = Vec::new();
    for module in purpose.modules() {
        load(module, &there, into, &mut loaded)?;
    }
    ensure!(!loaded.is_empty(), "none of the modules is in the packages");
    Ok(())
}

/// Those that it needs come before it.
fn load(
    module: &str,
    there: &BTreeMap<String, &PathBuf>,
    into: &Path,
    loaded: &mut Vec<String>,
) -> Result<()> {
    let Some(file) = there.get(module) else {
        return Ok(());
    };
    if loaded.iter().any(|name| name == module) {
        return Ok(());
    }
    let plain = into.join(format!("{module}.ko"));
    match file.extension().is_some_and(|e| e == "xz") {
        // Compressed from 6.12 on; the guest has no use for that.
        true => {
            let script = "xz --decompress --stdout \"$1\" > \"$2\"";
            let mut unpack = Command::new("sh");
            command::run(unpack.args(["-c", script, "sh"]).arg(file).arg(&plain))?;
        }
        false => {
            fs::copy(file, &plain).with_context(|| file.display().to_string())?;
        }
    }
    for needed in needed(&fs::read(&plain)?) {
        load(&needed, there, into, loaded)?;
    }
    let number = loaded.len();
    fs::rename(&plain, into.join(format!("{number:02}-{module}.ko")))?;
    loaded.push(module.to_owned());
    Ok(())
}

/// The modules that a module's file says it needs.
fn needed(module: &[u8]) -> Vec<String> {
    let entries = module.split(|byte| *byte == 0);
    let mut lists = entries.filter_map(|entry| entry.strip_prefix(b"depends="));
    let list = String::from_utf8_lossy(lists.next().unwrap_or_default()).into_owned();
    let names = list.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        let file = b"\x7fELF\0license=GPL\0depends=mbcache,jbd2,crc-16\0retpoline=Y\0";
        assert_eq!(needed(file), ["mbcache", "jbd2", "crc_16"]);
        assert!(needed(b"license=GPL\0depends=\0").is_empty());
        assert!(needed(b"nothing").is_empty());
    }
}
