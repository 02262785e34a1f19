//! The spool's thread.
//!
//! Input: commands. Output: replies, the [`SpoolStatus`], and the [`Ledger`]'s books of what is on disk.
//! Limits: those of [`Store`]; a disk that said no is asked again once a second.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::dead_letter::DeadLetters;
use super::handle::{Command, Replayed};
use super::reference::{Reference, ReferenceFiles};
use super::segments::SpoolId;
use super::status::{Rate, SpoolStatus};
use super::store::{Batch, Losses, Store};
use super::sync::Syncer;
use super::ticket::{Ticket, Written};
use crate::sink::{Ledger, Reason};

/// A disk that said no is asked again this often.
const RETRY: Duration = Duration::from_secs(1);
/// The thread looks up this often when there is nothing to do.
const IDLE: Duration = Duration::from_secs(2);
/// Commands worked off between two looks at the clock.
const COMMANDS_AT_ONCE: usize = 256;
/// Confirmations that no reference has noted by then are written down, which opens a file. A kill costs that many sent twice.
const ACK_AFTER: Duration = Duration::from_secs(2);
/// A stop waits so long for the last sync.
const LAST_SYNC: Duration = Duration::from_secs(2);

/// What a worker is made of.
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) references: ReferenceFiles,
    pub(super) dead_letters: DeadLetters,
    pub(super) syncer: Syncer,
    /// What the spool need not keep any more. The thread is not woken for it.
    pub(super) confirmed: Arc<Mutex<Vec<SpoolId>>>,
    /// What is not confirmed by then is brought to the disk.
    pub(super) fsync: Duration,
    pub(super) ledger: Arc<Ledger>,
    pub(super) status: Arc<Mutex<SpoolStatus>>,
}

/// The thread's own.
pub(super) struct Worker {
    parts: Parts,
    start: Instant,
    rate: Rate,
    /// What [`Parts::confirmed`] held.
    taken: Vec<SpoolId>,
    /// Since when something waits to be brought to the disk.
    unsynced_since: Option<Instant>,
    /// Since when a confirmation waits to be written down.
    unflushed_since: Option<Instant>,
    /// The disk said no: when, and what.
    failed: Option<(Instant, String)>,
    ack_failed: bool,
}

impl Worker {
    /// Starts the thread; it ends at [`Command::Stop`], or with the last sender.
    pub(super) fn start(parts: Parts, commands: Receiver<Command>) -> io::Result<()> {
        let now = Instant::now();
        let mut worker = Self {
            parts,
            start: now,
            rate: Rate::default(),
            taken: Vec::new(),
            unsynced_since: None,
            unflushed_since: None,
            failed: None,
            ack_failed: false,
        };
        worker.publish(0);
        thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || worker.run(&commands))?;
        Ok(())
    }

    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let first = match commands.recv_timeout(self.patience()) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            };
            self.take_confirmed();
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
            self.flush_in_time();
            self.sync_in_time();
            self.publish(written);
        }
    }

    /// How long nothing has to be done: waking up is most of what the thread costs.
    fn patience(&self) -> Duration {
        let left = |since: Option<Instant>, after: Duration| {
            since.map_or(IDLE, |since| after.saturating_sub(since.elapsed()))
        };
        let flush = left(self.unflushed_since, ACK_AFTER);
        // A moment more than asked for, so that the next window, which mostly comes as often, wakes it instead.
        let sync = match self.parts.syncer.is_busy() {
            true => self.parts.fsync,
            false => left(self.unsynced_since, self.parts.fsync * 9 / 8),
        };
        IDLE.min(flush).min(sync)
    }

    fn take_confirmed(&mut self) {
        std::mem::swap(&mut *lock(&self.parts.confirmed), &mut self.taken);
        for id in self.taken.drain(..) {
            self.parts.store.confirm(id);
        }
        // What is written from here on has waited for nothing yet.
        if !self.parts.store.is_unsynced() {
            self.unsynced_since = None;
        }
    }

    /// Bytes written.
    fn obey(&mut self, command: Command) -> u64 {
        let mut losses = Losses::new();
        let mut written = 0;
        match command {
            Command::Append {
                batch,
                reference,
                ticket,
                reply,
            } => {
                written = batch.bytes();
                self.append(&batch, reference, &ticket, reply, &mut losses);
            }
            Command::GiveBack {
                id,
                stream,
                earlier,
            } => {
                if !self.parts.store.give_back(id) {
                    let stream = stream.as_deref();
                    self.parts
                        .ledger
                        .lost_on_disk(stream, earlier, Reason::Spool, 1);
                }
            }
            Command::Next { count, reply } => self.next(count, reply),
            Command::DeadLetter { record, reason } => {
                let kept = self.parts.dead_letters.add(&record, &reason, wall_ms());
                let mut status = self.lock();
                status.letters_waiting -= 1;
                status.dead_letters += u64::from(kept.is_ok());
                drop(status);
                if let Err(error) = kept {
                    error!(%error, key = record.key, "a dead letter cannot be kept");
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
            self.parts
                .ledger
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
            let segments = self.parts.store.segments();
            (reference.end, reference.confirmed) = (segments.end(), segments.confirmed());
            match self.parts.references.write(&reference) {
                Ok(()) => self.parts.store.noted(&reference),
                Err(error) => {
                    self.fail(&io::Error::other(format!("reference: {error}")));
                }
            }
        }
        let in_time = ticket.written();
        if let Ok(first) = result {
            self.parts.store.hand_out(first, batch.len() as u32);
            if !in_time {
                // They went on from memory meanwhile: on disk they would come twice.
                for index in first.index..first.index + batch.len() as u32 {
                    self.parts.store.confirm(SpoolId { index, ..first });
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
        match self.parts.store.append(batch, losses) {
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

    fn next(&mut self, count: usize, reply: oneshot::Sender<Vec<Replayed>>) {
        let mut unreadable = Losses::new();
        let records = match self.parts.store.next(count, &mut unreadable) {
            Ok(records) => records,
            Err(error) => {
                warn!(%error, "spool: the backlog cannot be read now");
                Vec::new()
            }
        };
        self.count(unreadable, Reason::Unreadable);
        for (.., earlier) in &records {
            self.parts.ledger.recalled(*earlier);
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
                self.parts.store.give_back(replayed.id);
                self.parts.ledger.parked(replayed.earlier);
            }
        }
    }

    fn flush_in_time(&mut self) {
        if self.parts.store.is_flushed() {
            self.unflushed_since = None;
            return;
        }
        let since = *self.unflushed_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= ACK_AFTER {
            self.unflushed_since = None;
            self.flush();
        }
    }

    fn flush(&mut self) {
        match self.parts.store.flush() {
            Ok(()) => self.ack_failed = false,
            Err(error) if !self.ack_failed => {
                self.ack_failed = true;
                warn!(%error, "spool: confirmations cannot be written down; a new life would send those events again");
            }
            Err(_) => {}
        }
    }

    /// Brings to the disk what brokers have not confirmed in time. Mostly they have, and the disk is left alone.
    fn sync_in_time(&mut self) {
        if !self.parts.store.is_unsynced() {
            self.unsynced_since = None;
            return;
        }
        let since = *self.unsynced_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.parts.fsync && !self.parts.syncer.is_busy() {
            self.unsynced_since = None;
            self.sync_now();
        }
    }

    fn sync_now(&mut self) {
        let files = self.parts.store.take_unsynced();
        if !files.is_empty() {
            self.parts.syncer.sync(files);
        }
    }

    fn finish(&mut self) {
        self.take_confirmed();
        self.flush();
        let at_risk = self.parts.ledger.totals().at_risk;
        if let Err(error) = self.parts.references.settle(at_risk) {
            info!(%error, "spool: events at risk are noted as of the last window");
        }
        let end = Instant::now() + LAST_SYNC;
        let wait = |syncer: &Syncer| {
            while syncer.is_busy() && Instant::now() < end {
                thread::sleep(Duration::from_millis(5));
            }
        };
        wait(&self.parts.syncer);
        if !self.parts.syncer.is_busy() {
            self.sync_now();
            wait(&self.parts.syncer);
        }
        // Nothing unconfirmed in it: the file goes.
        self.parts.store.seal();
        self.publish(0);
    }

    fn publish(&mut self, written: u64) {
        let bytes_per_s = self.rate.add(written, self.start.elapsed());
        let segments = self.parts.store.segments();
        let (pending, pending_earlier) = segments.pending();
        let (records, oldest_end_ms) = (segments.unconfirmed(), segments.oldest_end_ms());
        let bytes = self.parts.store.bytes();
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
        lock(&self.parts.status)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    wall.unwrap_or_default().as_millis() as u64
}
