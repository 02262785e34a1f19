//! A node whose memory is full, in small: a server that holds all that there is, and who has to share it.
//!
//! In: how much. Out: whom the kernel's OOM killer took. Ended when dropped.

pub mod guest;
pub mod host;

use anyhow::Result;

/// The full memory.
pub trait Shortage {
    /// A process of the machine has to live in it from now on.
    fn take_in(&self, pid: u32) -> Result<()>;

    /// From now on there is no more than what is used.
    fn begin(&self) -> Result<()>;

    /// How many processes the kernel has killed for it.
    fn killed(&self) -> Result<u64>;

    /// Whether the server was spared.
    fn server_lives(&mut self) -> bool;
}
