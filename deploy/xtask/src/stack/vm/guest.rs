//! One guest: booted by QEMU without help of a hypervisor (TCG), read until it ends, and never for longer than [`LIMIT`]. Its times
//! are those of its own clock, which runs slower or faster than ours.
//!
//! Its console goes to a file, its lines ([`Line`]) to another, both below `target/vm-test/guests`.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::clock;
use lab::guest::{Line, Outcome};

use super::kernels::Kernel;
use crate::{interrupt, paths};

/// A guest takes about 40 s; a loaded machine may need several minutes.
const LIMIT: Duration = Duration::from_secs(600);
const MEMORY_MIB: u32 = 384;
/// Lines of the console that are shown of a guest that went wrong.
const TAIL: usize = 30;

/// Boots it and hands on what it says; whether it came to its end.
pub fn run(
    kernel: &Kernel,
    initramfs: &Path,
    mut heard: impl FnMut(&Line),
) -> Result<Vec<Outcome>> {
    let folder = paths::target().join("vm-test/guests");
    fs::create_dir_all(&folder)?;
    let file = |kind: &str| folder.join(format!("{}.{kind}", kernel.series.name));
    let (console, lines) = (file("console"), file("lines"));
    fs::write(&lines, "")?;
    let mut guest = Guest(boot(kernel, initramfs, &console, &lines)?);
    let mut outcomes = Vec::new();
    let (mut read, mut complete, mut ended) = (0, false, false);
    clock::wait_until(LIMIT, || {
        // Looked at before its lines, so that the last ones are not missed.
        ended = guest.0.try_wait().is_ok_and(|status| status.is_some());
        let text = fs::read_to_string(&lines).unwrap_or_default();
        while let Some(length) = text.get(read..).and_then(|rest| rest.find('\n')) {
            let line = Line::parse(&text[read..read + length]);
            read += length + 1;
            line.iter().for_each(&mut heard);
            match line {
                Some(Line::Over(outcome)) => outcomes.push(outcome),
                Some(Line::End) => complete = true,
                Some(Line::Begins(_)) | None => {}
            }
        }
        ended || interrupt::came()
    });
    drop(guest);
    ensure!(!interrupt::came(), "interrupted");
    if !complete {
        let how = match ended {
            true => "ended before its checks did".to_owned(),
            false => format!("did not end in {} s", LIMIT.as_secs()),
        };
        bail!(
            "the guest {how}; the last of its console:\n{}",
            tail(&console)
        );
    }
    Ok(outcomes)
}

/// A running QEMU; ended by force when dropped.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn boot(kernel: &Kernel, initramfs: &Path, console: &Path, lines: &Path) -> Result<Child> {
    let append = format!(
        "console=ttyS0 quiet panic=-1 no_timer_check {}",
        kernel.series.expected
    );
    let serial = |path: &Path| format!("file:{}", path.display());
    // It never outlives us. Ctrl-C is for us alone.
    let mut qemu = Command::new("setpriv");
    qemu.process_group(0);
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "1"]);
    // Its clock counts its instructions, a nanosecond each, and skips idle time: what it measures does not depend on what else
    // this machine does.
    qemu.args(["-icount", "shift=0,sleep=off", "-rtc", "clock=vm"]);
    qemu.args(["-m", &MEMORY_MIB.to_string()]);
    qemu.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    qemu.args(["-serial", &serial(console), "-serial", &serial(lines)]);
    qemu.arg("-kernel").arg(kernel.image());
    qemu.arg("-initrd").arg(initramfs);
    qemu.args(["-append", &append]);
    qemu.stdin(Stdio::null()).stdout(Stdio::null());
    qemu.spawn().context("cannot start QEMU")
}

/// The end of a console.
pub fn tail(console: &Path) -> String {
    let bytes = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().map(|line| format!("  | {line}")).collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
