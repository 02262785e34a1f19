//! Iterator links: each read of one runs its program over every socket.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd},
};

use super::sys::bpf;

/// `BPF_ITER_CREATE` of bpf(2).
const ITER_CREATE: libc::c_long = 33;

/// `struct { } iter_create` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// Runs the program of an iterator link over everything there is, and appends what it wrote.
///
/// # Errors
/// What bpf(2) or read(2) answer.
pub fn run(link: impl AsFd, output: &mut Vec<u8>) -> io::Result<()> {
    let attr = IterCreate {
        link_fd: link.as_fd().as_raw_fd() as u32,
        flags: 0,
    };
    let mut file = File::from(bpf(ITER_CREATE, &attr)?);
    file.read_to_end(output)?;
    Ok(())
}
