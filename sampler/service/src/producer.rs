//! Producers whose events are taken when librdkafka says that there are some.
//!
//! `ThreadedProducer` asks for them in a thread of its own, which spins through the rest of the millisecond at the end of each of its
//! waits: almost a percent of a core for nothing. Here who takes them is woken instead (`rd_kafka_queue_cb_event_enable`), and an idle
//! producer costs nothing.

use std::ffi::c_void;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use rdkafka::bindings::{
    rd_kafka_queue_cb_event_enable, rd_kafka_queue_destroy, rd_kafka_queue_get_main,
    rd_kafka_queue_length, rd_kafka_queue_t, rd_kafka_t,
};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

/// Called by a thread of librdkafka: must neither wait nor panic.
type Wake = Box<dyn Fn() + Send + Sync>;

/// A producer and its main queue, whose events somebody else serves.
pub struct Events<C: ProducerContext + 'static> {
    queue: NonNull<rd_kafka_queue_t>,
    // In a box of its own, since the callback gets a thin pointer.
    wake: Box<Wake>,
    // The queue is its own.
    producer: Arc<BaseProducer<C>>,
}

// SAFETY: librdkafka's queues may be used by any thread.
unsafe impl<C: ProducerContext + 'static> Send for Events<C> {}
// SAFETY: as above; all functions take them shared.
unsafe impl<C: ProducerContext + 'static> Sync for Events<C> {}

/// Called when something comes into a queue that was empty.
unsafe extern "C" fn on_event(_: *mut rd_kafka_t, wake: *mut c_void) {
    // SAFETY: it points to the `Wake` of the `Events` that asked for the call, which outlives that.
    let wake = unsafe { &*wake.cast::<Wake>() };
    wake();
}

impl<C: ProducerContext + 'static> Events<C> {
    /// Those of a producer. `wake` is called when there are some, and once at the beginning; it must neither wait nor panic.
    ///
    /// # Errors
    /// The producer has no queue, which librdkafka does not do.
    pub fn of(
        producer: BaseProducer<C>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, KafkaError> {
        // SAFETY: the client lives as long as `producer`.
        let queue = unsafe { rd_kafka_queue_get_main(producer.client().native_ptr()) };
        let none = || KafkaError::ClientCreation("no queue of events".to_owned());
        let events = Self {
            queue: NonNull::new(queue).ok_or_else(none)?,
            wake: Box::new(Box::new(wake)),
            producer: Arc::new(producer),
        };
        let wake = ptr::from_ref::<Wake>(&events.wake).cast_mut().cast();
        // SAFETY: the queue is alive, and the `Wake` until `drop` has taken the callback away.
        unsafe { rd_kafka_queue_cb_event_enable(queue, Some(on_event), wake) };
        // What came before is not told.
        (events.wake)();
        Ok(events)
    }

    /// Whose they are.
    #[must_use]
    pub fn producer(&self) -> &Arc<BaseProducer<C>> {
        &self.producer
    }

    /// Hands all that are there to the producer's context.
    pub fn serve(&self) {
        loop {
            self.producer.poll(Duration::ZERO);
            // SAFETY: the queue is alive.
            if unsafe { rd_kafka_queue_length(self.queue.as_ptr()) } == 0 {
                return;
            }
        }
    }
}

impl<C: ProducerContext + 'static> Drop for Events<C> {
    fn drop(&mut self) {
        // SAFETY: the queue is alive; librdkafka calls back under the queue's lock, which taking the callback away needs too, so no
        // call is under way afterwards.
        unsafe {
            rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// A producer whose events a thread of its own serves until it is dropped.
pub struct Served<C: ProducerContext + 'static> {
    producer: Arc<BaseProducer<C>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<C: ProducerContext + 'static> Served<C> {
    /// Starts the thread, under a name of at most 15 bytes.
    ///
    /// # Errors
    /// No thread, or no queue of events.
    pub fn start(producer: BaseProducer<C>, name: &str) -> Result<Self, KafkaError> {
        let asleep = Arc::<OnceLock<Thread>>::default();
        let events = Events::of(producer, {
            let asleep = Arc::clone(&asleep);
            move || asleep.get().into_iter().for_each(Thread::unpark)
        })?;
        let producer = Arc::clone(events.producer());
        let ends = Arc::<AtomicBool>::default();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn({
                let ends = Arc::clone(&ends);
                move || {
                    // Events before this are served at once, later ones wake.
                    asleep.get_or_init(thread::current);
                    while !ends.load(Ordering::Acquire) {
                        events.serve();
                        thread::park();
                    }
                }
            })
            .map_err(|error| KafkaError::ClientCreation(format!("no thread: {error}")))?;
        Ok(Self {
            producer,
            ends,
            thread: Some(thread),
        })
    }
}

impl<C: ProducerContext + 'static> Deref for Served<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &BaseProducer<C> {
        &self.producer
    }
}

impl<C: ProducerContext + 'static> Drop for Served<C> {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else {
            return;
        };
        thread.thread().unpark();
        if thread.join().is_err() {
            tracing::error!("the thread of a producer's events panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use rdkafka::error::RDKafkaErrorCode as Code;
    use rdkafka::message::DeliveryResult;
    use rdkafka::producer::BaseRecord;
    use rdkafka::{ClientConfig, ClientContext};

    use super::*;

    /// More than a loaded machine takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    struct Context(Sender<Option<Code>>);

    impl ClientContext for Context {}

    impl ProducerContext for Context {
        type DeliveryOpaque = ();

        fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
            let failed = result.as_ref().err();
            let code = failed.and_then(|(error, _)| error.rdkafka_error_code());
            self.0.send(code).expect("the test listens");
        }
    }

    /// A producer whose broker is not there, which gives a record up after a moment.
    fn producer(to: Sender<Option<Code>>) -> BaseProducer<Context> {
        ClientConfig::new()
            .set("bootstrap.servers", "127.0.0.1:1")
            .set("message.timeout.ms", "50")
            .create_with_context(Context(to))
            .expect("a producer")
    }

    #[test]
    fn every_event_is_served_though_nobody_asks() {
        let (to, from) = channel();
        let served = Served::start(producer(to), "events").expect("a thread");
        for _ in 0..3 {
            let record: BaseRecord<'_, str, str> = BaseRecord::to("nowhere").payload("word");
            assert!(served.send(record).is_ok());
            assert_eq!(from.recv_timeout(PATIENCE), Ok(Some(Code::MessageTimedOut)));
        }
        drop(served);
        // Its end took the thread and the producer along.
        assert!(from.recv_timeout(PATIENCE).is_err());
    }

    #[test]
    fn who_serves_is_woken() {
        let ((to, from), (wake, woken)) = (channel(), channel());
        let events = Events::of(producer(to), move || {
            // Its last words come while the test ends.
            let _ = wake.send(());
        })
        .expect("events");
        woken.recv_timeout(PATIENCE).expect("once at the beginning");
        events.serve();
        let record: BaseRecord<'_, str, str> = BaseRecord::to("nowhere").payload("word");
        assert!(events.producer().send(record).is_ok());
        let code = loop {
            woken.recv_timeout(PATIENCE).expect("woken");
            events.serve();
            if let Ok(code) = from.try_recv() {
                break code;
            }
        };
        assert_eq!(code, Some(Code::MessageTimedOut));
    }
}
