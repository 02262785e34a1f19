//! What the kernel side keeps per admitted flow, in socket storage.
//!
//! Only sock_ops callbacks and `fold_open` write it, under the socket lock, and `fold_detached` when there are no callbacks any more; the
//! walk reads it without.

/// [`FlowState::flags`]: a Fast Open child whose handshake is not complete yet.
pub const PENDING_HANDSHAKE: u8 = 1;

/// No stall is open.
pub const STALL_NONE: u8 = 0;
/// One or two timers fired; whether they were right is not known yet.
pub const STALL_UNDECIDED: u8 = 1;
/// The third timer in a row fired: the path does not deliver.
pub const STALL_NETWORK: u8 = 2;

/// Last values folded, and the state of the stall detector. Times are the kernel's
/// `tcp_mstamp` (CLOCK_MONOTONIC, µs). What every round trip touches comes first: the kernel puts
/// one word of its own before it, and both are on one cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowState {
    /// `bytes_sent` at the last fold.
    pub bytes_sent: u64,
    /// `bytes_acked` at the last fold, less an acknowledged FIN.
    pub bytes_acked: u64,
    /// `delivered_mstamp` at the last RTT sample.
    pub delivered_us: u64,
    /// When the chronographs were last folded.
    pub chrono_at_us: u64,
    /// `data_segs_out` at the last fold.
    pub data_segs_out: u32,
    /// Window of the last data; 0: none yet.
    pub active_window: u32,
    /// Window of the last RTT sample.
    pub rtt_window: u32,
    /// Length of ended stalls that wait for their verdict, µs; 0: none.
    pub verdict_us: u32,
    /// Slot that the flow counts in. Can change while it lives: what was counted stays.
    pub slot: u16,
    /// Random group.
    pub group: u8,
    /// [`PENDING_HANDSHAKE`].
    pub flags: u8,
    /// [`STALL_NONE`], [`STALL_UNDECIDED`] or [`STALL_NETWORK`].
    pub stall: u8,
    /// Always 0.
    pub reserved: [u8; 3],
    /// `bytes_retrans` at the last fold.
    pub bytes_retrans: u64,
    /// `total_retrans` at the last fold.
    pub total_retrans: u32,
    /// `dsack_dups` at the last fold.
    pub dsack_dups: u32,
    /// Busy chronograph at the last fold.
    pub busy_jiffies: u32,
    /// Receive-window chronograph at the last fold.
    pub rwnd_limited_jiffies: u32,
    /// Send-buffer chronograph at the last fold.
    pub sndbuf_limited_jiffies: u32,
    /// Window of the last retransmission.
    pub retrans_window: u32,
    /// The flow's hash; names it in the walk.
    pub id: u64,
    /// `delivered_mstamp` from which the open (or else the last) stall counts.
    pub stall_since_us: u64,
    /// End of the last long time without a delivery, whether it was a stall or not.
    pub resumed_us: u64,
    /// When undecided stalls are taken for loss.
    pub verdict_at_us: u64,
    /// `dsack_dups` when the first of them was recognised.
    pub verdict_dsack_dups: u32,
    /// While a stall is open: `total_retrans` since which retransmissions count for the verdict.
    /// When none is: how many do.
    pub verdict_retrans: u32,
    /// Part of the open stall that is counted already, µs.
    pub stall_counted_us: u32,
    /// Window of the last stall that a callback counted.
    pub stall_window: u32,
}

const _: () = assert!(size_of::<FlowState>() == 136);
const _: () = assert!(core::mem::offset_of!(FlowState, bytes_retrans) == 56);
