//! Reads of the kernel's `tcp_sock`, whole words at offsets that BTF gave.

use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_skc_to_tcp_sock};
use ebpf::{
    chrono::{self, Chrono},
    stall,
};
use ebpf_abi::offsets::RTT_FROM_CALLBACK;

use crate::maps;

/// A `tcp_sock` that the verifier knows as such (`PTR_TO_BTF_ID`): its loads cannot fault.
#[derive(Clone, Copy)]
pub struct Tcp(*const u8);

macro_rules! member {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $($(#[$doc])* #[inline(always)] pub fn $name(self) -> $type {
            // SAFETY: the offset is resolved and its size checked at load; the verifier
            // refuses an offset outside the struct.
            unsafe {
                let at = read_volatile(&raw const (*maps::offsets()).$name) as usize;
                read_volatile(self.0.add(at).cast())
            }
        })*
    };
}

/// TCP states, as the kernel numbers them.
pub mod state {
    pub const ESTABLISHED: u32 = 1;
    /// The same, as the socket holds it.
    pub const OPEN: u8 = ESTABLISHED as u8;
    pub const SYN_RECV: u32 = 3;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const TIME_WAIT: u8 = 6;
    pub const CLOSE: u32 = 7;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const CLOSING: u8 = 11;
}

/// `icsk_ca_state`: five bits since it became a bit field.
const CA_STATE_MASK: u8 = 31;
/// `TCP_CA_Recovery`.
pub const CA_RECOVERY: u8 = 3;
/// `TCP_CA_Loss`.
pub const CA_LOSS: u8 = 4;

impl Tcp {
    /// From a socket of any kind that the verifier tracks; `None` if it is not a full TCP one.
    #[inline(always)]
    pub fn from_sock<T>(sk: *mut T) -> Option<Self> {
        if sk.is_null() {
            return None;
        }
        // SAFETY: the helper takes any tracked socket and answers NULL for a wrong kind.
        let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast()) };
        if tcp.is_null() {
            None
        } else {
            Some(Self(tcp.cast_const().cast()))
        }
    }

    /// For helpers that take a socket.
    #[inline(always)]
    pub fn as_sock(self) -> *mut core::ffi::c_void {
        self.0.cast_mut().cast()
    }

    member! {
        total_retrans: u32;
        data_segs_out: u32;
        bytes_sent: u64;
        bytes_acked: u64;
        bytes_retrans: u64;
        dsack_dups: u32;
        tcp_mstamp: u64;
        delivered_mstamp: u64;
        srtt_us: u32;
        rttvar_us: u32;
        rtt_min: u32;
        rack_rtt_us: u32;
        packets_out: u32;
        write_seq: u32;
        snd_una: u32;
        snd_nxt: u32;
        snd_wnd: u32;
        mss_cache: u32;
        chrono_stat: [u32; 3];
        chrono_start: u32;
        chrono_type: u8;
        cb_flags: u8;
        icsk_ca_state: u8;
        skc_state: u8;
        skc_family: u16;
        /// Ours, in host order.
        skc_num: u16;
        /// The other end's, in network order.
        skc_dport: u16;
        skc_rcv_saddr: u32;
        skc_daddr: u32;
        skc_v6_rcv_saddr: [u32; 4];
        skc_v6_daddr: [u32; 4];
        sk_mark: u32;
        /// Not zero while a Fast Open handshake is under way.
        fastopen_rsk: usize;
    }

    /// Smoothed RTT, µs.
    #[inline(always)]
    pub fn rtt_us(self) -> u32 {
        self.srtt_us() >> 3
    }

    /// Congestion state.
    #[inline(always)]
    pub fn ca_state(self) -> u8 {
        self.icsk_ca_state() & CA_STATE_MASK
    }

    /// Acknowledged bytes of data: the kernel counts an acknowledged FIN as one more.
    #[inline(always)]
    pub fn data_bytes_acked(self) -> u64 {
        let fin_acked = match self.skc_state() {
            state::FIN_WAIT2 | state::TIME_WAIT => true,
            state::FIN_WAIT1 | state::CLOSING | state::LAST_ACK => {
                self.snd_una() == self.write_seq()
            }
            _ => false,
        };
        self.bytes_acked() - fin_acked as u64
    }

    /// The chronographs now.
    #[inline(always)]
    pub fn chrono(self) -> Chrono {
        // SAFETY: reads our own static, as in `member!`.
        let shift = unsafe { read_volatile(&raw const (*maps::offsets()).chrono_type_shift) };
        let kind = u32::from(self.chrono_type()) >> (shift & 7) & 3;
        // SAFETY: takes no argument and cannot fail.
        let now = unsafe { bpf_jiffies64() } as u32;
        chrono::totals(self.chrono_stat(), kind, self.chrono_start(), now)
    }

    /// For the stall detector.
    #[inline(always)]
    pub fn seen(self, now_us: u64) -> stall::Seen {
        stall::Seen {
            now_us,
            delivered_us: self.delivered_mstamp(),
            limit_us: stall::limit_us(self.rtt_us(), self.rttvar_us()),
            dsack_dups: self.dsack_dups(),
            retrans_before: self.total_retrans(),
        }
    }

    /// The cgroup of the socket: itself or one of its next parents has this id?
    #[inline(always)]
    pub fn in_cgroup(self, id: u64) -> bool {
        /// Levels that are looked at: a service, its slice, and two payload cgroups below it.
        const LEVELS: usize = 4;
        // SAFETY: each step follows a pointer whose type BTF gives to the verifier; a load
        // through NULL reads 0.
        unsafe {
            let o = maps::offsets();
            let step = |from: *const u8, at: *const u32| -> *const u8 {
                read_volatile(from.add(read_volatile(at) as usize).cast())
            };
            let mut cgroup = step(self.0, &raw const (*o).sk_cgroup);
            for _ in 0..LEVELS {
                if cgroup.is_null() {
                    return false;
                }
                let node = step(cgroup, &raw const (*o).cgroup_kn);
                if node.is_null() {
                    return false;
                }
                let at = read_volatile(&raw const (*o).kernfs_id) as usize;
                if read_volatile(node.add(at).cast::<u64>()) == id {
                    return true;
                }
                let parent = step(cgroup, &raw const (*o).cgroup_parent);
                if parent.is_null() {
                    return false;
                }
                cgroup = step(parent, &raw const (*o).css_cgroup);
            }
        }
        false
    }
}

/// Whether RTT callbacks carry their sample.
#[inline(always)]
pub fn rtt_from_callback() -> bool {
    // SAFETY: reads our own static, as in `member!`.
    unsafe { read_volatile(&raw const (*maps::offsets()).rtt_source) == RTT_FROM_CALLBACK }
}
