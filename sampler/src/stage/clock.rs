//! Which window is it? Edges lie on multiples of the window length of the wall clock; the length
//! of a window is measured on the monotonic one.

use super::state::ClockBooks;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, µs; runs on while the machine sleeps or not, as the kernel does it.
    pub monotonic_us: u64,
    /// Unix time, ms.
    pub wall_ms: u64,
}

/// A step of the wall clock smaller than this is its ordinary correction.
const STEP_MS: u64 = 50;

/// A window that was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Unix time of its begin, a multiple of `window_ms`.
    pub window_start_ms: u64,
    /// Nominal length.
    pub window_ms: u32,
    /// Length that was covered.
    pub observed_ms: u32,
    /// How long after its edge it was closed.
    pub lateness_us: u64,
    /// Windows after it that were not closed on their own: what happened in them is in this one
    /// or, from the middle of the last of them on, in the next.
    pub missed_edges: u32,
    /// Steps of the wall clock inside it.
    pub clock_step_ms: i64,
    /// Unix time at which it was closed: what came before is counted, what came after is not yet. Up to half a window before its
    /// nominal end, or more than that at a stop.
    pub closed_ms: u64,
}

/// The running window.
#[derive(Clone, Copy, Debug)]
pub struct WindowClock {
    /// Of windows that begin from now on.
    window_ms: u32,
    /// Of the running one.
    running_ms: u32,
    start_wall_ms: u64,
    start_us: u64,
    edge_us: u64,
    /// Wall clock less monotonic clock.
    offset_ms: i64,
}

fn offset_ms(now: Now) -> i64 {
    now.wall_ms as i64 - (now.monotonic_us / 1000) as i64
}

impl WindowClock {
    /// The first window begins now; it ends at the next edge but one if the next is closer than
    /// half a window, so that no first window is too short to mean something.
    pub fn new(window_ms: u32, now: Now) -> Self {
        let mut clock = Self {
            window_ms,
            running_ms: window_ms,
            start_wall_ms: 0,
            start_us: now.monotonic_us,
            edge_us: 0,
            offset_ms: offset_ms(now),
        };
        clock.begin(now);
        clock
    }

    /// The clock of an earlier life of this boot: to the windows, the time between two lives is as that of a suspended process.
    pub(super) fn resume(books: &ClockBooks) -> Option<Self> {
        let some = books.window_ms != 0 && books.running_ms != 0;
        some.then_some(Self {
            window_ms: books.window_ms,
            running_ms: books.running_ms,
            start_wall_ms: books.start_wall_ms,
            start_us: books.start_us,
            edge_us: books.edge_us,
            offset_ms: books.offset_ms,
        })
    }

    pub(super) fn books(&self) -> ClockBooks {
        ClockBooks {
            window_ms: self.window_ms,
            running_ms: self.running_ms,
            start_wall_ms: self.start_wall_ms,
            start_us: self.start_us,
            edge_us: self.edge_us,
            offset_ms: self.offset_ms,
        }
    }

    fn begin(&mut self, now: Now) {
        let length = u64::from(self.window_ms);
        let into_ms = now.wall_ms % length;
        // A timer may fire a little before the edge: then the window that begins is the next.
        let (start, rest) = if into_ms * 2 >= length {
            (now.wall_ms - into_ms + length, 2 * length - into_ms)
        } else {
            (now.wall_ms - into_ms, length - into_ms)
        };
        self.running_ms = self.window_ms;
        self.start_wall_ms = start;
        self.start_us = now.monotonic_us;
        self.edge_us = now.monotonic_us + rest * 1000;
    }

    /// When the running window ends, on the monotonic clock.
    pub fn edge_us(&self) -> u64 {
        self.edge_us
    }

    /// Nominal begin of the running window.
    pub fn window_start_ms(&self) -> u64 {
        self.start_wall_ms
    }

    /// Closes the running window and begins the next.
    pub fn close(&mut self, now: Now) -> Closed {
        let lateness_us = now.monotonic_us.saturating_sub(self.edge_us);
        let moved = offset_ms(now) - self.offset_ms;
        let stepped = moved.unsigned_abs() >= STEP_MS;
        let observed_us = now.monotonic_us.saturating_sub(self.start_us);
        let window_ms = self.running_ms;
        let window_start_ms = self.start_wall_ms;
        self.offset_ms = offset_ms(now);
        self.begin(now);
        let length = u64::from(window_ms);
        // After a step the wall clock cannot tell how many passed.
        let missed = if stepped {
            (lateness_us / 1000 + length / 2) / length
        } else {
            (self.start_wall_ms.saturating_sub(window_start_ms) / length).saturating_sub(1)
        };
        Closed {
            window_start_ms,
            window_ms,
            observed_ms: u32::try_from((observed_us + 500) / 1000).unwrap_or(u32::MAX),
            lateness_us,
            missed_edges: u32::try_from(missed).unwrap_or(u32::MAX),
            clock_step_ms: if stepped { moved } else { 0 },
            closed_ms: now.wall_ms,
        }
    }

    /// Another window length, from the next window on.
    pub fn set_window_ms(&mut self, window_ms: u32) {
        self.window_ms = window_ms;
    }
}

impl Closed {
    /// Unix time of its nominal end.
    pub fn end_ms(&self) -> u64 {
        self.window_start_ms + u64::from(self.window_ms)
    }

    /// Whether it was closed too late to pass for a window of its nominal length.
    pub fn is_late(&self) -> bool {
        self.lateness_us >= u64::from(self.window_ms) * 100
    }

    /// Windows that passed, this one with those it swallowed.
    pub fn windows(&self) -> u32 {
        self.missed_edges.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(monotonic_ms: u64, wall_ms: u64) -> Now {
        Now {
            monotonic_us: monotonic_ms * 1000,
            wall_ms,
        }
    }

    #[test]
    fn windows_are_aligned_to_the_wall_clock() {
        let mut clock = WindowClock::new(1000, now(5_000, 1_000_300));
        assert_eq!(clock.edge_us(), 5_700_000);
        let first = clock.close(now(5_701, 1_001_001));
        assert_eq!((first.window_start_ms, first.observed_ms), (1_000_000, 701));
        assert_eq!((first.lateness_us, first.missed_edges), (1000, 0));
        assert!(!first.is_late());
        let second = clock.close(now(6_700, 1_002_000));
        assert_eq!(
            (second.window_start_ms, second.observed_ms),
            (1_001_000, 999)
        );
    }

    #[test]
    fn a_timer_that_fires_early_begins_the_next_window() {
        let mut clock = WindowClock::new(1000, now(0, 1_000_000));
        clock.close(now(999, 1_000_999));
        assert_eq!(clock.window_start_ms(), 1_001_000);
        assert_eq!(clock.edge_us(), 2_000_000);
    }

    #[test]
    fn a_window_that_a_stop_cuts_short_was_closed_before_its_end() {
        let mut clock = WindowClock::new(1000, now(0, 1_000_000));
        let first = clock.close(now(700, 1_000_700));
        assert_eq!((first.closed_ms, first.end_ms()), (1_000_700, 1_001_000));
        // Its successor has begun ahead of its time.
        let second = clock.close(now(750, 1_000_750));
        assert_eq!((second.closed_ms, second.end_ms()), (1_000_750, 1_002_000));
    }

    #[test]
    fn a_suspended_process_makes_one_long_window() {
        let mut clock = WindowClock::new(1000, now(0, 1_000_000));
        let long = clock.close(now(31_250, 1_031_250));
        assert_eq!(
            (long.window_start_ms, long.observed_ms),
            (1_000_000, 31_250)
        );
        assert_eq!((long.missed_edges, long.windows()), (30, 31));
        assert!(long.is_late());
        assert_eq!(long.clock_step_ms, 0);
        assert_eq!(
            clock.close(now(32_000, 1_032_000)).window_start_ms,
            1_031_000
        );
    }

    #[test]
    fn the_time_between_two_lives_is_in_one_long_window() {
        let mut first = WindowClock::new(1000, now(0, 1_000_000));
        first.close(now(1_000, 1_001_000));
        let mut second = WindowClock::resume(&first.books()).expect("books");
        let long = second.close(now(5_300, 1_005_300));
        assert_eq!((long.window_start_ms, long.observed_ms), (1_001_000, 4_300));
        assert_eq!((long.missed_edges, long.clock_step_ms), (3, 0));
        assert!(long.is_late());
        assert!(WindowClock::resume(&ClockBooks::default()).is_none());
    }

    #[test]
    fn a_window_that_nobody_closes_is_missed() {
        for (late_ms, missed, next_start_ms) in [
            (499, 0, 1_001_000),
            (500, 1, 1_002_000),
            (1_499, 1, 1_002_000),
            (1_500, 2, 1_003_000),
        ] {
            let mut clock = WindowClock::new(1000, now(0, 1_000_000));
            let closed = clock.close(now(1_000 + late_ms, 1_001_000 + late_ms));
            assert_eq!(
                (closed.missed_edges, clock.window_start_ms()),
                (missed, next_start_ms),
                "{late_ms}"
            );
        }
    }

    #[test]
    fn another_length_holds_from_the_next_window_on() {
        let mut clock = WindowClock::new(1000, now(0, 1_000_000));
        clock.set_window_ms(2000);
        let closed = clock.close(now(1_000, 1_001_000));
        assert_eq!((closed.window_ms, closed.missed_edges), (1000, 1));
        let longer = clock.close(now(4_000, 1_004_000));
        assert_eq!(
            (longer.window_start_ms, longer.window_ms, longer.observed_ms),
            (1_002_000, 2000, 3000)
        );
    }

    #[test]
    fn a_stepped_wall_clock_is_said_and_followed() {
        for step in [3_600_000i64, -3_600_000, 60, -60] {
            let mut clock = WindowClock::new(1000, now(0, 10_000_000));
            let wall = (10_001_000 + step) as u64;
            let closed = clock.close(now(1_000, wall));
            assert_eq!((closed.observed_ms, closed.clock_step_ms), (1000, step));
            assert_eq!(closed.missed_edges, 0);
            assert_eq!(clock.window_start_ms() % 1000, 0);
            assert!(clock.window_start_ms().abs_diff(wall) <= 500);
            assert_eq!(clock.close(now(2_000, wall + 1000)).clock_step_ms, 0);
        }
        let mut clock = WindowClock::new(1000, now(0, 10_000_000));
        assert_eq!(clock.close(now(1_000, 10_001_020)).clock_step_ms, 0);
    }
}
