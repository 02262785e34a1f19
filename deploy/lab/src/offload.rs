//! Turns a network device's offloads off, so that one packet is one segment and the packet filter
//! loses segments, not bundles of up to 64 kB.

use std::ffi::c_void;
use std::io;
use std::os::fd::AsRawFd;

/// `struct ethtool_value` of the kernel's ABI.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `ETHTOOL_S…` of `linux/ethtool.h`: GRO, GSO, TSO, scatter-gather, checksums on send.
const COMMANDS: [u32; 5] = [0x2c, 0x24, 0x1f, 0x19, 0x17];

/// Turns all offloads of `device` off, in the network namespace of the calling thread.
///
/// # Errors
/// When there is no such device or the kernel refuses one of them.
pub(crate) fn disable(device: &str) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0))?;
    for command in COMMANDS {
        set(&socket, device, command)?;
    }
    Ok(())
}

fn set(socket: &impl AsRawFd, device: &str, command: u32) -> io::Result<()> {
    let mut value = EthtoolValue { command, data: 0 };
    // SAFETY: ifreq is plain data, for which all zero bytes are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast::<c_void>().cast();
    // SAFETY: SIOCETHTOOL takes an ifreq whose data points to an ethtool_value; both live until
    // the call returns.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
