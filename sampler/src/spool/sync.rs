//! Brings segments to the disk, in a thread of its own: an fsync may take its time, and nothing waits for it.
//!
//! Input: some files at a time. Output: how long they took, or why it failed, in the [`SpoolStatus`].
//! Limits: one request at a time; while it runs no other is begun.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::faults::Faults;
use super::status::SpoolStatus;

/// A sync that takes longer is worth a word.
const SLOW: Duration = Duration::from_millis(250);

/// The thread's near end.
#[derive(Debug)]
pub struct Syncer {
    files: SyncSender<Vec<Arc<File>>>,
    busy: Arc<AtomicBool>,
}

impl Syncer {
    /// Starts the thread; it ends when this is dropped.
    pub fn start(
        status: Arc<Mutex<SpoolStatus>>,
        faults: Option<Arc<dyn Faults>>,
    ) -> io::Result<Self> {
        let (files, receiver) = sync_channel(1);
        let busy = Arc::new(AtomicBool::new(false));
        let state = Arc::clone(&busy);
        thread::Builder::new()
            .name("spool-sync".to_owned())
            .spawn(move || run(&receiver, &state, &status, faults.as_deref()))?;
        Ok(Self { files, busy })
    }

    /// Has files brought to the disk; to be called when it is not busy.
    pub fn sync(&self, files: Vec<Arc<File>>) {
        self.busy.store(true, Ordering::Release);
        // The thread lives as long as this, and takes one request while it is busy with none.
        let _ = self.files.try_send(files);
    }

    /// Whether a sync is running.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }
}

fn run(
    requests: &Receiver<Vec<Arc<File>>>,
    busy: &AtomicBool,
    status: &Mutex<SpoolStatus>,
    faults: Option<&dyn Faults>,
) {
    for files in requests {
        let begin = Instant::now();
        let result = faults
            .map_or(Ok(()), Faults::before_sync)
            .and_then(|()| files.iter().try_for_each(|file| file.sync_data()));
        let took = begin.elapsed();
        let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
        status.sync.record(took);
        status.sync_trouble = match result {
            Err(error) => Some(format!("fsync: {error}")),
            Ok(()) if took >= SLOW => Some(format!("fsync took {} ms", took.as_millis())),
            Ok(()) => None,
        };
        drop(status);
        busy.store(false, Ordering::Release);
    }
}
