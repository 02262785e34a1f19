//! Cgroups of this bench. A socket belongs to the cgroup its process was in when it was made, and
//! accepted connections to that of their listener: so one process can have servers in one cgroup
//! and clients in another, and a program attached to the first sees the server's ends alone.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const PREFIX: &str = "flowvitals-bench-";

/// A cgroup; removed when dropped.
pub struct Cgroup {
    mount: PathBuf,
    path: PathBuf,
    /// Of a version 1 hierarchy; empty for version 2, as in `/proc/self/cgroup`.
    controller: &'static str,
}

impl Cgroup {
    /// Makes one at the root of version 2.
    pub fn new(name: &str) -> Result<Self> {
        let mount = sampler::kernel::cgroup::mount().context("no cgroup v2 file system")?;
        Self::below(mount, "", name)
    }

    /// Makes one at the root of the hierarchy of a controller; empty: of version 2.
    pub fn below(mount: PathBuf, controller: &'static str, name: &str) -> Result<Self> {
        remove_orphans(&mount);
        let path = mount.join(format!("{PREFIX}{}-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self {
            mount,
            path,
            controller,
        })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the whole hierarchy is.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Does `work` with the whole process in this cgroup.
    pub fn within<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let home = self.home()?;
        enter(&self.path)?;
        let outcome = work();
        enter(&home)?;
        outcome
    }

    /// Where this process is in the same hierarchy.
    fn home(&self) -> Result<PathBuf> {
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let path = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
            let is_it = controllers.split(',').any(|one| one == self.controller);
            is_it.then_some(path)
        });
        Ok(self
            .mount
            .join(path.context("this process is in no such cgroup")?))
    }
}

/// Removes those of benches that were killed.
fn remove_orphans(mount: &Path) {
    let Ok(entries) = fs::read_dir(mount) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|n| n.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // One that still has something in it stays.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn enter(path: &Path) -> Result<()> {
    let file = path.join("cgroup.procs");
    fs::write(&file, "0").with_context(|| file.display().to_string())
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Empty, since `within` leaves it; an error would only leave an empty folder behind.
        let _ = fs::remove_dir(&self.path);
    }
}
