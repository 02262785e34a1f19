//! One life of a librdkafka producer.
//!
//! Input: records. Output: [`Report`]s, when its events are [served](Life::serve). Limits: bounded by librdkafka's queue, which is
//! larger than the table of events in flight, so there are at most as many reports as events in flight and errors.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use service::producer::Events;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, error, info};

use super::inflight::Id;
use crate::sink::record::{Kind, Record};

/// How long a question for a held topic may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a producer says.
#[derive(Debug)]
pub enum Report {
    /// An event arrived, or did not.
    Delivery {
        /// The producer's life.
        life: u64,
        /// The event.
        id: Id,
        /// The error, if it did not.
        result: Result<(), Code>,
    },
    /// Trouble with a broker.
    Trouble {
        /// The producer's life.
        life: u64,
        /// The kind of trouble.
        code: Code,
        /// What librdkafka says of it.
        reason: String,
    },
    /// The topic of a held kind was asked for again.
    Probed {
        /// The producer's life.
        life: u64,
        /// The kind.
        kind: Kind,
    },
}

/// A producer and the number of its life.
pub struct Life {
    number: u64,
    events: Events<Context>,
    came: Arc<Notify>,
    reports: UnboundedSender<Report>,
}

/// Breaks a producer as a broken promise of idempotence would, for tests.
pub struct Breaker(Arc<BaseProducer<Context>>);

impl Breaker {
    /// Does it, by librdkafka's own function for tests.
    pub fn fire(&self) {
        let code = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        // SAFETY: the producer lives as long as `self`, and the text is a C string.
        unsafe {
            rdkafka::bindings::rd_kafka_test_fatal_error(
                self.0.client().native_ptr(),
                code,
                c"forced by a test".as_ptr(),
            );
        }
    }
}

/// Hands librdkafka's calls on as reports.
pub struct Context {
    life: u64,
    reports: UnboundedSender<Report>,
}

impl Context {
    fn report(&self, report: Report) {
        // Nobody listens any more only while the daemon stops.
        let _ = self.reports.send(report);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(facility, "{message}")
            }
            // A broker that is away makes many of these; the sink says once what is the matter.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => debug!(facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                debug!(facility, "{message}")
            }
        }
    }

    fn error(&self, error: ClientError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        self.report(Report::Trouble {
            life: self.life,
            code,
            reason: reason.to_owned(),
        });
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Id;

    fn delivery(&self, result: &DeliveryResult<'_>, id: Id) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        };
        self.report(Report::Delivery {
            life: self.life,
            id,
            result,
        });
    }
}

impl Life {
    /// Starts a producer; it connects by itself, now or whenever a broker is there.
    pub fn start(
        number: u64,
        config: &ClientConfig,
        reports: UnboundedSender<Report>,
    ) -> Result<Self, ClientError> {
        let context = Context {
            life: number,
            reports: reports.clone(),
        };
        let producer: BaseProducer<_> = config.create_with_context(context)?;
        let came = Arc::<Notify>::default();
        let events = Events::of(producer, {
            let came = Arc::clone(&came);
            move || came.notify_one()
        })?;
        Ok(Self {
            number,
            events,
            came,
            reports,
        })
    }

    /// Waits until librdkafka has something to say. Cancel safe.
    pub async fn came(&self) {
        self.came.notified().await;
    }

    /// Makes reports of all that it has to say.
    pub fn serve(&self) {
        self.events.serve();
    }

    /// Number of this life.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Hands a record to librdkafka, which copies it.
    pub fn send(&self, topic: &str, id: Id, record: &Record) -> Result<(), Code> {
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header {
            key: "schema",
            value: Some(record.kind.schema()),
        });
        let message: BaseRecord<'_, str, [u8], Id> = BaseRecord::with_opaque_to(topic, id)
            .key(record.key.as_str())
            .payload(record.payload.as_slice())
            .headers(headers);
        self.events
            .producer()
            .send(message)
            .map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(Code::Unknown))
    }

    /// Something that breaks this producer.
    pub fn breaker(&self) -> Breaker {
        Breaker(Arc::clone(self.events.producer()))
    }

    /// Why this producer can send nothing more, if that is so.
    pub fn fatal(&self) -> Option<String> {
        self.events
            .producer()
            .client()
            .fatal_error()
            .map(|(code, reason)| format!("{code}: {reason}"))
    }

    /// Asks the brokers for a topic; librdkafka itself would look for one that was missing only after minutes.
    pub fn probe(&self, topic: &str, kind: Kind) {
        let (producer, reports, topic, life) = (
            Arc::clone(self.events.producer()),
            self.reports.clone(),
            topic.to_owned(),
            self.number,
        );
        tokio::task::spawn_blocking(move || {
            if let Err(error) = producer
                .client()
                .fetch_metadata(Some(&topic), PROBE_TIMEOUT)
            {
                info!(topic, %error, "no answer about the topic");
            }
            let _ = reports.send(Report::Probed { life, kind });
        });
    }

    /// Ends this life. What it did not deliver belongs to the next one.
    pub fn end(self) {
        // What has arrived by now need not go again.
        self.serve();
        // Ending waits for librdkafka's threads: not on the executor's.
        tokio::task::spawn_blocking(move || drop(self));
    }
}
