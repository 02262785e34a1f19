//! What a test makes go wrong where no real disk does: a write or a sync that takes long or fails.

use std::fmt::Debug;
use std::io;

/// Asked before the work is done, in the thread that would do it; may take its time.
pub trait Faults: Debug + Send + Sync {
    /// Before a batch is written.
    fn before_write(&self) -> io::Result<()> {
        Ok(())
    }

    /// Before a segment is brought to the disk.
    fn before_sync(&self) -> io::Result<()> {
        Ok(())
    }
}
