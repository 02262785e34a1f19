//! One record per admitted flow, written by the walk. Gauges only: no counter depends on it.

/// [`WalkRecord::state`]: nothing outstanding, nothing waiting.
pub const IDLE: u8 = 0;
/// Data is in flight.
pub const IN_FLIGHT: u8 = 1;
/// Data waits, none is in flight, and the receiver's window has no room for it.
pub const RECEIVER: u8 = 2;
/// Data waits, none is in flight, though the window has room.
pub const SENDER: u8 = 3;

/// [`WalkRecord::flags`]: a callback saw a stall that is still open.
pub const STALL_OPEN: u32 = 1;
/// [`WalkRecord::flags`]: our callback flags are gone from the socket.
pub const UNHOOKED: u32 = 2;
/// [`WalkRecord::flags`]: the receiver's window is zero.
pub const ZERO_WINDOW: u32 = 4;

/// A flow as the walk saw it. Times as in [`crate::flow::FlowState`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkRecord {
    /// As [`crate::flow::FlowState::id`].
    pub id: u64,
    /// When the walk was here.
    pub now_us: u64,
    /// `delivered_mstamp`.
    pub delivered_us: u64,
    /// As [`crate::flow::FlowState::resumed_us`].
    pub resumed_us: u64,
    /// Longest time without progress that is not a stall yet, µs.
    pub limit_us: u32,
    /// As [`crate::flow::FlowState::active_window`].
    pub active_window: u32,
    /// As [`crate::flow::FlowState::stall_window`].
    pub stall_window: u32,
    /// Slot.
    pub slot: u16,
    /// Random group.
    pub group: u8,
    /// [`IDLE`], [`IN_FLIGHT`], [`RECEIVER`] or [`SENDER`].
    pub state: u8,
    /// [`STALL_OPEN`], [`UNHOOKED`], [`ZERO_WINDOW`].
    pub flags: u32,
    /// Always 0.
    pub reserved: u32,
}

const _: () = assert!(size_of::<WalkRecord>() == 56);
