//! Where cgroups are, and what the kernel calls them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Where the cgroup-v2 hierarchy is mounted, from the text of `/proc/self/mounts`.
pub fn cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path.replace("\\040", " ")))
    })
}

/// The kernel's id of a cgroup: the inode number of its directory.
pub fn cgroup_id(mount: &Path, path: &str) -> Option<u64> {
    let directory = mount.join(path.trim_start_matches('/'));
    let found = fs::metadata(directory).ok()?;
    found.is_dir().then(|| found.ino())
}

/// Where it is mounted on this machine.
pub fn mount() -> Option<PathBuf> {
    cgroup2_mount(&fs::read_to_string("/proc/self/mounts").ok()?)
}
