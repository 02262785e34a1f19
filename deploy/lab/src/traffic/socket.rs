//! Sockets with the options that matter here. Everything is non-blocking and close-on-exec.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::sockopt;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, listen, setsockopt,
    socket,
};

use super::plan::Plan;
use super::server::Listen;

/// Files this process may have open for thousands of connections with both ends in it.
const WANTED_FILES: u64 = 200_000;

/// Raises the limit of open files as far as the system lets us.
pub(super) fn raise_file_limit() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    // A process without the privilege keeps its hard limit; thousands of connections then fail
    // one by one with a message of their own.
    if soft < WANTED_FILES
        && setrlimit(
            Resource::RLIMIT_NOFILE,
            WANTED_FILES,
            hard.max(WANTED_FILES),
        )
        .is_err()
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// A listening socket with the options of `listen`.
pub(super) fn listener(options: &Listen) -> io::Result<TcpListener> {
    let fd = new_socket(options.address)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if options.address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &!options.dual_stack)?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        setsockopt(&fd, sockopt::SndBuf, &bytes)?;
    }
    // Accepted sockets inherit these.
    setsockopt(
        &fd,
        sockopt::TcpCongestion,
        &OsString::from(options.congestion.name()),
    )?;
    if let Some(rate) = options.pacing_bytes_per_s {
        set_u32(&fd, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, rate)?;
    }
    if let Some(mark) = options.mark {
        setsockopt(&fd, sockopt::Mark, &mark)?;
    }
    if options.fast_open {
        set_u32(&fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 1_024)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(options.address))?;
    listen(&fd, Backlog::new(16_384).unwrap_or(Backlog::MAXCONN))?;
    Ok(TcpListener::from(fd))
}

/// Starts to connect as the plan's connection number `n`.
pub(super) fn connecting(plan: &Plan, n: usize) -> io::Result<TcpStream> {
    let server = plan.servers[n % plan.servers.len()];
    let fd = new_socket(server)?;
    if let Some(bytes) = plan.receive_buffer_bytes {
        setsockopt(&fd, sockopt::RcvBuf, &bytes)?;
    }
    if !plan.clients.is_empty() {
        // The port is chosen at connect, when the whole 4-tuple is known: many more fit.
        setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
        // All servers before the next client: every pair comes in turn.
        let client = plan.clients[(n / plan.servers.len()) % plan.clients.len()];
        bind(
            fd.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::new(client, 0)),
        )?;
    }
    if plan.fast_open {
        setsockopt(&fd, sockopt::TcpFastOpenConnect, &true)?;
    }
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(server)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Closes with RST instead of FIN.
pub(super) fn reset(stream: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // Fails only on a socket that is no socket.
    let _ = setsockopt(&stream, sockopt::Linger, &linger);
}

/// An IPv4 address inside IPv6 becomes plain IPv4, so that both ends give one name to a flow.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The address that stands for an end that cannot be told any more.
pub(super) const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Waits for events; an interrupted wait is an empty one.
pub(super) fn wait<'a>(
    epoll: &Epoll,
    events: &'a mut [EpollEvent],
    timeout: EpollTimeout,
) -> io::Result<&'a [EpollEvent]> {
    match epoll.wait(events, timeout) {
        Ok(count) => Ok(&events[..count]),
        Err(Errno::EINTR) => Ok(&[]),
        Err(errno) => Err(errno.into()),
    }
}

/// What a connection waits for, as epoll sees it.
pub(super) fn interest(read: bool, write: bool) -> EpollFlags {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN, read);
    flags.set(EpollFlags::EPOLLOUT, write);
    flags
}

fn new_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Stream, flags, None)?)
}

/// An option that is a plain 32-bit number.
fn set_u32(fd: &impl AsFd, level: libc::c_int, name: libc::c_int, value: u32) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `value`, which lives until the call returns.
    let outcome = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
