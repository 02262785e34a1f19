//! The way from the initramfs to a Debian with systemd: its disks, its network, and the agent beside it.
//!
//! Nothing is written to the root's disk but mount points: our own program and the units that go with it are in `/run`, which is handed
//! on. The network is QEMU's own (slirp): the addresses are always the same.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{clock, command};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::machine;

/// On the kernel's command line.
const WORD: &str = "flowvitals.root";
/// The root, and packages to install.
const DISKS: [(&str, &str, MsFlags); 2] = [
    ("/dev/vda", "/root", MsFlags::empty()),
    ("/dev/vdb", "/root/packages", MsFlags::MS_RDONLY),
];
/// How long a disk may take to be seen.
const SEEN: Duration = Duration::from_secs(30);
/// Handed on to the root; what else is mounted here is its own to mount.
const KEPT: [&str; 2] = ["/dev", "/run"];
const LEFT: [&str; 2] = ["/proc", "/sys"];
/// Our own program, where the machine sees it.
const PROGRAM: &str = "/run/flowvitals-guest/guest";
const UNIT: &str = "/run/systemd/system/flowvitals-guest.service";
/// It is there until the machine is off, so that it can answer whoever told it to switch that off.
const AGENT: &str = "[Unit]\nDescription=What the host orders\nDefaultDependencies=no\n\
    [Service]\nExecStart=/run/flowvitals-guest/guest agent\nEnvironment=HOME=/root\n";

/// Whether the kernel's command line asks for a root.
pub fn is_asked_for(command_line: &str) -> bool {
    command_line.split_whitespace().any(|word| word == WORD)
}

/// Becomes the root's init.
pub fn switch() -> Result<Infallible> {
    machine::load_modules()?;
    for (disk, place, flags) in DISKS {
        let seen = clock::wait_until(SEEN, || Path::new(disk).exists());
        ensure!(seen, "no disk {disk}");
        fs::create_dir_all(place)?;
        mount(Some(disk), place, Some("ext4"), flags, None::<&str>)
            .with_context(|| format!("cannot mount {disk}"))?;
    }
    for arguments in ["addr add 10.0.2.15/24 dev eth0", "link set eth0 up"] {
        command::ip(arguments)?;
    }
    fs::create_dir_all(Path::new(PROGRAM).parent().unwrap_or(Path::new("/run")))?;
    fs::copy("/proc/self/exe", PROGRAM)?;
    fs::set_permissions(PROGRAM, fs::Permissions::from_mode(0o755))?;
    fs::create_dir_all(Path::new(UNIT).parent().unwrap_or(Path::new("/run")))?;
    fs::write(UNIT, AGENT)?;
    // As systemd would have mounted it.
    fs::set_permissions("/run", fs::Permissions::from_mode(0o755))?;
    for place in LEFT {
        umount2(place, MntFlags::MNT_DETACH).context(place)?;
    }
    let moved = |from: &str, to: &str| {
        mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("cannot move {from} to {to}"))
    };
    for place in KEPT {
        moved(place, &format!("/root{place}"))?;
    }
    std::env::set_current_dir("/root")?;
    moved(".", "/")?;
    nix::unistd::chroot(".")?;
    std::env::set_current_dir("/")?;
    Err(Command::new("/sbin/init").exec()).context("/sbin/init")
}
