//! The spool's thread, and the handle by which outlet, queue and sink speak to it.
//!
//! Input: commands. Output: replies, the [`SpoolStatus`], and the [`Ledger`]'s books of what is on disk.
//! Limits: the outlet never has more than one batch on its way here; other commands are bounded by the events that are out.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::dead_letter::DeadLetters;
use super::directory::DirectoryError;
use super::faults::Faults;
use super::reference::{Reference, ReferenceFiles, boot_id};
use super::segments::SpoolId;
use super::status::{Rate, SpoolStatus};
use super::store::{Batch, Found, Losses, Store, StoreSettings};
use super::sync::Syncer;
use crate::sink::{Ledger, Reason, Record};

/// The disk has so long to take a batch; then it goes on from memory.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// A disk that said no is asked again this often.
const RETRY: Duration = Duration::from_secs(1);
/// The thread looks up this often when nothing happens.
const TICK: Duration = Duration::from_millis(250);
/// Commands worked off between two looks at the clock.
const COMMANDS_AT_ONCE: usize = 256;
/// A stop waits so long for the last sync.
const LAST_SYNC: Duration = Duration::from_secs(2);

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

/// What became of a batch that is on its way to the disk.
#[derive(Debug, Default)]
pub struct Ticket(AtomicU8);

const WAITING: u8 = 0;
const WRITTEN: u8 = 1;
const ABANDONED: u8 = 2;
const SETTLED: u8 = 3;

impl Ticket {
    /// The outlet waits no longer. False: too late, it is written, and the answer is there.
    pub fn abandon(&self) -> bool {
        self.0
            .compare_exchange(WAITING, ABANDONED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The spool has done with an abandoned batch: it answers again.
    pub fn is_settled(&self) -> bool {
        self.0.load(Ordering::Acquire) == SETTLED
    }

    fn is_abandoned(&self) -> bool {
        self.0.load(Ordering::Acquire) == ABANDONED
    }

    fn written(&self) -> bool {
        self.0
            .compare_exchange(WAITING, WRITTEN, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn settle(&self) {
        self.0.store(SETTLED, Ordering::Release);
    }
}

/// Answer to a batch: its first place, or why it is not on the disk.
pub type Written = Result<SpoolId, String>;

enum Command {
    Append {
        batch: Batch,
        reference: Option<Reference>,
        ticket: Arc<Ticket>,
        reply: oneshot::Sender<Written>,
    },
    Done(Vec<SpoolId>),
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
        let mut worker = Worker {
            store,
            references,
            dead_letters: DeadLetters::new(&settings.directory),
            syncer,
            fsync: settings.fsync,
            ledger,
            status: Arc::clone(&status),
            start: Instant::now(),
            rate: Rate::default(),
            synced_at: Instant::now(),
            failed: None,
            ack_failed: false,
        };
        worker.publish(0);
        thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || worker.run(&receiver))?;
        let spool = Self {
            commands,
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

    /// A reference for the end of a window.
    pub fn reference(&self, end_ms: u64, at_risk: u64, state: Vec<u8>) -> Reference {
        Reference {
            boot_id: boot_id(),
            instance: self.instance,
            end_ms,
            at_risk,
            state,
            // Known when its records are written.
            end: SpoolId::default(),
        }
    }

    /// These need the spool no more.
    pub fn done(&self, ids: Vec<SpoolId>) {
        if !ids.is_empty() {
            self.tell(Command::Done(ids));
        }
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

    /// Keeps an event that no broker takes, for a person.
    pub fn dead_letter(&self, record: Record, reason: String) {
        self.tell(Command::DeadLetter { record, reason });
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

struct Worker {
    store: Store,
    references: ReferenceFiles,
    dead_letters: DeadLetters,
    syncer: Syncer,
    fsync: Duration,
    ledger: Arc<Ledger>,
    status: Arc<Mutex<SpoolStatus>>,
    start: Instant,
    rate: Rate,
    synced_at: Instant,
    /// The disk said no: when, and what.
    failed: Option<(Instant, String)>,
    ack_failed: bool,
}

impl Worker {
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let first = match commands.recv_timeout(TICK) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            };
            let mut written = 0;
            let more = std::iter::from_fn(|| commands.try_recv().ok());
            for command in first.into_iter().chain(more).take(COMMANDS_AT_ONCE) {
                match command {
                    Command::Stop(reply) => {
                        self.finish();
                        let _ = reply.send(());
                        return;
                    }
                    other => written += self.obey(other),
                }
            }
            self.flush();
            self.sync();
            self.publish(written);
        }
    }

    /// Bytes written.
    fn obey(&mut self, command: Command) -> u64 {
        let mut losses = Losses::new();
        let before = self.store.bytes();
        let mut written = 0;
        match command {
            Command::Append {
                batch,
                reference,
                ticket,
                reply,
            } => {
                self.append(&batch, reference, &ticket, reply, &mut losses);
                written = self.store.bytes().saturating_sub(before);
            }
            Command::Done(ids) => ids.into_iter().for_each(|id| {
                self.store.confirm(id);
            }),
            Command::GiveBack {
                id,
                stream,
                earlier,
            } => {
                if !self.store.give_back(id) {
                    let stream = stream.as_deref();
                    self.ledger.lost_on_disk(stream, earlier, Reason::Spool, 1);
                }
            }
            Command::Next { count, reply } => self.next(count, reply, &mut losses),
            Command::DeadLetter { record, reason } => {
                match self.dead_letters.add(&record, &reason, wall_ms()) {
                    Ok(()) => self.lock().dead_letters += 1,
                    Err(error) => error!(%error, key = record.key, "a dead letter cannot be kept"),
                }
            }
            Command::Stop(_) => {}
        }
        self.count(losses, Reason::Spool);
        written
    }

    fn count(&self, losses: Losses, reason: Reason) {
        for (whose, events) in losses {
            let stream = whose.stream.as_deref();
            self.ledger
                .lost_on_disk(stream, whose.earlier, reason, events);
        }
    }

    fn append(
        &mut self,
        batch: &Batch,
        reference: Option<Reference>,
        ticket: &Ticket,
        reply: oneshot::Sender<Written>,
        losses: &mut Losses,
    ) {
        if ticket.is_abandoned() {
            return ticket.settle();
        }
        let result = self.write(batch, losses);
        if let Some(mut reference) = reference {
            if result.is_err() {
                // They are produced all the same: the next life must not count them again.
                reference.at_risk += batch.len() as u64;
            }
            reference.end = self.store.segments().end();
            if let Err(error) = self.references.write(&reference) {
                self.fail(&io::Error::other(format!("reference: {error}")));
            }
        }
        let in_time = ticket.written();
        if let Ok(first) = result {
            self.store.hand_out(first, batch.len() as u32);
            if !in_time {
                // They went on from memory meanwhile: on disk they would come twice.
                for index in first.index..first.index + batch.len() as u32 {
                    self.store.confirm(SpoolId { index, ..first });
                }
            }
        }
        if in_time {
            let _ = reply.send(result);
        } else {
            ticket.settle();
        }
    }

    fn write(&mut self, batch: &Batch, losses: &mut Losses) -> Written {
        if let Some((since, reason)) = &self.failed
            && since.elapsed() < RETRY
        {
            return Err(reason.clone());
        }
        match self.store.append(batch, losses) {
            Ok(first) => {
                if self.failed.take().is_some() {
                    info!("spool: the disk takes events again");
                }
                Ok(first)
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    fn fail(&mut self, error: &io::Error) -> String {
        let reason = error.to_string();
        let known = self.failed.as_ref().is_some_and(|(_, old)| *old == reason);
        if !known {
            warn!(
                reason,
                "spool: the disk does not take events; they go on from memory"
            );
        }
        self.failed = Some((Instant::now(), reason.clone()));
        reason
    }

    fn next(&mut self, count: usize, reply: oneshot::Sender<Vec<Replayed>>, losses: &mut Losses) {
        let mut unreadable = Losses::new();
        let records = match self.store.next(count, &mut unreadable) {
            Ok(records) => records,
            Err(error) => {
                warn!(%error, "spool: the backlog cannot be read now");
                Vec::new()
            }
        };
        self.count(unreadable, Reason::Unreadable);
        debug_assert!(losses.is_empty());
        for (.., earlier) in &records {
            self.ledger.recalled(*earlier);
        }
        let records = records
            .into_iter()
            .map(|(id, record, earlier)| Replayed {
                id,
                record,
                earlier,
            })
            .collect();
        if let Err(records) = reply.send(records) {
            // The sink has gone: they stay for the next life.
            for replayed in records {
                self.store.give_back(replayed.id);
                self.ledger.parked(replayed.earlier);
            }
        }
    }

    fn flush(&mut self) {
        match self.store.flush() {
            Ok(()) => self.ack_failed = false,
            Err(error) if !self.ack_failed => {
                self.ack_failed = true;
                warn!(%error, "spool: confirmations cannot be written down; a new life would send those events again");
            }
            Err(_) => {}
        }
    }

    fn sync(&mut self) {
        let due = self.synced_at.elapsed() >= self.fsync && !self.syncer.is_busy();
        if due && let Some(file) = self.store.unsynced() {
            self.synced_at = Instant::now();
            self.syncer.sync(file);
        }
    }

    fn finish(&mut self) {
        self.flush();
        let end = Instant::now() + LAST_SYNC;
        let wait = |syncer: &Syncer| {
            while syncer.is_busy() && Instant::now() < end {
                thread::sleep(Duration::from_millis(5));
            }
        };
        wait(&self.syncer);
        if let Some(file) = self.store.unsynced() {
            self.syncer.sync(file);
            wait(&self.syncer);
        }
        // Nothing unconfirmed in it: the file goes.
        self.store.seal();
        self.publish(0);
    }

    fn publish(&mut self, written: u64) {
        let bytes_per_s = self.rate.add(written, self.start.elapsed());
        let segments = self.store.segments();
        let (pending, pending_earlier) = segments.pending();
        let (records, oldest_end_ms) = (segments.unconfirmed(), segments.oldest_end_ms());
        let bytes = self.store.bytes();
        let write_trouble = self.failed.as_ref().map(|(_, reason)| reason.clone());
        let mut status = self.lock();
        status.bytes = bytes;
        status.records = records;
        (status.pending, status.pending_earlier) = (pending, pending_earlier);
        status.oldest_end_ms = oldest_end_ms;
        status.bytes_per_s = bytes_per_s;
        status.write_trouble = write_trouble;
    }

    fn lock(&self) -> MutexGuard<'_, SpoolStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    wall.unwrap_or_default().as_millis() as u64
}
