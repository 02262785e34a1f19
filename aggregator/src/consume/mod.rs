//! Kafka's records, read and handed on as events.
//!
//! Input: the topics of windows, pulses and heartbeats. Output: [`Input`]s over a bounded channel. Windows and pulses are shared by
//! the members of a consumer group, both of one partition number at the same member; heartbeats are read whole by every member,
//! so that each knows all nodes. A [`Plan`] says which group, how its members share, and where reading begins.
//! What is no event is counted, and goes to the topic of dead letters.
//! Limits: [`CHANNEL_BATCHES`] batches wait for the owner; behind them reading is paused while the member stays in its group.

mod books;
mod commits;
mod context;
mod dead_letters;
mod health;
mod outbox;
mod past;
mod place;
mod plan;
mod reader;
mod settings;
mod span;
mod tail;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sampler_event::Event;
use tokio::sync::mpsc::{Receiver, channel};
use tracing::error;

use self::books::{Books, Role};
use self::dead_letters::DeadLetters;
use self::reader::Reader;
use crate::input::Topic;

pub use self::books::{Counts, ReaderStatus, Status};
pub use self::commits::Committer;
pub use self::dead_letters::{MOST_PER_S as DEAD_LETTERS_PER_S, TOPIC as DEAD_LETTERS_TOPIC};
pub use self::health::State;
pub use self::past::{Held, Past, PastError, PastRecord};
pub use self::plan::{Begin, Extent, Places, Plan, Share};
pub use self::settings::{Kafka, SettingsError};
pub use self::span::{MOST_WINDOWS, Span, windows_of};
pub use self::tail::{Tail, Tailed, partitions_of};

/// Batches that wait for the owner: with 256 events of some 5 KiB each, 20 MiB.
pub const CHANNEL_BATCHES: usize = 16;

/// Where the owner says where to begin, heartbeats are read from so long ago on: enough to know all nodes.
const HEARTBEATS_BEGIN: Duration = Duration::from_secs(120);

/// A topic and the number of a partition.
pub type Partition = (Topic, i32);

/// What the owner is told, in the order in which it happened. The two readers know nothing of each other's order.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// From here on events of these partitions come, beginning where the plan says.
    Assigned(Vec<Partition>),
    /// From here on no events of these partitions come: what is held of them belongs to another member.
    Revoked(Vec<Partition>),
    /// Events, in their order per partition.
    Batch(Vec<Arrival>),
    /// What had been appended to these partitions when they were assigned is read.
    CaughtUp(Vec<Partition>),
}

/// An event and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// The event.
    pub event: Event,
    /// Its topic.
    pub topic: Topic,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When the broker appended it, Unix time.
    pub append_ms: u64,
}

/// The readers; they stop when it is dropped.
#[derive(Debug)]
pub struct Consume {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    books: Arc<Books>,
    committer: Committer,
}

impl Consume {
    /// Starts to read what was appended in the last `horizon`, and on.
    ///
    /// # Errors
    /// The settings'. A broker that is away is none: it is waited for.
    pub fn start(
        settings: &Kafka,
        horizon: Duration,
    ) -> Result<(Self, Receiver<Input>), SettingsError> {
        Self::start_as(settings, Plan::alert(settings, horizon))
    }

    /// Starts to read as a plan says.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_as(
        settings: &Kafka,
        plan: Plan,
    ) -> Result<(Self, Receiver<Input>), SettingsError> {
        let (to, from) = channel(CHANNEL_BATCHES);
        let books = Arc::new(Books::default());
        let dead_letters = match plan.buries {
            true => Some(Arc::new(DeadLetters::new(settings, Arc::clone(&books))?)),
            false => None,
        };
        let mut consume = Self {
            stop: Arc::default(),
            threads: Vec::new(),
            books,
            committer: Committer::default(),
        };
        let heartbeats = Begin::Ago(match plan.begin {
            Begin::Ago(horizon) => horizon,
            Begin::Asked(_) => HEARTBEATS_BEGIN,
        });
        let nodes = Plan {
            group: plan.group.clone(),
            topics: &[Topic::Node],
            share: Share::Split,
            begin: heartbeats,
            buries: plan.buries,
        };
        for (role, plan) in [(Role::Streams, plan), (Role::Nodes, nodes)] {
            let shared = reader::Shared {
                stop: Arc::clone(&consume.stop),
                books: Arc::clone(&consume.books),
                dead_letters: dead_letters.clone(),
                committer: consume.committer.clone(),
                to: to.clone(),
            };
            let reader = Reader::new(role, settings, plan, shared)?;
            let thread = thread::Builder::new()
                .name(format!("read-{}", role.word()))
                .spawn(move || reader.run())
                .map_err(|error| SettingsError::Conflict(format!("no thread: {error}")))?;
            consume.threads.push(thread);
        }
        Ok((consume, from))
    }

    /// The handle for commits.
    #[must_use]
    pub fn committer(&self) -> Committer {
        self.committer.clone()
    }

    /// How everything is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        self.books.status()
    }

    /// Stops: last commits go out and the group is left, so that others take over at once. Blocks for that, some seconds at most
    /// where brokers do not answer.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                error!("a reader broke");
            }
        }
    }
}

impl Drop for Consume {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
