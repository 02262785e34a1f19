//! Stalls that callbacks see: time without progress while data is outstanding.
//!
//! A retransmission timer that fires after more than [`limit_us`] without a delivery opens a
//! stall. Three timers in a row make it a network stall at once. After one or two it may have
//! been a delay that no loss caused: then the verdict waits for the acknowledgements that
//! follow, because a needless retransmission is reported as a duplicate (DSACK, RFC 2883). Only
//! if all retransmissions were needless was nothing lost. A stall that begins before the verdict
//! on the one before shares its verdict: the reports of both cannot be told apart. Time that an
//! RTT sample alone bears witness to is never the network's loss. Limit: a delay that jumps by
//! more than the first three timers (seven times the RTO) passes for the network, because time
//! that was counted cannot be taken back.
//!
//! Stalls without anything in flight (receiver, sender) raise no callback: the walk sees them.

use ebpf_abi::flow::{FlowState, STALL_NETWORK, STALL_NONE, STALL_UNDECIDED};

/// A flow at a callback. Times in µs on the kernel's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// `tcp_mstamp`.
    pub now_us: u64,
    /// `delivered_mstamp`: the last new ACK or SACK, or the send that ended an idle time.
    pub delivered_us: u64,
    /// From [`limit_us`].
    pub limit_us: u32,
    /// `dsack_dups`.
    pub dsack_dups: u32,
    /// `total_retrans`, without the retransmission that the callback itself is about.
    pub retrans_before: u32,
}

/// What a callback adds to the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Stalls recognised now.
    pub stalls: u32,
    /// Stalls that ended now.
    pub ended: u32,
    /// Time now known to be the network's.
    pub network_us: u32,
    /// Time now known to be something else's.
    pub other_us: u32,
    /// Length so far of the longest stall touched.
    pub longest_us: u32,
}

/// Timers that fired before for the same data, from which on the network is to blame at once.
const EARLIER_TIMERS: u32 = 2;
/// Stalled time that may wait for a verdict when one more stall begins, so that a flow with
/// stall after stall is not judged at its end only.
const LONGEST_WAITING_US: u32 = 2_000_000;
/// Shortest time without progress that can be a stall.
const SHORTEST_US: u32 = 200_000;

/// θ = max(200 ms, min(2·SRTT, RTO)), with the RTO of RFC 6298 before back-off.
#[inline(always)]
pub const fn limit_us(srtt_us: u32, rttvar_us: u32) -> u32 {
    let rto = srtt_us.saturating_add(rttvar_us);
    let twice = srtt_us.saturating_mul(2);
    let limit = if twice < rto { twice } else { rto };
    if limit > SHORTEST_US {
        limit
    } else {
        SHORTEST_US
    }
}

#[inline(always)]
const fn elapsed_us(from: u64, to: u64) -> u32 {
    // Clamped at both ends: the two stamps are taken at different places of the kernel.
    let us = to.saturating_sub(from);
    if us > u32::MAX as u64 {
        u32::MAX
    } else {
        us as u32
    }
}

#[inline(always)]
fn longest(found: &mut Found, us: u32) {
    if us > found.longest_us {
        found.longest_us = us;
    }
}

/// Gives the verdict on ended stalls, when it can be given.
#[inline(always)]
fn settle(flow: &mut FlowState, seen: &Seen, at_once: bool, found: &mut Found) {
    if flow.verdict_us == 0 || flow.stall != STALL_NONE {
        return;
    }
    let needless = seen.dsack_dups.wrapping_sub(flow.verdict_dsack_dups);
    if needless != 0 && needless >= flow.verdict_retrans {
        found.other_us += flow.verdict_us;
    } else if at_once || seen.now_us >= flow.verdict_at_us {
        found.network_us += flow.verdict_us;
    } else {
        return;
    }
    flow.verdict_us = 0;
}

#[inline(always)]
fn end(flow: &mut FlowState, until_us: u64, seen: &Seen, found: &mut Found) {
    let length = elapsed_us(flow.stall_since_us, until_us);
    longest(found, length);
    if flow.stall == STALL_NETWORK {
        let rest = length.saturating_sub(flow.stall_counted_us);
        found.network_us += rest.saturating_add(flow.verdict_us);
        flow.verdict_us = 0;
    } else {
        flow.verdict_us = flow.verdict_us.saturating_add(length);
        // From now on: how many, not since when.
        flow.verdict_retrans = seen.retrans_before.wrapping_sub(flow.verdict_retrans);
        // The duplicate's report takes one round trip. That may be twice as long as the stall
        // was, whose own acknowledgement perhaps met the delay on one way only.
        flow.verdict_at_us = seen.now_us + 2 * length as u64 + seen.limit_us as u64;
    }
    flow.stall = STALL_NONE;
    found.ended += 1;
}

/// Any callback: ends a stall whose flow has moved on.
#[inline(always)]
pub fn observe(flow: &mut FlowState, seen: &Seen, found: &mut Found) {
    settle(flow, seen, false, found);
    if flow.stall != STALL_NONE && seen.delivered_us != flow.stall_since_us {
        end(flow, seen.delivered_us, seen, found);
    }
}

/// A retransmission, or a timer that fired `earlier_timers` times before for the same data.
#[inline(always)]
pub fn timer(flow: &mut FlowState, seen: &Seen, earlier_timers: u32, found: &mut Found) {
    observe(flow, seen, found);
    let gap = elapsed_us(seen.delivered_us, seen.now_us);
    if flow.stall == STALL_NONE {
        if gap <= seen.limit_us {
            return;
        }
        if flow.verdict_us > LONGEST_WAITING_US {
            settle(flow, seen, true, found);
        }
        flow.stall = STALL_UNDECIDED;
        flow.stall_since_us = seen.delivered_us;
        flow.stall_counted_us = 0;
        if flow.verdict_us == 0 {
            flow.verdict_dsack_dups = seen.dsack_dups;
            flow.verdict_retrans = seen.retrans_before;
        } else {
            // The count goes on: since so many retransmissions ago.
            flow.verdict_retrans = seen.retrans_before.wrapping_sub(flow.verdict_retrans);
        }
        found.stalls += 1;
    }
    longest(found, gap);
    if earlier_timers >= EARLIER_TIMERS {
        flow.stall = STALL_NETWORK;
    }
    if flow.stall == STALL_NETWORK {
        found.network_us += gap.saturating_sub(flow.stall_counted_us);
        flow.stall_counted_us = gap;
    }
}

/// Whether an RTT sample changes nothing but the time of the last delivery, as nearly all do:
/// then the rest of what [`sample`] looks at need not be read.
#[inline(always)]
pub fn is_calm(flow: &FlowState, now_us: u64, delivered_us: u64) -> bool {
    flow.verdict_us == 0
        && flow.stall == STALL_NONE
        && elapsed_us(delivered_us, now_us) <= SHORTEST_US
        && elapsed_us(flow.delivered_us, delivered_us) <= SHORTEST_US
}

/// An RTT sample: something new was acknowledged just now.
#[inline(always)]
pub fn sample(flow: &mut FlowState, seen: &Seen, rtt_us: u32, found: &mut Found) {
    settle(flow, seen, false, found);
    // A send that ends an idle time moves `delivered_mstamp` to itself: that is when a flow
    // resumed that had waited for its receiver, and which no other callback would show.
    if elapsed_us(flow.delivered_us, seen.delivered_us) > SHORTEST_US {
        flow.resumed_us = seen.delivered_us;
    }
    flow.delivered_us = seen.delivered_us;
    if flow.stall != STALL_NONE {
        // The callback runs before `delivered_mstamp` moves, mostly.
        let moved = seen.delivered_us != flow.stall_since_us;
        end(
            flow,
            if moved {
                seen.delivered_us
            } else {
                seen.now_us
            },
            seen,
            found,
        );
        return;
    }
    let gap = elapsed_us(seen.delivered_us, seen.now_us);
    if gap > seen.limit_us && rtt_us > seen.limit_us {
        let length = if gap < rtt_us { gap } else { rtt_us };
        found.stalls += 1;
        found.ended += 1;
        found.other_us += length;
        longest(found, length);
    }
}

/// The end of the flow: nothing stays undecided.
#[inline(always)]
pub fn finish(flow: &mut FlowState, seen: &Seen, found: &mut Found) {
    observe(flow, seen, found);
    if flow.stall != STALL_NONE {
        flow.stall = STALL_NETWORK;
        end(flow, seen.now_us, seen, found);
    }
    settle(flow, seen, true, found);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    struct Run {
        flow: FlowState,
        sum: Found,
        dsack_dups: u32,
        retrans: u32,
    }

    impl Run {
        fn new() -> Self {
            Self {
                flow: FlowState::default(),
                sum: Found::default(),
                dsack_dups: 0,
                retrans: 0,
            }
        }

        fn at(
            &mut self,
            now_ms: u64,
            delivered_ms: u64,
            call: fn(&mut FlowState, &Seen, &mut Found),
        ) {
            let seen = Seen {
                now_us: now_ms * MS,
                delivered_us: delivered_ms * MS,
                limit_us: limit_us(20_000, 200_000),
                dsack_dups: self.dsack_dups,
                retrans_before: self.retrans,
            };
            let mut found = Found::default();
            call(&mut self.flow, &seen, &mut found);
            self.sum.stalls += found.stalls;
            self.sum.ended += found.ended;
            self.sum.network_us += found.network_us;
            self.sum.other_us += found.other_us;
            self.sum.longest_us = self.sum.longest_us.max(found.longest_us);
        }

        fn check(&self, stalls: u32, network_ms: u64, other_ms: u64) {
            let got = (
                self.sum.stalls,
                u64::from(self.sum.network_us),
                u64::from(self.sum.other_us),
            );
            assert_eq!(got, (stalls, network_ms * MS, other_ms * MS));
        }
    }

    const FIRST: fn(&mut FlowState, &Seen, &mut Found) = |f, s, o| timer(f, s, 0, o);
    const SECOND: fn(&mut FlowState, &Seen, &mut Found) = |f, s, o| timer(f, s, 1, o);
    const THIRD: fn(&mut FlowState, &Seen, &mut Found) = |f, s, o| timer(f, s, 2, o);
    const SLOW_SAMPLE: fn(&mut FlowState, &Seen, &mut Found) = |f, s, o| sample(f, s, 320_000, o);
    const SAMPLE: fn(&mut FlowState, &Seen, &mut Found) = |f, s, o| sample(f, s, 20_000, o);

    #[test]
    fn limits() {
        assert_eq!(limit_us(20_000, 200_000), 200_000);
        assert_eq!(limit_us(150_000, 200_000), 300_000);
        assert_eq!(limit_us(300_000, 200_000), 500_000);
        assert_eq!(limit_us(u32::MAX, u32::MAX), u32::MAX);
    }

    #[test]
    fn a_blackout_is_one_network_stall_seen_while_it_is_open() {
        let mut run = Run::new();
        run.at(1220, 1000, FIRST);
        run.check(1, 0, 0);
        run.at(1660, 1000, SECOND);
        run.check(1, 0, 0);
        assert_eq!(run.sum.ended, 0);
        run.at(2540, 1000, THIRD);
        run.check(1, 1540, 0);
        run.at(4320, 1000, SAMPLE);
        run.check(1, 3320, 0);
        run.at(4340, 4320, SAMPLE);
        run.check(1, 3320, 0);
        assert_eq!((run.sum.longest_us, run.sum.ended), (3_320_000, 1));
    }

    #[test]
    fn progress_is_also_seen_by_the_next_retransmission() {
        let mut run = Run::new();
        run.at(1220, 1000, FIRST);
        run.at(1660, 1000, SECOND);
        run.at(2540, 1000, THIRD);
        run.at(2580, 2560, FIRST);
        run.check(1, 1560, 0);
        run.at(2580, 2560, finish);
        run.check(1, 1560, 0);
    }

    #[test]
    fn one_timer_waits_for_its_verdict() {
        let mut lost = Run::new();
        lost.at(1220, 1000, FIRST);
        lost.at(1240, 1000, SAMPLE);
        lost.check(1, 0, 0);
        lost.at(2000, 1990, SAMPLE);
        lost.check(1, 240, 0);

        let mut late = Run::new();
        late.at(1220, 1000, FIRST);
        late.retrans = 1;
        late.at(1320, 1000, SLOW_SAMPLE);
        late.dsack_dups = 1;
        late.at(1500, 1490, SAMPLE);
        late.check(1, 0, 320);
    }

    #[test]
    fn two_timers_for_nothing_are_a_delay() {
        let mut run = Run::new();
        run.at(1220, 1000, FIRST);
        run.retrans = 1;
        run.at(1660, 1000, SECOND);
        run.retrans = 2;
        run.at(2440, 1000, SLOW_SAMPLE);
        run.check(1, 0, 0);
        // The first duplicate alone proves nothing about the second retransmission.
        run.dsack_dups = 1;
        run.at(2660, 2440, SAMPLE);
        run.check(1, 0, 0);
        run.dsack_dups = 2;
        run.at(3100, 3000, SAMPLE);
        run.check(1, 0, 1440);
    }

    #[test]
    fn an_acknowledgement_lost_in_a_blackout_is_no_delay() {
        // The data had arrived before the path broke, so the retransmission that got through
        // was a duplicate; the one before it was lost.
        let mut run = Run::new();
        run.at(1220, 1000, FIRST);
        run.retrans = 1;
        run.at(1660, 1000, SECOND);
        run.retrans = 2;
        run.dsack_dups = 1;
        run.at(1680, 1000, SAMPLE);
        run.at(5000, 4990, SAMPLE);
        run.check(1, 680, 0);
    }

    #[test]
    fn a_delay_below_the_timer_is_other() {
        let mut run = Run::new();
        run.at(1320, 1000, SLOW_SAMPLE);
        run.check(1, 0, 320);
        run.at(1330, 1320, SAMPLE);
        run.check(1, 0, 320);
    }

    #[test]
    fn an_idle_time_is_no_stall() {
        let mut run = Run::new();
        run.at(1000, 980, SAMPLE);
        // Ten seconds of nothing; the send after it moves `delivered_mstamp` to itself.
        run.at(11_020, 11_000, SAMPLE);
        assert_eq!(run.flow.resumed_us, 11_000 * MS);
        run.at(11_100, 11_060, FIRST);
        run.check(0, 0, 0);
    }

    #[test]
    fn the_end_settles_everything() {
        let mut vanished = Run::new();
        vanished.at(1220, 1000, FIRST);
        vanished.at(9000, 1000, finish);
        vanished.check(1, 8000, 0);

        let mut undecided = Run::new();
        undecided.at(1220, 1000, FIRST);
        undecided.at(1240, 1000, SAMPLE);
        undecided.at(1250, 1240, finish);
        undecided.check(1, 240, 0);
    }

    #[test]
    fn a_second_stall_shares_the_verdict() {
        let mut run = Run::new();
        run.at(1220, 1000, FIRST);
        run.at(1240, 1000, SAMPLE);
        run.at(1460, 1240, FIRST);
        run.check(2, 0, 0);
        run.at(1500, 1500, finish);
        run.check(2, 500, 0);
    }

    #[test]
    fn a_jump_that_is_met_in_halves_is_one_delay() {
        let mut run = Run::new();
        // The first acknowledgement met the delay on its way back only.
        run.at(1320, 1000, FIRST);
        run.retrans = 1;
        run.at(1740, 1000, SLOW_SAMPLE);
        // Data sent then meets it both ways; the first duplicate's report is still on its way.
        run.at(2640, 1740, FIRST);
        run.retrans = 2;
        run.dsack_dups = 1;
        run.at(3180, 1740, SLOW_SAMPLE);
        run.check(2, 0, 0);
        run.dsack_dups = 2;
        run.at(4080, 3200, SAMPLE);
        run.check(2, 0, 740 + 1440);
    }

    #[test]
    fn stall_after_stall_is_judged_meanwhile() {
        let mut run = Run::new();
        for n in 0..20 {
            let begin = 1000 + n * 300;
            run.at(begin + 220, begin, FIRST);
            run.retrans += 1;
            run.at(begin + 300, begin, SAMPLE);
        }
        assert_eq!((run.sum.stalls, run.sum.other_us), (20, 0));
        assert!(run.sum.network_us >= 3_600_000, "{}", run.sum.network_us);
        run.at(9000, 8990, SAMPLE);
        run.check(20, 20 * 300, 0);
    }

    #[test]
    fn a_third_timer_judges_what_waited_too() {
        let mut run = Run::new();
        run.at(1220, 1000, FIRST);
        run.at(1240, 1000, SAMPLE);
        run.at(1460, 1240, FIRST);
        run.at(1900, 1240, SECOND);
        run.at(2780, 1240, THIRD);
        run.at(2800, 1240, SAMPLE);
        run.check(2, 240 + 1560, 0);
    }

    #[test]
    fn clocks_that_run_backwards_add_nothing() {
        let mut run = Run::new();
        run.at(900, 1000, FIRST);
        run.at(900, 1000, SLOW_SAMPLE);
        run.at(900, 1000, finish);
        run.check(0, 0, 0);
    }
}
