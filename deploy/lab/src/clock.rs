//! The one place of this crate that reads clocks.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock, now.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, now: Unix time, ms.
#[must_use]
pub fn unix_ms() -> u64 {
    unix_ms_of(SystemTime::now())
}

/// The same of another moment.
#[must_use]
pub fn unix_ms_of(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
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
