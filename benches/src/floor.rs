//! An empty sock_ops program: what measuring and the call itself cost.
//!
//! The kernel reads its clock before and after each program it measures, inside the time that it
//! reports. An empty program attached beside ours runs as often, for the same events: what is
//! reported for it is not ours.

use std::{
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result};
use sampler::kernel::{probe::program_cost, sys::bpf};

/// `BPF_PROG_LOAD` and `BPF_LINK_CREATE` of bpf(2).
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const PROG_TYPE_SOCK_OPS: u32 = 13;
const CGROUP_SOCK_OPS: u32 = 3;

/// `r0 = 1; exit`, as eight-byte instructions of this machine's byte order.
const RETURN_1: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// The part of `union bpf_attr` for loading, up to the attach type.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The part for links to a cgroup.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// The loaded program, attached to some cgroup.
pub struct Floor {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Floor {
    /// Loads and attaches it. Attach ours first: what runs second finds warm caches, so the floor
    /// is rather too low than too high.
    pub fn attach(cgroup: &Path) -> Result<Self> {
        let attr = ProgLoad {
            prog_type: PROG_TYPE_SOCK_OPS,
            insn_cnt: RETURN_1.len() as u32,
            insns: RETURN_1.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            prog_name: *b"flowvitals_base\0",
            expected_attach_type: CGROUP_SOCK_OPS,
            ..ProgLoad::default()
        };
        let program = bpf(PROG_LOAD, &attr).context("the empty program")?;
        let directory = File::open(cgroup)?;
        let attr = LinkCreate {
            prog_fd: program.as_raw_fd() as u32,
            target_fd: directory.as_raw_fd() as u32,
            attach_type: CGROUP_SOCK_OPS,
            flags: 0,
        };
        let link = bpf(LINK_CREATE, &attr).context("the empty program's link")?;
        Ok(Self {
            program,
            _link: link,
        })
    }

    /// Run time in ns and runs.
    pub fn cost(&self) -> (u64, u64) {
        program_cost(&self.program).unwrap_or_default()
    }
}
