//! Pulses: few counters of a stream, several times a second.

use ebpf_abi::hash::{self, GROUPS};
use sampler_event::StreamPulse;

use super::{
    counts::{Cells, Counts},
    streams::{Epoch, Stream},
    window::Identity,
};

/// When a pulse was taken.
#[derive(Clone, Copy, Debug)]
pub struct PulseFrame {
    /// Unix time of its begin, a multiple of `pulse_ms`.
    pub pulse_start_ms: u64,
    /// Nominal length.
    pub pulse_ms: u32,
    /// Length that was covered.
    pub observed_ms: u32,
    /// The running window's number: `flows_active` counts from its begin.
    pub number: u32,
    /// Open stalls that only the last walk saw.
    pub walk_stalls_open: u64,
}

/// The pulse of a slot; `None` if there is nothing to say. Moves the slot's pulse baseline.
pub fn close(
    identity: &Identity,
    frame: &PulseFrame,
    stream: &mut Stream,
    epoch: &mut Epoch,
    cells: &impl Cells,
) -> Option<StreamPulse> {
    let counted = Counts::read_light(cells, epoch.slot);
    let delta = counted.since(&epoch.pulsed);
    let whole = delta.whole();
    let stalls_open = counted.stalls_open() + frame.walk_stalls_open;
    // Within its window: what was active in it so far, by the last window's baseline.
    let active =
        |counts: &Counts| -> u64 { counts.distinct(frame.number).active_by_gap.iter().sum() };
    let flows_active = active(&counted).saturating_sub(active(&epoch.counted));
    epoch.pulsed = counted;
    let progress = whole.data_segs_out + whole.retrans_segs + whole.rtt_count;
    if progress == 0 && stalls_open == 0 {
        return None;
    }
    let g_retrans_segs: Vec<u32> = if whole.retrans_segs == 0 {
        Vec::new()
    } else {
        (0..GROUPS)
            .map(|g| u32::try_from(delta.group(g).retrans_segs).unwrap_or(u32::MAX))
            .collect()
    };
    let sequence = stream.next_pulse_sequence;
    stream.next_pulse_sequence += 1;
    Some(StreamPulse {
        node: identity.node.clone(),
        site: identity.site.clone(),
        stream: stream.wanted.name.clone(),
        instance: identity.instance,
        sequence,
        pulse_start_ms: frame.pulse_start_ms,
        pulse_ms: frame.pulse_ms,
        observed_ms: frame.observed_ms,
        flags: 0,
        sampling_rate: hash::rate(epoch.threshold),
        rate_epoch: epoch.rate_epoch,
        retrans_segs: whole.retrans_segs,
        data_segs_out: whole.data_segs_out,
        rtt_count: whole.rtt_count,
        rtt_slow: whole.rtt_slow,
        stalls_open,
        flows_active,
        g_retrans_segs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{
        counts::tests::Memory,
        streams::{Streams, Wanted},
    };
    use ebpf_abi::offsets::RTT_FROM_CALLBACK;

    #[test]
    fn pulses_add_up_and_silence_sends_none() {
        let mut streams = Streams::new(4);
        let wanted = Wanted {
            name: "sport-1".into(),
            rate: 1.0,
            pulse_ms: 100,
            rtt_slow_us: 200_000,
            labels: Default::default(),
        };
        streams.apply(&[wanted], &mut Vec::new());
        let memory = Memory::default();
        let identity = Identity {
            node: "n".into(),
            site: "s".into(),
            instance: 1,
            previous_instance: 0,
            sampling_key_id: 0,
            rtt_source: RTT_FROM_CALLBACK,
            hz: 250,
        };
        let frame = PulseFrame {
            pulse_start_ms: 0,
            pulse_ms: 100,
            observed_ms: 100,
            number: 1,
            walk_stalls_open: 0,
        };
        let mut pulse = || {
            let (all, epochs) = streams.epochs_mut();
            close(&identity, &frame, &mut all[0], &mut epochs[0], &memory)
        };
        assert_eq!(pulse(), None);
        memory.edit(0, |c| {
            c.groups[1].data_segs_out = 10;
            c.groups[2].retrans_segs = 3;
            c.groups[2].rtt_count = 4;
            c.distinct[1].active_by_gap[0] = 2;
        });
        let first = pulse().expect("a pulse");
        assert_eq!(
            (first.sequence, first.retrans_segs, first.rtt_count),
            (0, 3, 4)
        );
        assert_eq!((first.flows_active, first.g_retrans_segs[2]), (2, 3));
        assert_eq!(pulse(), None);
        memory.edit(0, |c| c.counters.stalls = 1);
        let open = pulse().expect("a pulse");
        assert_eq!(
            (open.sequence, open.stalls_open, open.g_retrans_segs.len()),
            (1, 1, 0)
        );
    }
}
