//! The rim's clocks: the only place of the daemon that reads them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::stage::clock::Now;

/// Both clocks, now. The monotonic one is that of the kernel side.
pub(super) fn now() -> Now {
    // CLOCK_MONOTONIC is always there, and the wall clock is past 1970.
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default();
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        monotonic_us: monotonic.as_micros() as u64,
        wall_ms: wall.as_millis() as u64,
    }
}

/// The monotonic clock alone.
pub(super) fn monotonic() -> Duration {
    Duration::from_micros(now().monotonic_us)
}

/// Ticks a second of kernels as they are built.
const USUAL_HZ: [u32; 4] = [100, 250, 300, 1000];

/// Ticks of the kernel in a second, from two pairs of (ktime in ns, jiffies).
pub(super) fn hz(first: (u64, u64), second: (u64, u64)) -> Option<u32> {
    let ns = second.0.checked_sub(first.0).filter(|ns| *ns != 0)?;
    let ticks = second.1.checked_sub(first.1)?;
    let measured = ticks as f64 * 1e9 / ns as f64;
    let near = |hz: &&u32| (measured / f64::from(**hz) - 1.0).abs() < 0.08;
    USUAL_HZ.iter().find(near).copied().or_else(|| {
        let rounded = measured.round();
        (rounded >= 1.0).then_some(rounded as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_measured() {
        let check = |ms: u64, ticks: u64, expected| {
            assert_eq!(hz((5, 7), (5 + ms * 1_000_000, 7 + ticks)), expected);
        };
        check(200, 50, Some(250));
        check(200, 51, Some(250));
        check(200, 20, Some(100));
        check(200, 60, Some(300));
        check(200, 199, Some(1000));
        check(1000, 64, Some(64));
        check(0, 1, None);
        check(200, 0, None);
    }

    #[test]
    fn both_clocks_run() {
        let (first, second) = (now(), now());
        assert!(second.monotonic_us >= first.monotonic_us && first.wall_ms > 1_600_000_000_000);
    }
}
