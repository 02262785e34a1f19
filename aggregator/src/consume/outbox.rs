//! What waits to be handed to the owner. Pure but for the channel.
//!
//! Input: events and assignments in the order in which they came. Output: [`Input`]s in that order. Limits: a batch of
//! [`BATCH_EVENTS`] and three assignments beside it, however long nobody takes anything.

use std::collections::VecDeque;

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::{Arrival, Input, Partition};

/// Events of one batch.
pub(super) const BATCH_EVENTS: usize = 256;

/// The outbox.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Input>,
    open: Vec<Arrival>,
    /// Partitions whose history ends with the open batch.
    caught_up: Vec<Partition>,
}

/// What handing over came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Nothing waits any more.
    All,
    /// There is no room.
    Full,
    /// Nobody is there.
    Closed,
}

impl Outbox {
    /// Takes an event in.
    pub(super) fn arrival(&mut self, arrival: Arrival) {
        self.open.push(arrival);
    }

    /// The last of what had been appended to a partition when it was assigned is in.
    pub(super) fn caught_up(&mut self, partition: Partition) {
        self.caught_up.push(partition);
    }

    /// Whether another event fits into the batch.
    pub(super) fn has_room(&self) -> bool {
        self.open.len() < BATCH_EVENTS
    }

    /// Partitions were assigned.
    pub(super) fn assigned(&mut self, partitions: Vec<Partition>) {
        self.close_batch();
        self.waiting.push_back(Input::Assigned(partitions));
    }

    /// Partitions were revoked. If nobody heard of their assignment yet, nobody will.
    pub(super) fn revoked(&mut self, partitions: Vec<Partition>) {
        self.close_batch();
        while matches!(self.waiting.back(), Some(Input::CaughtUp(_))) {
            self.waiting.pop_back();
        }
        if matches!(self.waiting.back(), Some(Input::Assigned(unheard)) if *unheard == partitions) {
            self.waiting.pop_back();
        } else {
            self.waiting.push_back(Input::Revoked(partitions));
        }
    }

    fn close_batch(&mut self) {
        if !self.open.is_empty() {
            let batch = std::mem::replace(&mut self.open, Vec::with_capacity(BATCH_EVENTS));
            self.waiting.push_back(Input::Batch(batch));
        }
        if !self.caught_up.is_empty() {
            let caught_up = std::mem::take(&mut self.caught_up);
            self.waiting.push_back(Input::CaughtUp(caught_up));
        }
    }

    /// Hands over as much as there is room for.
    pub(super) fn flush(&mut self, to: &Sender<Input>) -> Flushed {
        self.close_batch();
        while let Some(input) = self.waiting.pop_front() {
            match to.try_send(input) {
                Ok(()) => {}
                Err(TrySendError::Full(input)) => {
                    self.waiting.push_front(input);
                    return Flushed::Full;
                }
                Err(TrySendError::Closed(_)) => return Flushed::Closed,
            }
        }
        Flushed::All
    }
}

#[cfg(test)]
mod tests {
    use sampler_event::{Event, StreamPulse};
    use tokio::sync::mpsc::channel;

    use super::*;
    use crate::input::Topic;

    fn arrival(offset: i64) -> Arrival {
        Arrival {
            event: Event::Pulse(StreamPulse::default()),
            topic: Topic::Pulse,
            partition: 0,
            offset,
            append_ms: 0,
        }
    }

    fn words(input: Input) -> String {
        match input {
            Input::Assigned(partitions) => format!("+{}", partitions.len()),
            Input::Revoked(partitions) => format!("-{}", partitions.len()),
            Input::Batch(batch) => format!("{}", batch.len()),
            Input::CaughtUp(partitions) => format!("={}", partitions.len()),
        }
    }

    #[test]
    fn order_is_kept_over_a_full_channel() {
        let (to, mut from) = channel(1);
        let mut outbox = Outbox::default();
        let partitions = vec![(Topic::Window, 0), (Topic::Pulse, 0)];
        outbox.assigned(partitions.clone());
        (0..3).for_each(|offset| outbox.arrival(arrival(offset)));
        outbox.caught_up((Topic::Window, 0));
        outbox.arrival(arrival(3));
        outbox.assigned(vec![(Topic::Window, 1)]);
        outbox.revoked(partitions);
        let mut heard = Vec::new();
        while outbox.flush(&to) == Flushed::Full {
            heard.push(words(from.try_recv().expect("one")));
        }
        heard.push(words(from.try_recv().expect("the last one")));
        assert_eq!(heard, ["+2", "4", "=1", "+1", "-2"]);
        drop(from);
        outbox.arrival(arrival(9));
        assert_eq!(outbox.flush(&to), Flushed::Closed);
    }

    #[test]
    fn assignments_that_nobody_heard_of_do_not_pile_up() {
        let (to, _from) = channel(1);
        let mut outbox = Outbox::default();
        outbox.arrival(arrival(0));
        outbox.flush(&to);
        outbox.arrival(arrival(1));
        outbox.revoked(vec![(Topic::Window, 1)]);
        for _ in 0..100 {
            outbox.assigned(vec![(Topic::Window, 2)]);
            outbox.caught_up((Topic::Window, 2));
            assert_eq!(outbox.flush(&to), Flushed::Full);
            outbox.revoked(vec![(Topic::Window, 2)]);
        }
        assert_eq!(outbox.waiting.len(), 2);
    }

    #[test]
    fn a_batch_has_a_bound() {
        let mut outbox = Outbox::default();
        let fits = (0..).take_while(|offset| {
            let room = outbox.has_room();
            outbox.arrival(arrival(*offset));
            room
        });
        assert_eq!(fits.count(), BATCH_EVENTS);
    }
}
