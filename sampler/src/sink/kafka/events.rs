//! A producer's events, taken when librdkafka says that there are some.
//!
//! `ThreadedProducer` asks for them in a thread of its own, which spins through the rest of the millisecond at the end of each of its
//! waits: almost a percent of a core for nothing. Here the task that wants them is woken instead
//! (`rd_kafka_queue_cb_event_enable`), and an idle producer costs nothing.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings::{
    rd_kafka_queue_cb_event_enable, rd_kafka_queue_destroy, rd_kafka_queue_get_main,
    rd_kafka_queue_length, rd_kafka_queue_t, rd_kafka_t,
};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use tokio::sync::Notify;

/// A producer and its main queue.
pub struct Events<C: ProducerContext + 'static> {
    queue: NonNull<rd_kafka_queue_t>,
    came: Arc<Notify>,
    // The queue is its own.
    producer: Arc<BaseProducer<C>>,
}

// SAFETY: librdkafka's queues may be used by any thread.
unsafe impl<C: ProducerContext + 'static> Send for Events<C> {}
// SAFETY: as above; all functions take them shared.
unsafe impl<C: ProducerContext + 'static> Sync for Events<C> {}

/// Called when something comes into a queue that was empty.
unsafe extern "C" fn on_event(_: *mut rd_kafka_t, came: *mut c_void) {
    // SAFETY: it points to the `Notify` of the `Events` that asked for the call, which outlives that.
    unsafe { &*came.cast::<Notify>() }.notify_one();
}

impl<C: ProducerContext + 'static> Events<C> {
    /// Those of a producer. `None`: it has no queue, which librdkafka does not do.
    pub fn of(producer: BaseProducer<C>) -> Option<Self> {
        // SAFETY: the client lives as long as `producer`.
        let queue = unsafe { rd_kafka_queue_get_main(producer.client().native_ptr()) };
        let events = Self {
            queue: NonNull::new(queue)?,
            came: Arc::new(Notify::new()),
            producer: Arc::new(producer),
        };
        let came = Arc::as_ptr(&events.came).cast_mut().cast();
        // SAFETY: the queue is alive, and the `Notify` until `drop` has taken the callback away.
        unsafe { rd_kafka_queue_cb_event_enable(queue, Some(on_event), came) };
        // What came before is not told.
        events.came.notify_one();
        Some(events)
    }

    /// Whose they are.
    pub fn producer(&self) -> &Arc<BaseProducer<C>> {
        &self.producer
    }

    /// Waits for some. Cancel safe.
    pub async fn came(&self) {
        self.came.notified().await;
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
