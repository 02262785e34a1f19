//! Three capabilities, a user of its own and the unit's bound on locked memory are enough.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::libc;

use crate::{refused, sampler};

/// CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF.
const CAPABILITIES: [u32; 3] = [12, 38, 39];
/// Anybody but root.
const USER: u32 = 1000;
/// LimitMEMLOCK= of the unit, bytes.
const LOCKED: u64 = 512 << 20;
/// What a login shell has.
const TOO_LITTLE: u64 = 64 << 10;
/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// What `doctor` finds as the unit would run it; `counts`: locked memory is bounded on this kernel.
pub fn run(counts: bool) -> Result<String> {
    let (code, said) = doctor(LOCKED)?;
    ensure!(code == 0, "exit status {code}: {said}");
    let (code, said) = doctor(TOO_LITTLE)?;
    refused::no_dump(&said)?;
    let expected = if counts { 77 } else { 0 };
    ensure!(
        code == expected,
        "with {TOO_LITTLE} bytes: exit status {code}, not {expected}: {said}"
    );
    Ok(format!(
        "loads with three capabilities; with {TOO_LITTLE} bytes of locked memory: exit status {code}"
    ))
}

fn doctor(locked: u64) -> Result<(i32, String)> {
    let mut doctor = Command::new(sampler::PROGRAM);
    doctor.arg("doctor");
    // SAFETY: system calls alone, each safe after a fork.
    unsafe { doctor.pre_exec(move || become_service(locked)) };
    let output = doctor.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.code().context("it was killed")?, said))
}

/// As systemd does it for `User=`, `AmbientCapabilities=` and `LimitMEMLOCK=`.
fn become_service(locked: u64) -> std::io::Result<()> {
    let done = |answer: i64| match answer {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    let limit = libc::rlimit {
        rlim_cur: locked,
        rlim_max: locked,
    };
    let all = CAPABILITIES.iter().fold(0_u64, |all, bit| all | 1 << bit);
    let (low, high) = (all as u32, (all >> 32) as u32);
    let header = [VERSION, 0];
    // Effective, permitted, inheritable; twice.
    let sets = [low, low, low, high, high, high];
    // SAFETY: pointers to values that live as long as the calls.
    unsafe {
        done(libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit).into())?;
        done(libc::prctl(libc::PR_SET_KEEPCAPS, 1).into())?;
        done(libc::setresgid(USER, USER, USER).into())?;
        done(libc::setresuid(USER, USER, USER).into())?;
        done(libc::syscall(
            libc::SYS_capset,
            header.as_ptr(),
            sets.as_ptr(),
        ))?;
        for bit in CAPABILITIES {
            let raise = libc::PR_CAP_AMBIENT_RAISE;
            done(libc::prctl(libc::PR_CAP_AMBIENT, raise, bit, 0, 0).into())?;
        }
    }
    Ok(())
}
