//! Where the running kernel keeps what the program reads: byte offsets by BTF member name.
//!
//! User space resolves them and patches them into the object's read-only data before it is
//! loaded; the verifier then sees constants.

macro_rules! offsets {
    ($($(#[$doc:meta])* $field:ident: $path:literal, $size:literal;)*) => {
        /// Offsets in bytes from the start of a `tcp_sock`, unless said otherwise.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Offsets {
            $($(#[$doc])* pub $field: u32,)*
        }

        impl Offsets {
            /// Before they are resolved.
            pub const NONE: Self = Self { $($field: 0,)* };
        }

        /// Member path and size in bytes of each field, in order. A path begins with its
        /// struct; `|` parts alternatives, oldest kernel last. Size 0: a bit field.
        pub const MEMBERS: &[(&str, u32)] = &[$(($path, $size),)*];
    };
}

offsets! {
    /// Bytes sent.
    bytes_sent: "tcp_sock.bytes_sent", 8;
    /// Bytes acknowledged.
    bytes_acked: "tcp_sock.bytes_acked", 8;
    /// Data segments sent.
    data_segs_out: "tcp_sock.data_segs_out", 4;
    /// TCP state.
    skc_state: "sock_common.skc_state", 1;
    /// Clock of the last event, µs.
    tcp_mstamp: "tcp_sock.tcp_mstamp", 8;
    /// Clock of the last delivery, µs.
    delivered_mstamp: "tcp_sock.delivered_mstamp", 8;
    /// Segments retransmitted.
    total_retrans: "tcp_sock.total_retrans", 4;
    /// Bytes retransmitted.
    bytes_retrans: "tcp_sock.bytes_retrans", 8;
    /// Duplicates that DSACK reported.
    dsack_dups: "tcp_sock.dsack_dups", 4;
    /// Chronographs that were stopped, three jiffies counters.
    chrono_stat: "tcp_sock.chrono_stat", 12;
    /// Start of the running chronograph, jiffies.
    chrono_start: "tcp_sock.chrono_start", 4;
    /// Which chronograph runs; the byte that holds the bit field.
    chrono_type: "tcp_sock.chrono_type", 0;
    /// First byte not acknowledged.
    snd_una: "tcp_sock.snd_una", 4;
    /// End of the data that was written.
    write_seq: "tcp_sock.write_seq", 4;
    /// Value of the windowed minimum RTT, µs.
    rtt_min: "tcp_sock.rtt_min.s.v", 4;
    /// Smoothed RTT, 8 × µs.
    srtt_us: "tcp_sock.srtt_us", 4;
    /// Newest RTT sample that RACK took, µs.
    rack_rtt_us: "tcp_sock.rack.rtt_us", 4;
    /// Segments in flight.
    packets_out: "tcp_sock.packets_out", 4;
    /// Next byte to send.
    snd_nxt: "tcp_sock.snd_nxt", 4;
    /// The receiver's window.
    snd_wnd: "tcp_sock.snd_wnd", 4;
    /// Segment size.
    mss_cache: "tcp_sock.mss_cache", 4;
    /// Callback flags.
    cb_flags: "tcp_sock.bpf_sock_ops_cb_flags", 1;
    /// Fast Open request that is not complete yet.
    fastopen_rsk: "tcp_sock.fastopen_rsk", 8;
    /// Variation that the retransmission timeout adds to the smoothed RTT, µs.
    rttvar_us: "tcp_sock.rttvar_us", 4;
    /// Congestion state; the byte that holds the bit field.
    icsk_ca_state: "inet_connection_sock.icsk_ca_state", 0;
    /// Mark.
    sk_mark: "sock.sk_mark", 4;
    /// The socket's cgroup.
    sk_cgroup: "sock.sk_cgrp_data.cgroup|sock.sk_cgrp_data.val", 8;
    /// From `cgroup`: its kernfs node.
    cgroup_kn: "cgroup.kn", 8;
    /// From `cgroup`: its parent's subsystem state.
    cgroup_parent: "cgroup.self.parent", 8;
    /// From `cgroup_subsys_state`: its cgroup.
    css_cgroup: "cgroup_subsys_state.cgroup", 8;
    /// From `kernfs_node`: its id.
    kernfs_id: "kernfs_node.id", 8;
    /// Address family.
    skc_family: "sock_common.skc_family", 2;
    /// Local port.
    skc_num: "sock_common.skc_num", 2;
    /// Remote port.
    skc_dport: "sock_common.skc_dport", 2;
    /// Local IPv4 address.
    skc_rcv_saddr: "sock_common.skc_rcv_saddr", 4;
    /// Remote IPv4 address.
    skc_daddr: "sock_common.skc_daddr", 4;
    /// Local IPv6 address.
    skc_v6_rcv_saddr: "sock_common.skc_v6_rcv_saddr", 16;
    /// Remote IPv6 address.
    skc_v6_daddr: "sock_common.skc_v6_daddr", 16;
    /// From `socket`: its `sock`.
    socket_sk: "socket.sk", 8;
    /// Bit position of the chronograph type within its byte.
    chrono_type_shift: "tcp_sock.chrono_type:shift", 0;
    /// Where RTT samples come from: 1 = arguments of the callback, 2 = RACK.
    rtt_source: ":rtt_source", 0;
}

const _: () = assert!(size_of::<Offsets>() == MEMBERS.len() * 4);

/// [`Offsets::rtt_source`]: the callback's arguments (kernel 6.10 and later).
pub const RTT_FROM_CALLBACK: u32 = 1;
/// [`Offsets::rtt_source`]: `tcp_sock.rack.rtt_us`.
pub const RTT_FROM_RACK: u32 = 2;
