//! The files by which a machine describes itself, under a root that tests can replace.
//!
//! Input: `/proc`, `/sys`. Output: their text, trimmed. Limits: what cannot be read is `None`, never a guess.

use std::path::{Path, PathBuf};

/// A machine, seen through its `/proc` and `/sys`.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn this() -> Self {
        Self::under(Path::new("/"))
    }

    /// A machine whose `/proc` and `/sys` lie under `root`.
    pub fn under(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    /// The path of a file of this machine.
    pub fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    /// The trimmed text of a file.
    pub fn text(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.path(file))
            .ok()
            .map(|text| text.trim().to_owned())
    }

    /// Release of the kernel, and its first two numbers.
    pub fn kernel(&self) -> Option<(String, (u32, u32))> {
        let release = self.text("proc/sys/kernel/osrelease")?;
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let version = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some((release, version))
    }

    /// Where cgroup v2 is mounted.
    pub fn cgroup2(&self) -> Option<PathBuf> {
        let mounts = self.text("proc/self/mounts")?;
        let mount = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))?;
        Some(PathBuf::from(
            mount
                .get(1)?
                .replace("\\040", " ")
                .replace("\\011", "\t")
                .replace("\\134", "\\"),
        ))
    }

    /// Effective capabilities of this process, one bit each.
    pub fn effective_capabilities(&self) -> Option<u64> {
        let status = self.text("proc/self/status")?;
        let bits = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(bits.trim(), 16).ok()
    }
}
