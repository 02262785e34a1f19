//! bpf(2), for the few commands that aya has no word for.
//!
//! Input and output: descriptors. Layouts are those of `union bpf_attr` and of the info structures in `linux/bpf.h`.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

/// Commands.
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;
const LINK_DETACH: libc::c_long = 34;

/// `BPF_CGROUP_SOCK_OPS` and `BPF_TRACE_ITER`.
const CGROUP_SOCK_OPS: u32 = 3;
const TRACE_ITER: u32 = 28;
/// `BPF_LINK_TYPE_CGROUP`.
const LINK_TYPE_CGROUP: u32 = 3;

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

/// `struct { } info` of `union bpf_attr`.
#[repr(C)]
struct InfoByFd {
    fd: u32,
    length: u32,
    info: u64,
}

/// Head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    map_type: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    name: [u8; 16],
}

/// Head of `struct bpf_link_info`, its part for cgroups.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    link_type: u32,
    id: u32,
    prog_id: u32,
    reserved: u32,
    cgroup_id: u64,
    attach_type: u32,
    reserved2: u32,
}

fn call<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` and its true size goes with it.
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

/// bpf(2) for a command that makes a descriptor; `attr` is the command's part of `union bpf_attr`.
///
/// # Errors
/// What bpf(2) answers.
pub fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a sock_ops program to a cgroup, beside those that are there. Closing the last descriptor of the link detaches it.
///
/// # Errors
/// What bpf(2) answers.
pub fn attach_to_cgroup(program: impl AsFd, cgroup: impl AsFd) -> io::Result<OwnedFd> {
    let attr = LinkCreate {
        prog_fd: program.as_fd().as_raw_fd() as u32,
        target_fd: cgroup.as_fd().as_raw_fd() as u32,
        attach_type: CGROUP_SOCK_OPS,
        ..LinkCreate::default()
    };
    bpf(LINK_CREATE, &attr)
}

/// Attaches an iterator program; `map`: the map that it walks, if it walks one.
///
/// # Errors
/// What bpf(2) answers.
pub fn attach_iterator(program: impl AsFd, map: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    // `union bpf_iter_link_info`, whose map part is one descriptor.
    let info = map.map(|map| [map.as_raw_fd() as u32, 0, 0, 0]);
    let attr = LinkCreate {
        prog_fd: program.as_fd().as_raw_fd() as u32,
        attach_type: TRACE_ITER,
        iter_info: info.as_ref().map_or(0, |info| info.as_ptr() as u64),
        iter_info_len: info.as_ref().map_or(0, |_| 4),
        ..LinkCreate::default()
    };
    bpf(LINK_CREATE, &attr)
}

/// `MEMBARRIER_CMD_GLOBAL` of membarrier(2).
const MEMBARRIER_GLOBAL: libc::c_long = 1;
/// A run of ours takes microseconds.
const RUNS_LAST: Duration = Duration::from_millis(100);

/// Waits until every run of a program that had begun is over: programs run in read sections of the kernel's RCU, and membarrier(2)
/// waits for a grace period. A kernel with `nohz_full` refuses it; then a time is waited that no run takes.
pub fn wait_for_runs() {
    // SAFETY: touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_GLOBAL, 0) };
    if answer != 0 {
        std::thread::sleep(RUNS_LAST);
    }
}

/// Detaches a link whoever else holds it (kernel 5.9 and later).
///
/// # Errors
/// What bpf(2) answers.
pub fn detach(link: impl AsFd) -> io::Result<()> {
    let attr = [link.as_fd().as_raw_fd() as u32];
    call(LINK_DETACH, &attr).map(|_| ())
}

fn info<T: Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let attr = InfoByFd {
        fd: fd.as_raw_fd() as u32,
        length: size_of::<T>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    call(OBJ_GET_INFO_BY_FD, &attr)?;
    Ok(info)
}

/// What the kernel knows of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapShape {
    /// Its id: no other map of this boot has it.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Bytes of a value.
    pub value_bytes: u32,
    /// Its entries at most.
    pub max_entries: u32,
}

/// Asks what a map is.
///
/// # Errors
/// What bpf(2) answers.
pub fn map_shape(map: impl AsFd) -> io::Result<MapShape> {
    let info: MapInfo = info(map.as_fd())?;
    let name = CStr::from_bytes_until_nul(&info.name).unwrap_or_default();
    Ok(MapShape {
        id: info.id,
        name: name.to_string_lossy().into_owned(),
        value_bytes: info.value_size,
        max_entries: info.max_entries,
    })
}

/// Id of the cgroup that a link is attached to; `None`: it is no link of a cgroup, or was detached.
///
/// # Errors
/// What bpf(2) answers.
pub fn cgroup_of_link(link: impl AsFd) -> io::Result<Option<u64>> {
    let info: LinkInfo = info(link.as_fd())?;
    let attached = info.link_type == LINK_TYPE_CGROUP && info.cgroup_id != 0;
    Ok(attached.then_some(info.cgroup_id))
}
