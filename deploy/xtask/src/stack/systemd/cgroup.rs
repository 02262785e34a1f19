//! Control groups of our own: for the machine, where systemd does not run on this one and so gives out none, and for memory that is
//! short.
//!
//! Named after the process: what a killed one left behind is removed by the next.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "flowvitals-machine-";
/// Where hierarchies may be that systemd looks at: of both versions side by side, or of version 2 alone.
const MIXED: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
const ALONE: &str = "/sys/fs/cgroup";
/// Where version 1 counts memory. What version 2 has of it is systemd's to give out, here or in the machine.
const MEMORY: &str = "/sys/fs/cgroup/memory";

/// The group in each hierarchy; removed when dropped.
pub struct Group {
    folders: Vec<PathBuf>,
}

impl Group {
    /// Makes it.
    pub fn new() -> io::Result<Self> {
        let mut hierarchies: Vec<_> = MIXED.map(Path::new).into_iter().collect();
        hierarchies.retain(|folder| folder.is_dir());
        if hierarchies.is_empty() {
            hierarchies.push(Path::new(ALONE));
        }
        Self::below(&hierarchies)
    }

    /// Makes one that counts memory; nothing where version 1 does not.
    pub fn of_memory() -> io::Result<Option<Self>> {
        let hierarchy = Path::new(MEMORY);
        match hierarchy.join("memory.limit_in_bytes").is_file() {
            true => Self::below(&[hierarchy]).map(Some),
            false => Ok(None),
        }
    }

    fn below(hierarchies: &[&Path]) -> io::Result<Self> {
        let mut group = Self {
            folders: Vec::new(),
        };
        for hierarchy in hierarchies {
            remove_orphans(hierarchy)?;
            let folder = hierarchy.join(format!("{PREFIX}{}", std::process::id()));
            fs::create_dir(&folder)?;
            group.folders.push(folder);
        }
        Ok(group)
    }

    /// Its folders.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The files that take the id of a process which is to belong to it.
    pub fn members(&self) -> impl Iterator<Item = PathBuf> {
        self.folders
            .iter()
            .map(|folder| folder.join("cgroup.procs"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            // What has members still is removed by the next run.
            let _ = remove(folder);
        }
    }
}

/// Removes groups below and then the group itself: only empty ones can be.
fn remove(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

fn remove_orphans(hierarchy: &Path) -> io::Result<()> {
    for entry in fs::read_dir(hierarchy)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if !Path::new("/proc").join(owner).exists() {
            // Its machine may be ending at this moment.
            let _ = remove(&entry.path());
        }
    }
    Ok(())
}
