//! Iterator links: each read of one runs its program over every socket.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// `BPF_LINK_CREATE` and `BPF_ITER_CREATE` of bpf(2).
const LINK_CREATE: libc::c_long = 28;
const ITER_CREATE: libc::c_long = 33;
/// `BPF_TRACE_ITER`
const TRACE_ITER: u32 = 28;

/// `struct { } link_create` of `union bpf_attr`, its iterator part.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    reserved: u32,
}

/// `struct { } iter_create` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// bpf(2) for a command that makes a descriptor; `attr` is the command's part of `union bpf_attr`.
///
/// # Errors
/// What bpf(2) answers.
pub fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` and its true size goes with it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// An attached iterator program.
pub struct Iterator {
    link: OwnedFd,
}

impl Iterator {
    /// Attaches a loaded program; `map`: the map that it walks, if it walks one.
    ///
    /// # Errors
    /// What bpf(2) answers.
    pub fn attach(program: impl AsFd, map: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        // `union bpf_iter_link_info`, whose map part is one descriptor.
        let info = map.map(|map| [map.as_raw_fd() as u32, 0, 0, 0]);
        let attr = LinkCreate {
            prog_fd: program.as_fd().as_raw_fd() as u32,
            attach_type: TRACE_ITER,
            iter_info: info.as_ref().map_or(0, |info| info.as_ptr() as u64),
            iter_info_len: info.as_ref().map_or(0, |_| 4),
            ..LinkCreate::default()
        };
        Ok(Self {
            link: bpf(LINK_CREATE, &attr)?,
        })
    }

    /// Runs the program over everything there is, and appends what it wrote.
    ///
    /// # Errors
    /// What bpf(2) or read(2) answer.
    pub fn run(&self, output: &mut Vec<u8>) -> io::Result<()> {
        let attr = IterCreate {
            link_fd: self.link.as_raw_fd() as u32,
            flags: 0,
        };
        let mut file = File::from(bpf(ITER_CREATE, &attr)?);
        file.read_to_end(output)?;
        Ok(())
    }
}
