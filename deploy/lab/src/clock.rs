//! The one place of this crate that reads the monotonic clock.

use std::thread;
use std::time::{Duration, Instant};

/// The monotonic clock, now.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Polls `ready` until it says true or `timeout` is over; the last answer.
pub fn wait_until(timeout: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let end = now() + timeout;
    loop {
        if ready() {
            return true;
        }
        if now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
