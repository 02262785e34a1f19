//! Windows of one stream around a moment, read once more from the log.
//!
//! Input: a stream, a span of the broker's time. Output: its windows in their order, of which some may be there twice. No group, no
//! commits; other streams of the partition are read and dropped by their key. Blocks. Limits: [`MOST_WINDOWS`], [`PATIENCE`].

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use sampler_event::{Event, StreamWindow};

use super::place::TIMEOUT;
use super::reader::raw;
use super::settings::{Kafka, SettingsError};
use super::tail::{Quiet, count};
use crate::input::{Topic, decode, partition_of};

/// Windows that are kept: 100 nodes, a window a second, and more than three minutes.
pub const MOST_WINDOWS: usize = 20_000;
/// How long reading may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a poll waits for a record.
const POLL: Duration = Duration::from_millis(200);

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    /// The windows.
    pub windows: Vec<StreamWindow>,
    /// There are more than are kept.
    pub cut: bool,
}

/// Windows of a stream that the broker appended in a span, Unix ms. None: `holds` says that its partition is somebody else's.
///
/// # Errors
/// In words, if it cannot be read now.
pub fn windows_of(
    settings: &Kafka,
    stream: &str,
    (from_ms, to_ms): (u64, u64),
    holds: impl Fn(i32) -> bool,
) -> Result<Option<Span>, String> {
    let consumer = open(settings).map_err(|error| error.to_string())?;
    let said = |error: KafkaError| format!("topic {}: {error}", Topic::Window.name());
    let partitions = count(&consumer, Topic::Window.name()).map_err(said)?;
    let Some(partition) = partition_of(stream.as_bytes(), partitions).filter(|one| holds(*one))
    else {
        return Ok(None);
    };
    match begin(&consumer, partition, from_ms).map_err(said)? {
        true => read(&consumer, stream, to_ms).map(Some),
        false => Ok(Some(Span::default())),
    }
}

fn open(settings: &Kafka) -> Result<BaseConsumer<Quiet>, SettingsError> {
    Ok(settings.tail()?.create_with_context(Quiet)?)
}

/// Goes to the first record of a moment; false: there is none.
fn begin(consumer: &BaseConsumer<Quiet>, partition: i32, from_ms: u64) -> Result<bool, KafkaError> {
    let topic = Topic::Window.name();
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, partition, Offset::Offset(from_ms.cast_signed()))?;
    let found = consumer.offsets_for_times(list, TIMEOUT)?;
    let offset = found
        .find_partition(topic, partition)
        .map(|one| one.offset());
    let Some(offset @ Offset::Offset(_)) = offset else {
        return Ok(false);
    };
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, partition, offset)?;
    consumer.assign(&list)?;
    Ok(true)
}

fn read(consumer: &BaseConsumer<Quiet>, stream: &str, to_ms: u64) -> Result<Span, String> {
    let mut span = Span::default();
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let message = match consumer.poll(POLL) {
            None => continue,
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(span),
            Some(Err(error)) => return Err(format!("topic {}: {error}", Topic::Window.name())),
            Some(Ok(message)) => message,
        };
        let Some(raw) = raw(&message) else { continue };
        if raw.append_ms >= to_ms {
            return Ok(span);
        }
        if raw.key != Some(stream.as_bytes()) {
            continue;
        }
        if span.windows.len() >= MOST_WINDOWS {
            span.cut = true;
            return Ok(span);
        }
        if let Ok(Event::Window(window)) = decode(&raw) {
            span.windows.push(*window);
        }
    }
    Err(format!(
        "topic {}: not read within {} s",
        Topic::Window.name(),
        PATIENCE.as_secs()
    ))
}
