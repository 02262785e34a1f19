//! A sock_ops program of somebody else: it asks for callbacks of its own, and counts them.
//!
//! Written in instructions, so that it needs no compiler and shares no code with ours. It minds
//! one local port only, and so disturbs nothing else on the machine.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use sampler::kernel::cgroup;

/// Commands of bpf(2).
const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;

const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_SOCK_OPS: u32 = 13;
const CGROUP_SOCK_OPS: u32 = 3;

/// `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB` and `BPF_SOCK_OPS_PARSE_HDR_OPT_CB`.
const PASSIVE_ESTABLISHED: u32 = 5;
const PARSE_HDR_OPT: u32 = 13;
/// `BPF_SOCK_OPS_RTT_CB`, which it never asks for.
const RTT: u32 = 12;
/// More than there are callbacks.
const OPS: u32 = 32;
/// `BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG`: a callback for every segment that comes in. We
/// never ask for it.
const PARSE_ALL: i32 = 1 << 4;

/// What it does with the flags that are there when it asks for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// Keeps them.
    Polite,
    /// Drops them.
    Rude,
}

/// Its program, attached until dropped.
pub struct Foreign {
    counts: OwnedFd,
    // Closing the link detaches.
    _link: OwnedFd,
}

/// Members of `union bpf_attr` by command, as far as they are used.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
struct MapLookup {
    map_fd: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is a prefix of `union bpf_attr`, its true size goes with it, and what it
    // points to outlives the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer as i32)
}

fn new_fd<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Operation codes: class, size or operand, mode or operation.
mod code {
    pub const LOAD_64: u8 = 0x18;
    pub const LOAD_WORD: u8 = 0x61;
    pub const STORE_WORD: u8 = 0x63;
    pub const ATOMIC_ADD: u8 = 0xdb;
    pub const MOVE: u8 = 0xbf;
    pub const MOVE_NUMBER: u8 = 0xb7;
    pub const ADD_NUMBER: u8 = 0x07;
    pub const OR_NUMBER: u8 = 0x47;
    pub const IF_EQUAL: u8 = 0x15;
    pub const IF_UNEQUAL: u8 = 0x55;
    pub const CALL: u8 = 0x85;
    pub const EXIT: u8 = 0x95;
    /// The source register of a `LOAD_64` whose number is a map's descriptor.
    pub const PSEUDO_MAP_FD: u8 = 1;
    /// Helpers.
    pub const MAP_LOOKUP: i32 = 1;
    pub const CB_FLAGS_SET: i32 = 59;
}

const fn insn(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Insn {
    Insn {
        code,
        registers: from << 4 | to,
        offset,
        immediate,
    }
}

/// Counts callbacks of flows to `port` by their number; at establishment asks for its own.
fn program(port: u16, manners: Manners, counts: i32) -> Vec<Insn> {
    use code::*;
    /// Fields of `struct bpf_sock_ops`.
    const OP: i16 = 0;
    const LOCAL_PORT: i16 = 68;
    const CB_FLAGS: i16 = 84;
    let established = PASSIVE_ESTABLISHED as i32;
    // What is kept of the flags that are there.
    let flags = match manners {
        Manners::Polite => insn(LOAD_WORD, 2, 6, CB_FLAGS, 0),
        Manners::Rude => insn(MOVE_NUMBER, 2, 0, 0, 0),
    };
    vec![
        insn(MOVE, 6, 1, 0, 0),
        insn(LOAD_WORD, 7, 6, OP, 0),
        insn(LOAD_WORD, 2, 6, LOCAL_PORT, 0),
        insn(IF_UNEQUAL, 2, 0, 14, port.into()), // to the end
        insn(STORE_WORD, 10, 7, -4, 0),
        insn(LOAD_64, 1, PSEUDO_MAP_FD, 0, counts),
        insn(0, 0, 0, 0, 0), // the upper half of the number
        insn(MOVE, 2, 10, 0, 0),
        insn(ADD_NUMBER, 2, 0, 0, -4),
        insn(CALL, 0, 0, 0, MAP_LOOKUP),
        insn(IF_EQUAL, 0, 0, 2, 0), // over the count
        insn(MOVE_NUMBER, 1, 0, 0, 1),
        insn(ATOMIC_ADD, 0, 1, 0, 0),
        insn(IF_UNEQUAL, 7, 0, 4, established), // to the end
        flags,
        insn(OR_NUMBER, 2, 0, 0, PARSE_ALL),
        insn(MOVE, 1, 6, 0, 0),
        insn(CALL, 0, 0, 0, CB_FLAGS_SET),
        insn(MOVE_NUMBER, 0, 0, 0, 1),
        insn(EXIT, 0, 0, 0, 0),
    ]
}

fn try_attach(port: u16, manners: Manners) -> io::Result<Foreign> {
    let counts = new_fd(
        MAP_CREATE,
        &MapCreate {
            map_type: MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: 8,
            max_entries: OPS,
        },
    )?;
    let insns = program(port, manners, counts.as_raw_fd());
    let program = new_fd(
        PROG_LOAD,
        &ProgLoad {
            prog_type: PROG_TYPE_SOCK_OPS,
            insn_cnt: insns.len() as u32,
            insns: insns.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
        },
    )?;
    // Beside ours, in the order of the attaches. A link always lets others in.
    let root = File::open(cgroup::mount().ok_or(io::ErrorKind::NotFound)?)?;
    let link = new_fd(
        LINK_CREATE,
        &LinkCreate {
            prog_fd: program.as_raw_fd() as u32,
            target_fd: root.as_raw_fd() as u32,
            attach_type: CGROUP_SOCK_OPS,
            flags: 0,
        },
    )?;
    Ok(Foreign {
        counts,
        _link: link,
    })
}

impl Foreign {
    /// Attaches it at the root of all cgroups, behind those that are there.
    pub fn attach(port: u16, manners: Manners) -> Self {
        try_attach(port, manners).expect("somebody else's program")
    }

    /// Flows that it saw come to be.
    pub fn established(&self) -> u64 {
        self.count(PASSIVE_ESTABLISHED)
    }

    /// Callbacks that it asked for.
    pub fn callbacks(&self) -> u64 {
        self.count(PARSE_HDR_OPT)
    }

    /// Callbacks that it did not ask for: samples of the round trip.
    pub fn rtt_samples(&self) -> u64 {
        self.count(RTT)
    }

    fn count(&self, op: u32) -> u64 {
        let mut value = 0u64;
        let lookup = MapLookup {
            map_fd: self.counts.as_raw_fd() as u32,
            key: std::ptr::from_ref(&op) as u64,
            value: std::ptr::from_mut(&mut value) as u64,
            flags: 0,
        };
        bpf(MAP_LOOKUP_ELEM, &lookup).expect("a count");
        value
    }
}
