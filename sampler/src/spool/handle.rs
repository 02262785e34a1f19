//! The handle by which daemon, outlet, queue and sink speak to the spool's thread.
//!
//! Input: batches, confirmations, questions. Output: replies, the [`SpoolStatus`].
//! Limits: the outlet never has more than one batch on its way here; other commands are bounded by the events that are out; dead
//! letters by [`LETTERS`].

use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot::{self, error::TryRecvError};
use tracing::{info, warn};

use super::dead_letter::DeadLetters;
use super::directory::DirectoryError;
use super::faults::Faults;
use super::reference::{Reference, ReferenceFiles, boot_id};
use super::segments::SpoolId;
use super::status::SpoolStatus;
use super::store::{Batch, Found, Store, StoreSettings};
use super::sync::Syncer;
use super::ticket::{Ticket, Written};
use super::worker::{Parts, Worker};
use crate::sink::{Ledger, Record};

/// Dead letters on their way to the disk; more are counted, and not kept.
const LETTERS: usize = 64;

/// The disk has so long to take a batch; then it goes on from memory.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// Settings of the spool.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    /// Where it lies.
    pub directory: PathBuf,
    /// Its bound.
    pub max_bytes: u64,
    /// Time between two syncs.
    pub fsync: Duration,
    /// Id of this life of the daemon.
    pub instance: u64,
    /// It goes on counting from the newest reference.
    pub resume: bool,
    /// What a test makes go wrong; none: nothing.
    pub faults: Option<Arc<dyn Faults>>,
}

/// A record to be sent again, and whether it is an earlier life's.
#[derive(Debug)]
pub struct Replayed {
    /// Its place.
    pub id: SpoolId,
    /// The record as it was.
    pub record: Record,
    /// It was left behind by an earlier life.
    pub earlier: bool,
}

/// What the thread is to do.
pub(super) enum Command {
    Append {
        batch: Batch,
        reference: Option<Reference>,
        ticket: Arc<Ticket>,
        reply: oneshot::Sender<Written>,
    },
    GiveBack {
        id: SpoolId,
        stream: Option<String>,
        earlier: bool,
    },
    Next {
        count: usize,
        reply: oneshot::Sender<Vec<Replayed>>,
    },
    DeadLetter {
        record: Record,
        reason: String,
    },
    Stop(oneshot::Sender<()>),
}

/// The handle. The thread ends after [`Spool::stop`], or with the last of them.
#[derive(Clone, Debug)]
pub struct Spool {
    commands: Sender<Command>,
    confirmed: Arc<Mutex<Vec<SpoolId>>>,
    status: Arc<Mutex<SpoolStatus>>,
    instance: u64,
}

impl Spool {
    /// Opens the directory and starts the threads. What earlier lives left is counted in the ledger as theirs.
    /// Also returns what was found, and the newest reference.
    ///
    /// # Errors
    /// When the directory may not be used.
    pub fn start(
        settings: SpoolSettings,
        ledger: Arc<Ledger>,
    ) -> Result<(Self, Found, Option<Reference>), DirectoryError> {
        let (references, newest) = ReferenceFiles::open(&settings.directory);
        let store = StoreSettings {
            directory: settings.directory.clone(),
            max_bytes: settings.max_bytes,
            resume: settings.resume,
            faults: settings.faults.clone(),
        };
        let (store, found) = Store::open(store, newest.as_ref())?;
        let at_risk = newest
            .as_ref()
            .map_or(0, |reference: &Reference| reference.at_risk);
        ledger.found_earlier(found.records, found.unreadable, at_risk);
        say(&found, at_risk);
        let status = Arc::new(Mutex::new(SpoolStatus {
            max_bytes: settings.max_bytes,
            torn_bytes: found.torn_bytes,
            aside: found.aside,
            ..SpoolStatus::default()
        }));
        let syncer = Syncer::start(Arc::clone(&status), settings.faults.clone())?;
        let (commands, receiver) = channel();
        let confirmed = Arc::new(Mutex::new(Vec::new()));
        let parts = Parts {
            store,
            references,
            dead_letters: DeadLetters::new(&settings.directory),
            syncer,
            confirmed: Arc::clone(&confirmed),
            fsync: settings.fsync,
            ledger,
            status: Arc::clone(&status),
        };
        Worker::start(parts, receiver)?;
        let spool = Self {
            commands,
            confirmed,
            status,
            instance: settings.instance,
        };
        Ok((spool, found, newest))
    }

    /// Has a batch written, and after it the reference of its edge.
    pub fn append(
        &self,
        batch: Batch,
        reference: Option<Reference>,
    ) -> (Arc<Ticket>, oneshot::Receiver<Written>) {
        let ticket = Arc::new(Ticket::default());
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Append {
            batch,
            reference,
            ticket: Arc::clone(&ticket),
            reply,
        });
        (ticket, answer)
    }

    /// A reference for the window that was closed at `counted_ms`.
    pub fn reference(&self, counted_ms: u64, at_risk: u64, state: Vec<u8>) -> Reference {
        Reference {
            boot_id: boot_id(),
            instance: self.instance,
            counted_ms,
            at_risk,
            state,
            // Known when its records are written.
            end: SpoolId::default(),
            confirmed: 0,
        }
    }

    /// Writes a reference alone, and waits for it as long as for a batch. False: the disk did not take it in time.
    pub fn note(&self, reference: Reference) -> bool {
        let (_, mut answer) = self.append(Batch::default(), Some(reference));
        let begin = Instant::now();
        loop {
            match answer.try_recv() {
                Ok(written) => return written.is_ok(),
                Err(TryRecvError::Empty) if begin.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return false,
            }
        }
    }

    /// These need the spool no more. The thread learns it when it looks up next, and is not woken for it.
    pub fn done(&self, ids: impl IntoIterator<Item = SpoolId>) {
        let confirmed = self.confirmed.lock();
        confirmed
            .unwrap_or_else(PoisonError::into_inner)
            .extend(ids);
    }

    /// An event had to leave the memory; it is replayed later.
    pub fn give_back(&self, id: SpoolId, record: &Record, earlier: bool) {
        let stream = record.stream().map(str::to_owned);
        self.tell(Command::GiveBack {
            id,
            stream,
            earlier,
        });
    }

    /// The oldest events that are on disk only; they are out from now on.
    pub fn next(&self, count: usize) -> oneshot::Receiver<Vec<Replayed>> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Next { count, reply });
        answer
    }

    /// Keeps an event that no broker takes, for a person. While the disk does not answer few of them wait for it.
    pub fn dead_letter(&self, record: Record, reason: String) {
        let mut status = self.lock();
        if status.letters_waiting < LETTERS {
            status.letters_waiting += 1;
            drop(status);
            self.tell(Command::DeadLetter { record, reason });
        }
    }

    /// Writes down everything, syncs, and ends the thread.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Stop(reply));
        // No answer: the thread has ended before.
        let _ = answer.await;
    }

    /// Events on disk only.
    pub fn pending(&self) -> u64 {
        let status = self.lock();
        status.pending + status.pending_earlier
    }

    /// How it is doing.
    pub fn status(&self) -> SpoolStatus {
        self.lock().clone()
    }

    /// Notes whether the disk answers in time.
    pub fn set_stuck(&self, stuck: bool) {
        let mut status = self.lock();
        if status.stuck != stuck {
            status.stuck = stuck;
            drop(status);
            match stuck {
                true => warn!("spool: the disk does not answer; events go on from memory"),
                false => info!("spool: the disk answers again"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, SpoolStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            // It has stopped; replies that are dropped say so.
            tracing::debug!("the spool has stopped");
        }
    }
}

fn say(found: &Found, at_risk: u64) {
    if found.records > 0 {
        info!(
            events = found.records,
            "the spool holds events of an earlier life; they are replayed"
        );
    }
    if found.unreadable > 0 || found.torn_bytes > 0 {
        warn!(
            unreadable = found.unreadable,
            torn_bytes = found.torn_bytes,
            "parts of the spool could not be read"
        );
    }
    if at_risk > 0 {
        warn!(
            events = at_risk,
            "so many events of the life before were in memory only and may be lost"
        );
    }
}
