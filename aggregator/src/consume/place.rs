//! Where to begin: at the first record that a broker appended since a moment, or where the owner says.
//!
//! Input: partitions and a moment, or an owner. Output: a list with an offset for each, and where each ended. Limits: two questions to each leader,
//! [`TIMEOUT`] each.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::{Extent, Partition};

/// How long the brokers may take for one answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);

/// Where to begin, and what there is to read until now.
pub(super) struct Place {
    /// An offset for each partition.
    pub(super) begin: TopicPartitionList,
    /// The first offset that was not there yet, of partitions with something before it.
    pub(super) ends: BTreeMap<Partition, i64>,
}

/// The offsets to begin with.
///
/// # Errors
/// If a leader does not answer; nothing is guessed.
pub(super) fn since<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[Partition],
    since_ms: i64,
) -> Result<Place, KafkaError> {
    let mut place = Place {
        begin: TopicPartitionList::with_capacity(partitions.len()),
        ends: BTreeMap::new(),
    };
    if partitions.is_empty() {
        return Ok(place);
    }
    // The ends first. Where nothing was appended since the moment, the answer is no offset but "the end", which by the time of
    // the first fetch lies behind what came meanwhile. (The time −1 stands for the end.)
    let ends = ask(consumer, partitions, Offset::End)?;
    let starts = ask(consumer, partitions, Offset::Offset(since_ms.max(0)))?;
    for &(topic, partition) in partitions {
        let offset_in = |list: &TopicPartitionList| {
            let found = list.find_partition(topic.name(), partition);
            match found.map(|one| one.offset()) {
                Some(Offset::Offset(offset)) => Some(offset),
                _ => None,
            }
        };
        let end = offset_in(&ends);
        let offset = offset_in(&starts).or(end);
        let offset = offset.ok_or(KafkaError::NoMessageReceived)?;
        let begin = Offset::Offset(offset);
        place
            .begin
            .add_partition_offset(topic.name(), partition, begin)?;
        if let Some(end) = end.filter(|end| *end > offset) {
            place.ends.insert((topic, partition), end);
        }
    }
    Ok(place)
}

/// What a partition holds between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// The partition.
    pub(super) partition: Partition,
    /// The first record.
    pub(super) begin: i64,
    /// The first one after it.
    pub(super) end: i64,
    /// Nothing older is left.
    pub(super) oldest: bool,
}

/// Where records lie that the brokers appended from one moment on and before another, Unix ms.
///
/// # Errors
/// If a leader does not answer.
pub(super) fn between<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[Partition],
    from_ms: i64,
    to_ms: i64,
) -> Result<Vec<Stretch>, KafkaError> {
    let starts = ask(consumer, partitions, Offset::Offset(from_ms.max(0)))?;
    let stops = ask(consumer, partitions, Offset::Offset(to_ms.max(0)))?;
    let stretch = |&partition: &Partition| {
        let (topic, number) = (partition.0.name(), partition.1);
        let (low, high) = consumer.fetch_watermarks(topic, number, TIMEOUT)?;
        let offset_in = |list: &TopicPartitionList| {
            let found = list.find_partition(topic, number);
            match found.map(|one| one.offset()) {
                Some(Offset::Offset(offset)) => offset,
                // Nothing is that new.
                _ => high,
            }
        };
        let begin = offset_in(&starts);
        Ok(Stretch {
            partition,
            begin,
            end: offset_in(&stops).max(begin),
            oldest: begin <= low,
        })
    };
    partitions.iter().map(stretch).collect()
}

/// What there is of partitions, for an owner who knows where to begin.
///
/// # Errors
/// If a leader or the group's coordinator does not answer.
pub(super) fn extents<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[Partition],
) -> Result<Vec<Extent>, KafkaError> {
    let mut question = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        question.add_partition(topic.name(), *partition);
    }
    let committed = consumer.committed_offsets(question, TIMEOUT)?;
    let extent = |&partition: &Partition| {
        let (topic, number) = (partition.0.name(), partition.1);
        let (low, high) = consumer.fetch_watermarks(topic, number, TIMEOUT)?;
        let committed = committed.find_partition(topic, number);
        let committed = match committed.map(|one| one.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        };
        Ok(Extent {
            partition,
            low,
            high,
            committed,
        })
    };
    partitions.iter().map(extent).collect()
}

/// The place that an owner named.
///
/// # Errors
/// If an offset is none.
pub(super) fn at(extents: &[Extent], offsets: &[i64]) -> Result<Place, KafkaError> {
    let mut place = Place {
        begin: TopicPartitionList::with_capacity(extents.len()),
        ends: BTreeMap::new(),
    };
    for (extent, &offset) in extents.iter().zip(offsets) {
        let (topic, number) = extent.partition;
        let begin = Offset::Offset(offset);
        place
            .begin
            .add_partition_offset(topic.name(), number, begin)?;
        if extent.high > offset {
            place.ends.insert(extent.partition, extent.high);
        }
    }
    Ok(place)
}

fn ask<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[Partition],
    time: Offset,
) -> Result<TopicPartitionList, KafkaError> {
    let mut question = TopicPartitionList::with_capacity(partitions.len());
    for &(topic, partition) in partitions {
        question.add_partition_offset(topic.name(), partition, time)?;
    }
    let answer = consumer.offsets_for_times(question, TIMEOUT)?;
    for one in answer.elements() {
        one.error()?;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;
    use crate::input::Topic;

    #[test]
    fn where_nothing_is_new_the_end_is_a_number() {
        let cluster = MockCluster::new(1).expect("a broker in this process");
        cluster
            .create_topic(Topic::Window.name(), 2, 1)
            .expect("a topic");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        let producer: BaseProducer = config.create().expect("a producer");
        for payload in ["a", "b", "c"] {
            let record: BaseRecord<'_, str, str> = BaseRecord::to(Topic::Window.name())
                .partition(1)
                .payload(payload);
            producer.send(record).expect("room");
        }
        producer.flush(TIMEOUT).expect("written");
        let consumer: BaseConsumer = config.set("group.id", "g").create().expect("a consumer");
        let partitions = [(Topic::Window, 0), (Topic::Window, 1)];
        let later_ms = 32_503_680_000_000;
        let place = since(&consumer, &partitions, later_ms).expect("a place");
        assert!(place.ends.is_empty(), "nothing to read");
        let offsets: Vec<_> = place
            .begin
            .elements()
            .iter()
            .map(|one| one.offset())
            .collect();
        assert_eq!(offsets, [Offset::Offset(0), Offset::Offset(3)]);
        assert_eq!(
            since(&consumer, &[], 0).map(|place| place.begin.count()),
            Ok(0),
            "a member without partitions"
        );
        let none = between(&consumer, &partitions, later_ms, later_ms).expect("stretches");
        let spans: Vec<_> = none
            .iter()
            .map(|one| (one.begin, one.end, one.oldest))
            .collect();
        assert_eq!(spans, [(0, 0, true), (3, 3, false)]);
        let unknown = since(&consumer, &[(Topic::Pulse, 7)], 0);
        assert!(unknown.is_err(), "nothing is guessed");
    }
}
