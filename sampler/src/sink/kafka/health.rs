//! Which kinds are held back, and in what state the sink is. Pure, time is an argument.
//!
//! Input: errors, deliveries, the age of the oldest unconfirmed event. Output: [`SinkState`], and when a held kind is to
//! be tried again. Limits: one hold per kind; a pause between tries grows from 1 s to 30 s.

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::time::Instant;

use crate::sink::ledger::SinkState;
use crate::sink::record::Kind;

/// First pause of a held kind.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause of a held kind.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An event that is unconfirmed for so long is worth a word; longer than a broker's usual failover of its leaders.
const STALE: Duration = Duration::from_secs(5);

/// Holds and troubles.
#[derive(Debug, Default)]
pub struct Health {
    holds: [Option<Hold>; 3],
    trouble: Option<String>,
    delivered: bool,
}

#[derive(Clone, Debug)]
struct Hold {
    reason: String,
    pause: Duration,
    until: Instant,
    probing: bool,
}

impl Health {
    /// Holds a kind back: for a moment, and longer each time it comes again before an event of it is delivered.
    /// True if the kind was not held before.
    pub fn hold(&mut self, kind: Kind, reason: String, now: Instant) -> bool {
        let hold = &mut self.holds[kind.index()];
        match hold {
            // All events in flight fail together: that is one failure.
            Some(held) if !held.probing && now < held.until => {
                held.reason = reason;
                false
            }
            Some(held) => {
                held.pause = (held.pause * 2).min(LONGEST_PAUSE);
                (held.until, held.probing, held.reason) = (now + held.pause, false, reason);
                false
            }
            None => {
                *hold = Some(Hold {
                    reason,
                    pause: FIRST_PAUSE,
                    until: now + FIRST_PAUSE,
                    probing: false,
                });
                true
            }
        }
    }

    /// Whether new events of this kind may be sent.
    pub fn is_open(&self, kind: Kind) -> bool {
        self.holds[kind.index()].is_none()
    }

    /// Held kinds whose pause is over; each is named once until it is held again.
    pub fn due(&mut self, now: Instant) -> Vec<Kind> {
        let mut due = Vec::new();
        for kind in Kind::ALL {
            if let Some(hold) = self.holds[kind.index()]
                .as_mut()
                .filter(|hold| !hold.probing && hold.until <= now)
            {
                hold.probing = true;
                due.push(kind);
            }
        }
        due
    }

    /// A broker confirmed an event of this kind: neither hold nor trouble is true any more.
    pub fn delivered(&mut self, kind: Kind) {
        self.delivered = true;
        self.trouble = None;
        self.holds[kind.index()] = None;
    }

    /// Nothing of this kind waits to be sent again: it is open.
    pub fn release(&mut self, kind: Kind) {
        self.holds[kind.index()] = None;
    }

    /// Something is wrong with a broker; it shows when events wait for it. That all are `down` is said only where
    /// nothing better is known: the error before it names the broker and the cause.
    pub fn trouble(&mut self, code: Code, reason: String) {
        if code != Code::AllBrokersDown || self.trouble.is_none() {
            self.trouble = Some(reason);
        }
    }

    /// The state, given how long the oldest unconfirmed event has waited.
    pub fn state(&self, oldest: Option<Duration>) -> SinkState {
        if let Some(hold) = self.holds.iter().flatten().next() {
            return SinkState::Degraded(hold.reason.clone());
        }
        match (oldest.filter(|age| *age >= STALE), &self.trouble) {
            (Some(_), Some(trouble)) => SinkState::Degraded(trouble.clone()),
            (Some(_), None) => SinkState::Degraded("the brokers do not confirm".to_owned()),
            (None, _) if self.delivered => SinkState::Ok,
            (None, _) => SinkState::Starting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_hold_grows_until_something_arrives() {
        let (start, mut health) = (Instant::now(), Health::default());
        assert!(health.hold(Kind::Pulse, "no topic".to_owned(), start));
        assert!(
            !health.hold(Kind::Pulse, "no topic".to_owned(), start),
            "the rest of the same failure"
        );
        assert!(!health.is_open(Kind::Pulse) && health.is_open(Kind::Window));
        let (mut now, mut pauses) = (start, Vec::new());
        for _ in 0..7 {
            let tried = (1..100)
                .find(|&wait| !health.due(now + seconds(wait)).is_empty())
                .expect("tried again");
            now += seconds(tried);
            pauses.push(tried);
            assert!(
                health.due(now + seconds(99)).is_empty(),
                "one try at a time"
            );
            health.hold(Kind::Pulse, "no topic".to_owned(), now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(
            health.state(None),
            SinkState::Degraded("no topic".to_owned())
        );
        health.delivered(Kind::Pulse);
        assert_eq!(
            (health.state(None), health.is_open(Kind::Pulse)),
            (SinkState::Ok, true)
        );
    }

    #[test]
    fn trouble_shows_when_events_wait() {
        let mut health = Health::default();
        assert_eq!(health.state(None), SinkState::Starting);
        health.trouble(
            Code::BrokerTransportFailure,
            "connection refused".to_owned(),
        );
        health.trouble(Code::AllBrokersDown, "1/1 brokers are down".to_owned());
        assert_eq!(health.state(Some(seconds(1))), SinkState::Starting);
        assert_eq!(
            health.state(Some(seconds(9))),
            SinkState::Degraded("connection refused".to_owned())
        );
        health.delivered(Kind::Window);
        assert_eq!(health.state(Some(seconds(1))), SinkState::Ok);
        assert!(matches!(
            health.state(Some(seconds(9))),
            SinkState::Degraded(_)
        ));
    }
}
