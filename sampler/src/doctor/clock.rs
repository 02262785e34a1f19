//! Whether the wall clock can be held against other nodes' clocks.
//!
//! Input: `adjtimex` without changing anything. Output: [`ClockQuality`] and its [`Check`]. Units: µs.

use super::report::Check;

/// What the kernel thinks of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockQuality {
    /// A time daemon keeps it.
    pub synchronised: bool,
    /// Largest error that it can have, µs.
    pub max_error_us: u64,
}

/// Asks the kernel; `None` where it does not answer.
pub fn clock_quality() -> Option<ClockQuality> {
    // SAFETY: timex is plain integers, for which all zeros is a value; modes = 0 asks and sets nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live, writable timex.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    (state >= 0).then(|| ClockQuality {
        synchronised: state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0,
        max_error_us: u64::try_from(timex.maxerror).unwrap_or(0),
    })
}

/// The check of it.
pub fn check(quality: Option<ClockQuality>) -> Check {
    let todo = "run chrony or systemd-timesyncd: windows of nodes are merged by wall clock";
    match quality {
        Some(ClockQuality {
            synchronised: true,
            max_error_us,
        }) => Check::ok(
            "clock",
            format!("synchronised, error at most {max_error_us} us"),
        ),
        Some(_) => Check::warn("clock", "not synchronised, says the kernel", todo),
        None => Check::warn("clock", "the kernel does not tell", todo),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    #[test]
    fn judges_the_clock() {
        for (quality, expected) in [
            (
                Some(ClockQuality {
                    synchronised: true,
                    max_error_us: 800,
                }),
                Level::Ok,
            ),
            (
                Some(ClockQuality {
                    synchronised: false,
                    max_error_us: 16_000_000,
                }),
                Level::Warn,
            ),
            (None, Level::Warn),
        ] {
            assert_eq!(check(quality).level, expected, "{quality:?}");
        }
    }

    #[test]
    fn this_kernel_tells() {
        assert!(clock_quality().is_some());
    }
}
