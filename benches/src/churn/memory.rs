//! Kernel memory of a process, by the memory controller: maps, socket storage, programs, and whatever else the kernel keeps for it.
//!
//! Both versions of the controller are known: `memory.kmem.usage_in_bytes` (version 1) and `kernel` of `memory.stat` (version 2,
//! Linux 5.18 on), see the kernel's admin guide, cgroup-v1/memory and cgroup-v2.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cgroup::Cgroup;

const CONTROLLER: &str = "memory";

/// A cgroup of the memory controller.
pub struct MemoryGroup(Cgroup);

impl MemoryGroup {
    /// Makes one below the hierarchy's root.
    pub fn new(name: &str) -> Result<Self> {
        let (mount, controller) = mount().context("no memory controller is mounted")?;
        let group = Self(Cgroup::below(mount, controller, name)?);
        group.kernel_bytes()?;
        Ok(group)
    }

    /// Does `work` with the whole process in this cgroup; what it starts stays there.
    pub fn within<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.0.within(work)
    }

    /// What the kernel keeps for it.
    pub fn kernel_bytes(&self) -> Result<u64> {
        if let Ok(text) = fs::read_to_string(self.0.path().join("memory.kmem.usage_in_bytes")) {
            return Ok(text.trim().parse()?);
        }
        let stat = fs::read_to_string(self.0.path().join("memory.stat")).context("memory.stat")?;
        let kernel = stat.lines().find_map(|line| line.strip_prefix("kernel "));
        Ok(kernel.context("memory.stat has no `kernel`")?.parse()?)
    }
}

/// Where the memory controller is, and the name of its hierarchy: its own (version 1), or the unified one if it is there.
fn mount() -> Option<(PathBuf, &'static str)> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let point = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, its_kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let fits = its_kind == kind && options.split(',').any(|one| one == option);
            fits.then(|| PathBuf::from(point))
        })
    };
    let own = point("cgroup", CONTROLLER).map(|mount| (mount, CONTROLLER));
    own.or_else(|| {
        let unified = point("cgroup2", "rw")?;
        let enabled = fs::read_to_string(unified.join("cgroup.subtree_control")).ok()?;
        enabled
            .split_whitespace()
            .any(|one| one == CONTROLLER)
            .then_some((unified, ""))
    })
}
