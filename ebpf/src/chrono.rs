//! The kernel's chronographs of what limits a sender, in `u32` jiffies.
//!
//! Source: Linux `tcp_get_info_chrono_stats`; commit 05b055e89121 (2016).

/// Where a chronograph's time goes; the kernel's numbers, less one.
const RWND_LIMITED: u32 = 1;
const SNDBUF_LIMITED: u32 = 2;

/// Total times so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chrono {
    /// Any chronograph running.
    pub busy_jiffies: u32,
    /// Limited by the receiver's window.
    pub rwnd_limited_jiffies: u32,
    /// Limited by the send buffer.
    pub sndbuf_limited_jiffies: u32,
}

/// Stopped chronographs and the running one (`kind` 1 to 3, 0: none) at `now`.
#[inline(always)]
pub const fn totals(stopped: [u32; 3], kind: u32, start: u32, now: u32) -> Chrono {
    let running = if kind == 0 {
        0
    } else {
        now.wrapping_sub(start)
    };
    let rwnd = if kind == RWND_LIMITED + 1 { running } else { 0 };
    let sndbuf = if kind == SNDBUF_LIMITED + 1 {
        running
    } else {
        0
    };
    Chrono {
        busy_jiffies: stopped[0]
            .wrapping_add(stopped[1])
            .wrapping_add(stopped[2])
            .wrapping_add(running),
        rwnd_limited_jiffies: stopped[1].wrapping_add(rwnd),
        sndbuf_limited_jiffies: stopped[2].wrapping_add(sndbuf),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_one_counts() {
        let check = |kind, busy, rwnd, sndbuf| {
            let expected = Chrono {
                busy_jiffies: busy,
                rwnd_limited_jiffies: rwnd,
                sndbuf_limited_jiffies: sndbuf,
            };
            assert_eq!(totals([10, 20, 30], kind, u32::MAX - 1, 3), expected);
        };
        check(0, 60, 20, 30);
        check(1, 65, 20, 30);
        check(2, 65, 25, 30);
        check(3, 65, 20, 35);
    }
}
