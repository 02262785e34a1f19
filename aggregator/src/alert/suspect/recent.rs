//! The traffic of the last moments of one node, for each of its sampling rates.
//!
//! Input: pulses, also some that come late. Output: segments whose retransmits a pulse can hold, flows that were there. While a rate changes,
//! a node has a pulse for each of them; each is held against its own past.

use sampler_event::StreamPulse;
use serde::{Deserialize, Serialize};

use super::Design;

/// Sampling rates at a time: as many as the sampler keeps.
const EPOCHS: usize = 4;
/// What is older than this is no longer there, ms.
const PRESENT_MS: u64 = 2_000;
/// A pulse that is older than the newest by more is not late: the node's clock was set back.
const SET_BACK_MS: u64 = 10_000;

/// Recent traffic by sampling rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent(Vec<Epoch>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Epoch {
    number: u32,
    /// End of its newest pulse, Unix ms.
    newest_ms: u64,
    /// Segments sent per ms, exponential mean.
    sent_per_ms: f64,
    /// A second, and flows with data in it so far and in the one before.
    second: u64,
    flows: [u64; 2],
}

impl Recent {
    /// Takes in a pulse. Returns the segments whose retransmits it can hold: those sent in it or, if that is more, what the recent past had in
    /// the same time. Retransmits come a round trip or a timeout after what they repair, so they can belong to a burst that is over.
    pub fn take(
        &mut self,
        pulse: &StreamPulse,
        end_ms: u64,
        length_ms: u64,
        design: &Design,
    ) -> f64 {
        let (sent, length) = (pulse.data_segs_out as f64, length_ms as f64);
        let epoch = self.epoch(pulse.rate_epoch);
        epoch.count_flows(pulse);
        if epoch.newest_ms.saturating_sub(end_ms) > SET_BACK_MS {
            epoch.newest_ms = end_ms;
        }
        if end_ms > epoch.newest_ms {
            let passed = (end_ms - epoch.newest_ms) as f64;
            let part = 1.0 - (-length / design.recent_ms).exp();
            epoch.sent_per_ms *= (-passed / design.recent_ms).exp();
            epoch.sent_per_ms += sent / length * part;
            epoch.newest_ms = end_ms;
        }
        sent.max(epoch.sent_per_ms * length)
    }

    /// The place of a rate: its own, or the one that was longest without pulses.
    fn epoch(&mut self, number: u32) -> &mut Epoch {
        let known = self.0.iter().position(|epoch| epoch.number == number);
        let place = known.unwrap_or_else(|| {
            let oldest = (0..self.0.len()).min_by_key(|place| self.0[*place].newest_ms);
            let full = self.0.len() >= EPOCHS;
            if let Some(oldest) = oldest.filter(|_| full) {
                self.0.swap_remove(oldest);
            }
            self.0.push(Epoch {
                number,
                ..Epoch::default()
            });
            self.0.len() - 1
        });
        &mut self.0[place]
    }

    fn present(&self, newest_ms: u64) -> impl Iterator<Item = &Epoch> {
        let since_ms = newest_ms.saturating_sub(PRESENT_MS);
        self.0
            .iter()
            .filter(move |epoch| epoch.newest_ms >= since_ms)
    }

    /// Segments sent per ms.
    pub fn sent_per_ms(&self, newest_ms: u64) -> f64 {
        self.present(newest_ms).map(|epoch| epoch.sent_per_ms).sum()
    }

    /// Flows with data in this second or the one before, at least.
    pub fn flows_active(&self, newest_ms: u64) -> u64 {
        self.present(newest_ms).fold(0, |sum, epoch| {
            sum.saturating_add(epoch.flows[0].max(epoch.flows[1]))
        })
    }
}

impl Epoch {
    fn count_flows(&mut self, pulse: &StreamPulse) {
        let second = pulse.pulse_start_ms / 1_000;
        let [now, before] = self.flows;
        self.flows = match second == self.second {
            true => [now.max(pulse.flows_active), before],
            false => [pulse.flows_active, now],
        };
        self.second = second;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(recent: &mut Recent, number: u64, rate_epoch: u32, sent: u64) -> f64 {
        let pulse = StreamPulse {
            pulse_start_ms: number * 100,
            rate_epoch,
            data_segs_out: sent,
            flows_active: 10,
            ..StreamPulse::default()
        };
        recent.take(&pulse, number * 100 + 100, 100, &Design::default())
    }

    #[test]
    fn a_burst_is_remembered_for_its_retransmits() {
        let mut recent = Recent::default();
        for number in 100..200 {
            assert!(take(&mut recent, number, 1, 1_000) <= 1_000.1);
        }
        let after: Vec<_> = (200..210)
            .map(|number| take(&mut recent, number, 1, 0))
            .collect();
        assert!(after[0] > 500.0 && after.is_sorted_by(|a, b| a > b));
        assert!(after[9] < 0.3 * after[0]);
    }

    #[test]
    fn each_rate_is_held_against_its_own_past() {
        let mut recent = Recent::default();
        for number in 100..300 {
            assert!(take(&mut recent, number, 1, 1_000) <= 1_000.1);
            assert!(take(&mut recent, number, 2, 10) <= 10.1);
        }
        assert!((recent.sent_per_ms(30_000) - 10.1).abs() < 0.1);
        assert_eq!(recent.flows_active(30_000), 20);
        // Many rates push out the oldest, and nothing grows.
        for rate_epoch in 3..100 {
            assert_eq!(take(&mut recent, 301, rate_epoch, 5), 5.0);
        }
        assert_eq!(recent.0.len(), EPOCHS);
    }

    #[test]
    fn late_pulses_do_not_move_it_and_a_clock_may_be_set_back() {
        let mut recent = Recent::default();
        for number in 1_000..1_100 {
            take(&mut recent, number, 1, 1_000);
        }
        let before = recent.clone();
        assert!(take(&mut recent, 1_095, 1, 1_000_000) >= 1_000_000.0);
        assert_eq!(recent.0[0].sent_per_ms, before.0[0].sent_per_ms);
        for number in 100..200 {
            take(&mut recent, number, 1, 10);
        }
        assert!(recent.sent_per_ms(20_000) < 0.2);
    }
}
