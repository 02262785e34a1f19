//! The keyed hash that picks flows: SipHash-1-3 of the 4-tuple.
//!
//! The same code runs in the kernel and in user space. The key makes the choice unpredictable
//! for clients; one key on all nodes makes it the same everywhere. The hash is over 12 bytes
//! for IPv4 and 36 for IPv6, in network order: local address, remote address, local port,
//! remote port. Source: Aumasson, Bernstein, *SipHash: a fast short-input PRF* (2012).

use crate::address::FlowTuple;

/// 128-bit key, the two halves of 16 bytes read in little-endian order.
pub type Key = [u64; 2];

/// Number of random groups (design: variance by 16 random groups).
pub const GROUPS: usize = 16;

/// Number of `threshold` at which every flow is selected.
pub const THRESHOLD_ALL: u64 = 1 << 32;

/// A key from its 16 bytes.
pub const fn key_from_bytes(b: [u8; 16]) -> Key {
    let k = u128::from_le_bytes(b);
    [k as u64, (k >> 64) as u64]
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline(always)]
    fn new(key: Key) -> Self {
        Self {
            v0: key[0] ^ 0x736f_6d65_7073_6575,
            v1: key[1] ^ 0x646f_7261_6e64_6f6d,
            v2: key[0] ^ 0x6c79_6765_6e65_7261,
            v3: key[1] ^ 0x7465_6462_7974_6573,
        }
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline(always)]
    fn word(&mut self, m: u64) {
        self.v3 ^= m;
        self.round();
        self.v0 ^= m;
    }

    #[inline(always)]
    fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

/// Hash of a flow: the high 32 bits select, the low 4 bits are its group.
#[inline(always)]
pub fn flow_hash(key: Key, flow: &FlowTuple) -> u64 {
    let ports =
        u64::from(flow.local_port.swap_bytes()) | u64::from(flow.remote_port.swap_bytes()) << 16;
    let mut s = State::new(key);
    if flow.local.is_v4() && flow.remote.is_v4() {
        s.word(u64::from(flow.local.v4().to_le()) | u64::from(flow.remote.v4().to_le()) << 32);
        s.word(ports | 12 << 56);
    } else {
        s.word(flow.local.0[0].to_le());
        s.word(flow.local.0[1].to_le());
        s.word(flow.remote.0[0].to_le());
        s.word(flow.remote.0[1].to_le());
        s.word(ports | 36 << 56);
    }
    s.finish()
}

/// Whether a flow is in the sample: the upper half of its hash is below `threshold`.
#[inline(always)]
pub const fn selected(hash: u64, threshold: u64) -> bool {
    hash >> 32 < threshold
}

/// The random group of a flow, 0 to 15.
#[inline(always)]
pub const fn group(hash: u64) -> u8 {
    (hash & (GROUPS as u64 - 1)) as u8
}

/// The threshold of a sampling rate in `0.0..=1.0`, to the nearest 2⁻³².
pub fn threshold(rate: f64) -> u64 {
    let scaled = rate * THRESHOLD_ALL as f64 + 0.5;
    if scaled >= THRESHOLD_ALL as f64 {
        THRESHOLD_ALL
    } else {
        scaled as u64
    }
}

/// The rate that a threshold means.
pub fn rate(threshold: u64) -> f64 {
    threshold as f64 / THRESHOLD_ALL as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;
    use std::hash::Hasher;
    use std::net::IpAddr;

    fn reference(key: [u8; 16], local: IpAddr, remote: IpAddr, ports: (u16, u16)) -> u64 {
        let mut bytes = Vec::new();
        match (local.to_canonical(), remote.to_canonical()) {
            (IpAddr::V4(l), IpAddr::V4(r)) => {
                bytes.extend(l.octets());
                bytes.extend(r.octets());
            }
            _ => {
                let six = |ip: IpAddr| match ip {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                bytes.extend(six(local).octets());
                bytes.extend(six(remote).octets());
            }
        }
        bytes.extend(ports.0.to_be_bytes());
        bytes.extend(ports.1.to_be_bytes());
        let mut hasher = SipHasher13::new_with_key(&key);
        hasher.write(&bytes);
        hasher.finish()
    }

    proptest! {
        #[test]
        fn is_siphash_1_3(key: [u8; 16], local: IpAddr, remote: IpAddr, lp: u16, rp: u16) {
            let flow = FlowTuple {
                local: local.into(),
                remote: remote.into(),
                local_port: lp,
                remote_port: rp,
            };
            prop_assert_eq!(
                flow_hash(key_from_bytes(key), &flow),
                reference(key, local, remote, (lp, rp))
            );
        }

        #[test]
        fn a_lower_rate_picks_a_subset(hash: u64, a in 0.0..=1.0f64, b in 0.0..=1.0f64) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(!selected(hash, threshold(low)) || selected(hash, threshold(high)));
        }
    }

    #[test]
    fn rates_at_the_ends() {
        assert!(!selected(0, threshold(0.0)));
        assert!(selected(u64::MAX, threshold(1.0)));
        assert_eq!(threshold(0.1), 429_496_730);
        assert!((rate(threshold(0.1)) - 0.1).abs() < 1e-9);
    }
}
