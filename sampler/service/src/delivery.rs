//! What to do about an error of a Kafka producer, by its class. Pure.
//!
//! Input: librdkafka's error code, as a delivery report or a refused send carries it. Output: a [`Class`].

use rdkafka::error::RDKafkaErrorCode as Code;

/// What an error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Send the record again in a moment. (What librdkafka can retry by itself does not come here.)
    Retry,
    /// The record itself will never be taken: it is a dead letter.
    DeadLetter,
    /// Somebody has to create the topic or grant the right: hold back what goes there, and say so.
    Hold,
    /// The producer is done for: a new one sends everything unconfirmed again.
    Fatal,
}

/// The class of an error. What is not known is tried again: losing nothing is the better mistake.
#[must_use]
pub const fn class(code: Code) -> Class {
    match code {
        Code::MessageSizeTooLarge
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::MessageBatchTooLarge
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::BadMessage => Class::DeadLetter,
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::PolicyViolation
        | Code::SaslAuthenticationFailed
        | Code::Authentication => Class::Hold,
        Code::Fatal
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::ProducerFenced
        | Code::InvalidProducerIdMapping
        | Code::Fenced
        | Code::GaplessGuarantee
        | Code::Inconsistent => Class::Fatal,
        _ => Class::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        for (code, expected) in [
            (Code::MessageSizeTooLarge, Class::DeadLetter),
            (Code::TopicAuthorizationFailed, Class::Hold),
            (Code::UnknownTopicOrPartition, Class::Hold),
            (Code::Fatal, Class::Fatal),
            (Code::OutOfOrderSequenceNumber, Class::Fatal),
            (Code::NotEnoughReplicas, Class::Retry),
            (Code::QueueFull, Class::Retry),
            (Code::PurgeInflight, Class::Retry),
        ] {
            assert_eq!(class(code), expected, "{code:?}");
        }
    }
}
