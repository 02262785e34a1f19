//! The machine itself: file systems, modules, the switch.

use std::fs::{self, File};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::libc;
use nix::mount::{MsFlags, mount};

/// What is mounted where.
const MOUNTS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Mounts what programs expect.
pub fn mount_all() -> Result<()> {
    for (kind, place) in MOUNTS {
        mount(
            Some(kind),
            place,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("cannot mount {kind} at {place}"))?;
    }
    Ok(())
}

/// Loads the modules that lie there for this kernel.
pub fn load_modules() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let release = release.trim().trim_end_matches("-cloud-amd64");
    let folder = format!("/modules/{release}");
    let entries = fs::read_dir(&folder).with_context(|| folder.clone())?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    for path in files {
        let file = File::open(&path)?;
        // SAFETY: an open descriptor, a string that ends, and no flags.
        let answer =
            unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
        if answer != 0 {
            let error = std::io::Error::last_os_error();
            return Err(error).with_context(|| format!("cannot load {}", path.display()));
        }
    }
    Ok(())
}

/// Ends the machine: QEMU takes a restart for the end.
pub fn off() {
    // SAFETY: neither call touches memory of ours; what is on no disk cannot be lost.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_AUTOBOOT);
    }
}
