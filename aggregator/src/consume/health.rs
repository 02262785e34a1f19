//! How a reader is doing, and when it is to ask the brokers. Pure, time is an argument.
//!
//! Input: errors, and what the brokers said of each topic. Output: [`State`]. Limits: one reason per topic; a pause between
//! questions grows from 1 s to 5 s.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::input::Topic;

/// First pause between questions.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause: a topic that is made is read so soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How a reader is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It waits for the partitions that its group will give it.
    #[default]
    Starting,
    /// It reads, or stands by for other members of its group.
    Ok,
    /// Something is missing, for this reason; what can be read is read.
    Degraded(String),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Ok => f.write_str("ok"),
            Self::Degraded(reason) => write!(f, "degraded: {reason}"),
        }
    }
}

/// Holds and troubles of one reader.
#[derive(Debug)]
pub(super) struct Health {
    holds: BTreeMap<Topic, String>,
    /// With the brokers: ends when one answers.
    trouble: Option<String>,
    /// With the group: ends with an assignment.
    group: Option<String>,
    joined: bool,
    pause: Duration,
    next: Instant,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            holds: BTreeMap::new(),
            trouble: None,
            group: None,
            joined: false,
            pause: FIRST_PAUSE,
            next: now,
        }
    }

    /// An error that librdkafka told of. That all brokers are down is said only where nothing better is known: the error before
    /// it names the broker and the cause.
    pub(super) fn error(&mut self, code: Code, reason: &str, now: Instant) {
        let place = match code {
            Code::GroupAuthorizationFailed
            | Code::InvalidGroupId
            | Code::InconsistentGroupProtocol => &mut self.group,
            _ => &mut self.trouble,
        };
        if code != Code::AllBrokersDown {
            *place = Some(reason.to_owned());
        } else if place.is_none() {
            // librdkafka counts connections here, and they are not of one kind.
            *place = Some("no broker can be reached".to_owned());
        }
        self.next = self.next.min(now + self.pause);
    }

    /// The group gave partitions, or said that there are none left.
    pub(super) fn joined(&mut self) {
        (self.joined, self.group) = (true, None);
    }

    /// The group took all partitions back, and will give others.
    pub(super) fn left(&mut self) {
        self.joined = false;
    }

    /// The brokers do not say where to begin.
    pub(super) fn lost_place(&mut self, reason: String) {
        self.trouble = Some(reason);
    }

    /// Something was read: the brokers are there.
    pub(super) fn heard(&mut self) {
        self.trouble = None;
    }

    /// Whether the brokers are to be asked for the topics; a yes counts as asked.
    pub(super) fn is_due(&mut self, idle: bool, now: Instant) -> bool {
        let wanted = idle || !self.holds.is_empty() || self.trouble.is_some();
        if !wanted {
            self.pause = FIRST_PAUSE;
            self.next = now + self.pause;
            return false;
        }
        let due = now >= self.next;
        if due {
            self.next = now + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        due
    }

    /// What the brokers said of a topic: an error, or that it is there. True if that is news.
    pub(super) fn topic(&mut self, topic: Topic, error: Option<String>) -> bool {
        // An answer is an answer: what was the matter with the brokers is over.
        self.trouble = None;
        match error {
            Some(error) => {
                let reason = format!("topic {}: {error}", topic.name());
                self.holds.insert(topic, reason.clone()) != Some(reason)
            }
            None => self.holds.remove(&topic).is_some(),
        }
    }

    /// No broker answered.
    pub(super) fn no_answer(&mut self, reason: String) {
        self.trouble.get_or_insert(reason);
    }

    /// The state.
    pub(super) fn state(&self) -> State {
        let reasons = self.holds.values().next();
        let reason = reasons.or(self.trouble.as_ref()).or(self.group.as_ref());
        match reason {
            Some(reason) => State::Degraded(reason.clone()),
            None if self.joined => State::Ok,
            None => State::Starting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn degraded(reason: &str) -> State {
        State::Degraded(reason.to_owned())
    }

    #[test]
    fn a_missing_topic_is_asked_for_until_it_is_there() {
        let start = Instant::now();
        let mut health = Health::new(start);
        let (mut now, mut pauses) = (start, Vec::new());
        assert!(health.is_due(true, now));
        for _ in 0..5 {
            assert!(!health.is_due(true, now), "once at a time");
            assert_eq!(
                health.topic(Topic::Pulse, Some("unknown".to_owned())),
                now == start
            );
            let pause = (1..99)
                .find(|seconds| health.is_due(false, now + Duration::from_secs(*seconds)))
                .expect("asked again");
            pauses.push(pause);
            now += Duration::from_secs(pause);
        }
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        health.joined();
        assert_eq!(
            health.state(),
            degraded("topic flowvitals.pulse.v1: unknown")
        );
        assert!(health.topic(Topic::Pulse, None), "news");
        assert!(!health.topic(Topic::Pulse, None));
        assert_eq!(health.state(), State::Ok);
        assert!(!health.is_due(false, now + Duration::from_secs(99)));
    }

    #[test]
    fn trouble_is_said_in_its_own_words_and_ends_with_an_answer() {
        let now = Instant::now();
        let mut health = Health::new(now);
        assert_eq!(health.state(), State::Starting);
        health.error(Code::BrokerTransportFailure, "connection refused", now);
        health.error(Code::AllBrokersDown, "1/1 brokers are down", now);
        health.no_answer("timed out".to_owned());
        assert_eq!(health.state(), degraded("connection refused"));
        health.topic(Topic::Window, None);
        assert_eq!(health.state(), State::Starting);
        health.error(Code::AllBrokersDown, "1/1 brokers are down", now);
        assert_eq!(health.state(), degraded("no broker can be reached"));
        health.heard();
        health.error(Code::GroupAuthorizationFailed, "not in this group", now);
        health.topic(Topic::Window, None);
        assert_eq!(
            health.state(),
            degraded("not in this group"),
            "metadata says nothing of groups"
        );
        health.joined();
        assert_eq!(health.state(), State::Ok);
        health.left();
        assert_eq!(health.state(), State::Starting);
    }
}
