//! Canonical addresses and the 4-tuple of a flow.

/// An address as 16 bytes in network order, held as two words in memory order.
///
/// IPv4 is held in its v4-mapped form (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2), so that a client
/// on a dual-stack listener is the same client as on a plain IPv4 one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(pub [u64; 2]);

/// The low word of a v4-mapped prefix `00 00 ff ff`, in memory order, as a `u32`.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// Joins two `u32` that follow each other in memory.
#[inline(always)]
const fn join(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | (second as u64) << 32
    } else {
        (first as u64) << 32 | second as u64
    }
}

impl Address {
    /// From the kernel's `__be32`, as loaded from memory.
    #[inline(always)]
    pub const fn from_v4(be32: u32) -> Self {
        Self([0, join(MAPPED, be32)])
    }

    /// From the kernel's `in6_addr`, as four words loaded from memory.
    #[inline(always)]
    pub const fn from_v6(words: [u32; 4]) -> Self {
        Self([join(words[0], words[1]), join(words[2], words[3])])
    }

    /// From 16 bytes in network order.
    pub const fn from_octets(o: [u8; 16]) -> Self {
        Self([
            u64::from_ne_bytes([o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7]]),
            u64::from_ne_bytes([o[8], o[9], o[10], o[11], o[12], o[13], o[14], o[15]]),
        ])
    }

    /// Whether it is an IPv4 address in its mapped form.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.first_half() == MAPPED
    }

    /// The four bytes of an IPv4 address, in memory order; only meaningful if [`Self::is_v4`].
    #[inline(always)]
    pub const fn v4(&self) -> u32 {
        if cfg!(target_endian = "little") {
            (self.0[1] >> 32) as u32
        } else {
            self.0[1] as u32
        }
    }

    #[inline(always)]
    const fn first_half(&self) -> u32 {
        if cfg!(target_endian = "little") {
            self.0[1] as u32
        } else {
            (self.0[1] >> 32) as u32
        }
    }

    /// Whether the bits that `mask` keeps are those of `prefix`.
    #[inline(always)]
    pub const fn in_prefix(&self, prefix: &Self, mask: &Self) -> bool {
        (self.0[0] ^ prefix.0[0]) & mask.0[0] == 0 && (self.0[1] ^ prefix.0[1]) & mask.0[1] == 0
    }

    /// The mask that keeps the first `bits` (0 to 128) bits.
    pub const fn mask(bits: u32) -> Self {
        let all = if bits == 0 {
            0
        } else {
            u128::MAX << (128 - bits)
        };
        Self::from_octets(all.to_be_bytes())
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(ip: core::net::IpAddr) -> Self {
        Self::from_octets(match ip {
            core::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(v6) => v6.octets(),
        })
    }
}

/// Local and remote end of a TCP connection, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowTuple {
    /// Our address.
    pub local: Address,
    /// The client's address.
    pub remote: Address,
    /// Our port, host order.
    pub local_port: u16,
    /// The client's port, host order.
    pub remote_port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn mapped_addresses_are_canonical_ipv4() {
        let v4 = address("203.0.113.7");
        assert_eq!(v4, address("::ffff:203.0.113.7"));
        assert_eq!(v4, Address::from_v4(u32::from_ne_bytes([203, 0, 113, 7])));
        assert!(v4.is_v4());
        assert_eq!(v4.v4(), u32::from_ne_bytes([203, 0, 113, 7]));
        assert!(!address("2001:db8::7").is_v4());
        assert!(!address("::1").is_v4());
    }

    #[test]
    fn words_of_the_kernel_are_the_octets() {
        let octets: [u8; 16] = core::array::from_fn(|i| i as u8 + 1);
        let words = core::array::from_fn(|i| {
            u32::from_ne_bytes(octets[i * 4..i * 4 + 4].try_into().unwrap())
        });
        assert_eq!(Address::from_v6(words), Address::from_octets(octets));
    }

    #[test]
    fn prefixes() {
        let check = |ip: &str, prefix: &str, bits: u32| {
            address(ip).in_prefix(&address(prefix), &Address::mask(bits))
        };
        assert!(check("203.0.113.200", "203.0.113.0", 96 + 24));
        assert!(!check("203.0.112.200", "203.0.113.0", 96 + 24));
        assert!(check("2001:db8:1::5", "2001:db8::", 32));
        assert!(!check("2001:db9::5", "2001:db8::", 32));
        assert!(check("8.8.8.8", "::", 0));
        assert!(check("::1", "::1", 128));
        assert!(!check("::2", "::1", 128));
    }
}
