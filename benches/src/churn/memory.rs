//! Kernel memory of a process, by the memory controller: maps, socket storage, programs, and whatever else the kernel keeps for it.
//!
//! Both versions of the controller are known: `memory.kmem.usage_in_bytes` (version 1) and `kernel` of `memory.stat` (version 2,
//! Linux 5.18 on), see the kernel's admin guide, cgroup-v1/memory and cgroup-v2.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A cgroup of the memory controller; removed when dropped, once it is empty.
pub struct MemoryGroup {
    path: PathBuf,
    home: PathBuf,
}

impl MemoryGroup {
    /// Makes one below the hierarchy's root.
    pub fn new(name: &str) -> Result<Self> {
        let mount = mount().context("no memory controller is mounted")?;
        let home = mount
            .join(own(&mount).context("this process is in no cgroup of the memory controller")?);
        let path = mount.join(format!("flowvitals-bench-{}-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let group = Self { path, home };
        group.kernel_bytes()?;
        Ok(group)
    }

    /// Does `work` with the whole process in this cgroup; what it starts stays there.
    pub fn within<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        enter(&self.path)?;
        let outcome = work();
        enter(&self.home)?;
        outcome
    }

    /// What the kernel keeps for it.
    pub fn kernel_bytes(&self) -> Result<u64> {
        if let Ok(text) = fs::read_to_string(self.path.join("memory.kmem.usage_in_bytes")) {
            return Ok(text.trim().parse()?);
        }
        let stat = fs::read_to_string(self.path.join("memory.stat")).context("memory.stat")?;
        let kernel = stat.lines().find_map(|line| line.strip_prefix("kernel "));
        Ok(kernel.context("memory.stat has no `kernel`")?.parse()?)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // An error would only leave an empty folder behind.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Where the memory controller is: its own hierarchy (version 1), or the unified one if it is there.
fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let point = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, its_kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let fits = its_kind == kind && options.split(',').any(|one| one == option);
            fits.then(|| PathBuf::from(point))
        })
    };
    point("cgroup", "memory").or_else(|| {
        let unified = point("cgroup2", "rw")?;
        let enabled = fs::read_to_string(unified.join("cgroup.subtree_control")).ok()?;
        enabled
            .split_whitespace()
            .any(|one| one == "memory")
            .then_some(unified)
    })
}

/// Path of this process's cgroup below `mount`.
fn own(mount: &Path) -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let is_own_hierarchy = mount.join("memory.kmem.usage_in_bytes").exists();
    text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let fits = if is_own_hierarchy {
            controllers.split(',').any(|one| one == "memory")
        } else {
            controllers.is_empty()
        };
        fits.then(|| path.trim_start_matches('/').to_owned())
    })
}

fn enter(path: &Path) -> Result<()> {
    let file = path.join("cgroup.procs");
    fs::write(&file, "0").with_context(|| file.display().to_string())
}
