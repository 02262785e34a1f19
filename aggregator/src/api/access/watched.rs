//! Something made from files, made anew when they change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::AccessError;

/// The files are looked at so often at most.
const EVERY: Duration = Duration::from_secs(1);

type Read<T> = Box<dyn Fn() -> Result<T, AccessError> + Send + Sync>;

/// It, and its files.
pub(super) struct Watched<T> {
    files: Vec<PathBuf>,
    read: Read<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamps: Vec<Stamp>,
    looked: Instant,
}

/// Changes when a file is written or replaced.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

impl<T> Watched<T> {
    /// Reads for the first time.
    pub(super) fn new(
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, AccessError> + Send + Sync + 'static,
    ) -> Result<Self, AccessError> {
        // Before the reading: what changes meanwhile is read again.
        let stamps = stamps(&files);
        let state = State {
            value: Arc::new(read()?),
            stamps,
            looked: Instant::now(),
        };
        Ok(Self {
            files,
            read: Box::new(read),
            state: Mutex::new(state),
        })
    }

    /// As the files have it; wrong ones change nothing.
    pub(super) fn now(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= EVERY {
            state.looked = Instant::now();
            self.look(&mut state);
        }
        Arc::clone(&state.value)
    }

    fn look(&self, state: &mut State<T>) {
        let stamps = stamps(&self.files);
        if stamps == state.stamps {
            return;
        }
        state.stamps = stamps;
        match (self.read)() {
            Ok(value) => {
                state.value = Arc::new(value);
                tracing::info!("read again: {}", self.names());
            }
            Err(error) => tracing::warn!(%error, "what was read before stays in force"),
        }
    }

    fn names(&self) -> String {
        let names: Vec<_> = self
            .files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        names.join(", ")
    }
}

impl<T> std::fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watched").field(&self.files).finish()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file| {
        let found = fs::metadata(file).ok()?;
        let (seconds, nanoseconds) = (found.mtime(), found.mtime_nsec());
        Some((found.dev(), found.ino(), seconds, nanoseconds, found.size()))
    };
    files.iter().map(stamp).collect()
}
