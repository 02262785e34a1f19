//! One window of one slot: the difference of two readings, as an event.

use std::collections::VecDeque;

use ebpf_abi::{
    cells::{ACTIVE_GAPS, Extremes},
    hash::{self, GROUPS},
    offsets::RTT_FROM_CALLBACK,
};
use sampler_event::{Flag, Histogram, Layout, RttSource, StreamWindow, codec};

use super::{
    clock::Closed,
    counts::{Cells, Counts},
    streams::{Epoch, Stream},
    walk::SlotWalk,
};

/// What is the same for every event of this node.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the node.
    pub node: String,
    /// Name of the site.
    pub site: String,
    /// Random id of this life of the daemon.
    pub instance: u64,
    /// Instance before this one, 0: none known.
    pub previous_instance: u64,
    /// Id of the sampling key.
    pub sampling_key_id: u32,
    /// As [`ebpf_abi::offsets::Offsets::rtt_source`].
    pub rtt_source: u32,
    /// Ticks of the kernel in a second.
    pub hz: u32,
}

impl Identity {
    /// Kernel ticks as µs.
    pub fn jiffies_us(&self, jiffies: u64) -> u64 {
        (u128::from(jiffies) * 1_000_000 / u128::from(self.hz.max(1))) as u64
    }

    /// As the event says it.
    pub fn rtt_source(&self) -> RttSource {
        if self.rtt_source == RTT_FROM_CALLBACK {
            RttSource::Callback
        } else {
            RttSource::Rack
        }
    }
}

/// The window that is closed.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Its times.
    pub closed: Closed,
    /// The kernel side's number of it.
    pub number: u32,
    /// Numbers that were left out before it.
    pub skipped: u32,
    /// When the event leaves the window stage.
    pub emitted_ms: u64,
    /// Flags of every event of it.
    pub flags: u32,
}

/// Flows with data in recent windows, to tell how many distinct ones the last 10 s had.
#[derive(Clone, Debug, Default)]
pub struct ActiveHistory(VecDeque<[u64; ACTIVE_GAPS]>);

impl ActiveHistory {
    /// Adds a window, after `skipped` that were empty, and counts the distinct flows in the
    /// last `windows` of them: those of each window, less those that had data again later.
    pub fn push(&mut self, active_by_gap: [u64; ACTIVE_GAPS], skipped: u32, windows: usize) -> u64 {
        let windows = windows.clamp(1, ACTIVE_GAPS);
        for _ in 0..skipped.min(ACTIVE_GAPS as u32) {
            self.0.push_front([0; ACTIVE_GAPS]);
        }
        self.0.push_front(active_by_gap);
        self.0.truncate(windows);
        let mut flows = 0;
        for (age, by_gap) in self.0.iter().enumerate() {
            flows += by_gap.iter().sum::<u64>();
            // A flow that was last active `gap` windows before is counted there already.
            let counted: u64 = (1..windows.saturating_sub(age))
                .map(|gap| by_gap[gap])
                .sum();
            flows = flows.saturating_sub(counted);
        }
        flows
    }
}

fn histogram(layout: Layout, counts: &[u64], extremes: Option<Extremes>) -> Histogram {
    let mut histogram = Histogram::new(layout);
    for (index, count) in counts.iter().enumerate().filter(|(_, count)| **count != 0) {
        // The layouts agree (checked below), so the index is in range.
        let _ = histogram.add(index, *count);
    }
    if let Some(extremes) = extremes {
        histogram.tighten(extremes.rtt_min_us.into(), extremes.rtt_max_us.into());
    }
    histogram
}

fn group(of: impl Fn(usize) -> u64) -> Vec<u32> {
    let values: Vec<u32> = (0..GROUPS)
        .map(|g| u32::try_from(of(g)).unwrap_or(u32::MAX))
        .collect();
    if values.iter().all(|v| *v == 0) {
        Vec::new()
    } else {
        values
    }
}

/// The event of a slot's window; `None` if there is nothing to say. Moves the slot's baseline.
pub fn close(
    identity: &Identity,
    frame: &Frame,
    stream: &mut Stream,
    epoch: &mut Epoch,
    cells: &impl Cells,
    walk: &SlotWalk,
) -> Option<StreamWindow> {
    let counted = Counts::read(cells, epoch.slot, &epoch.counted);
    let delta = counted.since(&epoch.counted);
    let ended_unseen = match epoch.is_deserted() {
        true => epoch.flows_open(&counted),
        false => 0,
    };
    epoch.ended_unseen += ended_unseen;
    let flows_open = epoch.flows_open(&counted);
    let stalls_open = counted.stalls_open() + walk.stalls_open;
    let distinct = delta.distinct(frame.number);
    let windows = 10_000 / frame.closed.window_ms.max(1) as usize;
    let flows_active_10s = epoch
        .active
        .push(distinct.active_by_gap, frame.skipped, windows);
    let walked_us = std::array::from_fn::<_, GROUPS, _>(|g| {
        walk.group_stall_us[g].saturating_sub(epoch.walked_us[g])
    });
    let is_zero = delta.is_zero();
    let earlier = epoch.count(counted, is_zero);
    epoch.walked_us = walk.group_stall_us;
    let (c, whole) = (delta.counters(), delta.whole());
    stream.lost_flows += c.flows_refused;
    if is_zero && flows_open == 0 && walk.stalls == 0 && ended_unseen == 0 {
        return None;
    }

    let extremes = cells.extremes(epoch.slot, frame.number);
    let rtt = histogram(Layout::RTT, delta.rtt(), Some(extremes));
    let bounds = rtt.bounds_us();
    // ms and µs of groups are rounded on the cumulative value, so that windows add up.
    let jiffies_ms =
        |counts: &Counts, g: usize| identity.jiffies_us(counts.group(g).busy_jiffies) / 1000;
    let stall_ms = |g: usize| {
        let now = epoch.counted.group(g).stall_us + walk.group_stall_us[g];
        let then = earlier.group(g).stall_us + (walk.group_stall_us[g] - walked_us[g]);
        (now / 1000).saturating_sub(then / 1000)
    };
    let us = |now: u64, then: u64| identity.jiffies_us(now) - identity.jiffies_us(then);
    let (now, then) = (epoch.counted.counters(), earlier.counters());
    let mut flags = frame.flags;
    let mut flag = |condition: bool, flag: Flag| {
        if condition {
            flags |= flag as u32;
        }
    };
    flag(frame.closed.is_late(), Flag::LateRead);
    flag(frame.closed.clock_step_ms != 0, Flag::ClockStep);
    flag(now.flows_picked_up != 0 && flows_open != 0, Flag::PickedUp);
    flag(c.flows_refused != 0, Flag::Biased);
    flag(
        epoch.fresh && stream.next_sequence == 0 && identity.previous_instance != 0,
        Flag::Restarted,
    );
    epoch.fresh = false;
    let sequence = stream.next_sequence;
    stream.next_sequence += 1;

    Some(StreamWindow {
        node: identity.node.clone(),
        site: identity.site.clone(),
        stream: stream.wanted.name.clone(),
        instance: identity.instance,
        previous_instance: identity.previous_instance,
        sequence,
        window_start_ms: frame.closed.window_start_ms,
        window_ms: frame.closed.window_ms,
        observed_ms: frame.closed.observed_ms,
        emitted_ms: frame.emitted_ms,
        clock_step_ms: frame.closed.clock_step_ms,
        missed_edges: frame.closed.missed_edges,
        flags,
        sampling_rate: hash::rate(epoch.threshold),
        rate_epoch: epoch.rate_epoch,
        sampling_key_id: identity.sampling_key_id,
        flows_seen: c.flows_seen,
        flows_selected: c.flows_selected,
        flows_sampled: c.flows_sampled,
        flows_closed: c.flows_closed + ended_unseen,
        flows_picked_up: c.flows_picked_up,
        flows_open,
        flows_active: distinct.active_by_gap.iter().sum(),
        flows_active_10s,
        flows_retransmitting: distinct.retransmitting,
        flows_stalled: distinct.stalled + walk.flows_stalled,
        flows_silent: walk.flows_silent,
        flows_unhooked: walk.flows_unhooked,
        bytes_sent: c.bytes_sent,
        bytes_acked: c.bytes_acked,
        bytes_retrans: c.bytes_retrans,
        data_segs_out: whole.data_segs_out,
        retrans_segs: whole.retrans_segs,
        retrans_rto_segs: c.retrans_rto_segs,
        retrans_fast_segs: c.retrans_fast_segs,
        retrans_other_segs: c.retrans_other_segs,
        retrans_failed_segs: c.retrans_failed_segs,
        syn_retrans: c.syn_retrans,
        rto_count: c.rto_count,
        dsack_dups: c.dsack_dups,
        rtt_source: identity.rtt_source().into(),
        rtt_count: delta.rtt().iter().sum(),
        rtt_sum_us: c.rtt_sum_us,
        rtt_min_us: bounds.as_ref().map_or(0, |b| *b.start()),
        rtt_max_us: bounds.as_ref().map_or(0, |b| *b.end()),
        rtt_counts: codec::encode(&rtt),
        rtt_handshake_counts: codec::encode(&histogram(
            Layout::COARSE,
            delta.rtt_handshake(),
            None,
        )),
        rtt_min_counts: codec::encode(&histogram(Layout::COARSE, delta.rtt_min(), None)),
        stalls: c.stalls + walk.stalls,
        stalls_open,
        stall_network_us: c.stall_network_us,
        stall_receiver_us: walk.stall_receiver_us,
        stall_sender_us: walk.stall_sender_us,
        stall_other_us: c.stall_other_us,
        stall_longest_us: u64::from(extremes.stall_longest_us).max(walk.stall_longest_us),
        busy_us: us(
            epoch.counted.whole().busy_jiffies,
            earlier.whole().busy_jiffies,
        ),
        rwnd_limited_us: us(now.rwnd_limited_jiffies, then.rwnd_limited_jiffies),
        sndbuf_limited_us: us(now.sndbuf_limited_jiffies, then.sndbuf_limited_jiffies),
        g_retrans_segs: group(|g| delta.group(g).retrans_segs),
        g_data_segs_out: group(|g| delta.group(g).data_segs_out),
        g_stall_ms: group(stall_ms),
        g_busy_ms: group(|g| jiffies_ms(&epoch.counted, g) - jiffies_ms(&earlier, g)),
        g_rtt_count: group(|g| delta.group(g).rtt_count),
        g_rtt_slow: group(|g| delta.group(g).rtt_slow),
        lost_flows: stream.lost_flows,
        lost_reads: stream.lost_reads,
        spool_dropped_events: 0,
        dead_letter_events: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{
        counts::tests::Memory,
        streams::{Streams, Wanted},
    };

    fn identity() -> Identity {
        Identity {
            node: "edge-07".into(),
            site: "ams1".into(),
            instance: 1,
            previous_instance: 0,
            sampling_key_id: 9,
            rtt_source: RTT_FROM_CALLBACK,
            hz: 250,
        }
    }

    fn frame(number: u32) -> Frame {
        let closed = Closed {
            window_start_ms: u64::from(number) * 1000,
            window_ms: 1000,
            observed_ms: 1000,
            lateness_us: 0,
            missed_edges: 0,
            clock_step_ms: 0,
            closed_ms: u64::from(number) * 1000 + 1000,
        };
        Frame {
            closed,
            number,
            skipped: 0,
            emitted_ms: 0,
            flags: 0,
        }
    }

    fn streams() -> Streams {
        let mut streams = Streams::new(4);
        let wanted = Wanted {
            name: "sport-1".into(),
            rate: 0.25,
            pulse_ms: 0,
            rtt_slow_us: 200_000,
            labels: Default::default(),
        };
        streams.apply(&[wanted], &mut Vec::new());
        streams
    }

    fn close_one(streams: &mut Streams, memory: &Memory, number: u32) -> Option<StreamWindow> {
        let (all, epochs) = streams.epochs_mut();
        close(
            &identity(),
            &frame(number),
            &mut all[0],
            &mut epochs[0],
            memory,
            &SlotWalk::default(),
        )
    }

    #[test]
    fn both_sides_agree_on_the_histograms() {
        use ebpf_abi::histogram::{COARSE_BITS, COARSE_BUCKETS, RTT_BITS, RTT_BUCKETS, bucket};
        assert_eq!(Histogram::new(Layout::RTT).counts().len(), RTT_BUCKETS);
        assert_eq!(
            Histogram::new(Layout::COARSE).counts().len(),
            COARSE_BUCKETS
        );
        for shift in 0..32 {
            for add in [0u32, 1, 7, 100] {
                let value = (1u32 << shift).wrapping_add(add << (shift / 2));
                let mut fine = Histogram::new(Layout::RTT);
                fine.record(value.into());
                assert_eq!(fine.counts()[bucket::<RTT_BITS>(value)], 1, "{value}");
                let mut coarse = Histogram::new(Layout::COARSE);
                coarse.record(value.into());
                assert_eq!(coarse.counts()[bucket::<COARSE_BITS>(value)], 1, "{value}");
            }
        }
    }

    #[test]
    fn windows_add_up_to_what_was_counted() {
        let (mut streams, memory) = (streams(), Memory::default());
        let mut sum = (0, 0, 0, 0);
        for number in 1..=20u32 {
            memory.edit(0, |c| {
                c.counters.flows_sampled += 1;
                c.groups[3].retrans_segs += u64::from(number % 3);
                c.groups[4].busy_jiffies += 7;
                c.groups[4].stall_us += 1700;
                c.rtt[100] += 2;
            });
            let event = close_one(&mut streams, &memory, number).expect("an event");
            assert_eq!(event.sequence, u64::from(number) - 1);
            sum.0 += event.retrans_segs;
            sum.1 += event.busy_us;
            sum.2 += u64::from(event.g_busy_ms.get(4).copied().unwrap_or(0));
            sum.3 += u64::from(event.g_stall_ms.get(4).copied().unwrap_or(0));
            assert_eq!(event.rtt_count, 2);
        }
        assert_eq!(sum, (21, 20 * 7 * 4000, 20 * 28, 34));
    }

    #[test]
    fn a_silent_stream_says_nothing_and_loses_no_sequence() {
        let (mut streams, memory) = (streams(), Memory::default());
        assert_eq!(close_one(&mut streams, &memory, 1), None);
        memory.edit(0, |c| c.counters.flows_seen = 3);
        let event = close_one(&mut streams, &memory, 2).expect("an event");
        assert_eq!(
            (event.sequence, event.flows_seen, event.rate_epoch),
            (0, 3, 1)
        );
        assert_eq!((event.sampling_rate, event.sampling_key_id), (0.25, 9));
        assert_eq!(close_one(&mut streams, &memory, 3), None);
    }

    #[test]
    fn an_open_flow_keeps_its_stream_audible() {
        let (mut streams, memory) = (streams(), Memory::default());
        memory.edit(0, |c| c.counters.flows_sampled = 1);
        close_one(&mut streams, &memory, 1);
        let quiet = close_one(&mut streams, &memory, 2).expect("an event");
        assert_eq!((quiet.flows_open, quiet.flows_sampled), (1, 0));
        memory.edit(0, |c| c.counters.flows_closed = 1);
        assert_eq!(
            close_one(&mut streams, &memory, 3).map(|w| w.flows_closed),
            Some(1)
        );
        assert_eq!(close_one(&mut streams, &memory, 4), None);
    }

    #[test]
    fn refused_flows_mark_the_window() {
        let (mut streams, memory) = (streams(), Memory::default());
        memory.edit(0, |c| c.counters.flows_refused = 5);
        let event = close_one(&mut streams, &memory, 1).expect("an event");
        assert_eq!((event.flags, event.lost_flows), (Flag::Biased as u32, 5));
        memory.edit(0, |c| c.counters.flows_seen = 5);
        let event = close_one(&mut streams, &memory, 2).expect("an event");
        assert_eq!((event.flags, event.lost_flows), (0, 5));
    }

    #[test]
    fn distinct_flows_of_ten_seconds() {
        // Three flows: a has data in every window, b in every third, c once.
        let mut history = ActiveHistory::default();
        let mut last = [0u32; 3];
        let mut truth: Vec<Vec<usize>> = Vec::new();
        for window in 1..=40u32 {
            let mut by_gap = [0; ACTIVE_GAPS];
            let mut active = Vec::new();
            for flow in 0..3 {
                let has_data = match flow {
                    0 => true,
                    1 => window % 3 == 0,
                    _ => window == 5,
                };
                if has_data {
                    let gap = (window - last[flow]) as usize;
                    by_gap[if last[flow] == 0 || gap >= ACTIVE_GAPS {
                        0
                    } else {
                        gap
                    }] += 1;
                    last[flow] = window;
                    active.push(flow);
                }
            }
            truth.push(active);
            let mut recent: Vec<_> = truth.iter().rev().take(10).flatten().collect();
            recent.sort();
            recent.dedup();
            assert_eq!(
                history.push(by_gap, 0, 10),
                recent.len() as u64,
                "window {window}"
            );
        }
        assert_eq!(history.push([0; ACTIVE_GAPS], 20, 10), 0);
    }
}
