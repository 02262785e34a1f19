//! What all members have said of alerts, read back from the alert topic, and who is listening.
//!
//! Input: the whole alert topic; totals once a second. Output: the [`Board`] for questions, and events for listeners. Limits: [`Board`]'s;
//! [`MAX_LISTENERS`] listeners, [`EVENTS`] events wait for each: who is slower than that is dropped and counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use service::metrics::{Family, counter, gauge};
use tokio::sync::broadcast;
use tokio::sync::mpsc::Receiver;

use crate::alert::Board;
use crate::consume::Tailed;

/// Events that wait for a listener.
pub const EVENTS: usize = 256;
/// Listeners at one time.
pub const MAX_LISTENERS: usize = 64;

/// A listener hears for so long and then comes again, as event sources do by themselves: who may listen is asked anew.
pub const LISTENED: Duration = Duration::from_secs(3_600);

/// What listeners hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Name of the event: `totals` or `alert`.
    pub name: &'static str,
    /// JSON.
    pub json: std::sync::Arc<str>,
}

/// The board and its listeners.
#[derive(Debug)]
pub struct Boards {
    board: RwLock<Board>,
    /// None: the end is near, nobody listens any more.
    told: RwLock<Option<broadcast::Sender<Told>>>,
    slow: AtomicU64,
    listened: Duration,
}

impl Default for Boards {
    fn default() -> Self {
        Self {
            board: RwLock::default(),
            told: RwLock::new(Some(broadcast::channel(EVENTS).0)),
            slow: AtomicU64::new(0),
            listened: LISTENED,
        }
    }
}

impl Boards {
    /// What was said; hold it shortly.
    pub fn board(&self) -> RwLockReadGuard<'_, Board> {
        self.board.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// With another time than `LISTENED`.
    #[must_use]
    pub fn listened(self, listened: Duration) -> Self {
        Self { listened, ..self }
    }

    /// For how long a listener hears.
    #[must_use]
    pub const fn listened_for(&self) -> Duration {
        self.listened
    }

    /// A new listener; none if there are too many, or the end is near.
    #[must_use]
    pub fn listen(&self) -> Option<broadcast::Receiver<Told>> {
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        let told = told.as_ref()?;
        (told.receiver_count() < MAX_LISTENERS).then(|| told.subscribe())
    }

    /// How many listen.
    #[must_use]
    pub fn listeners(&self) -> usize {
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        told.as_ref().map_or(0, broadcast::Sender::receiver_count)
    }

    /// A listener was too slow, and is dropped.
    pub fn dropped_slow(&self) {
        self.slow.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells all listeners.
    pub(super) fn tell(&self, name: &'static str, json: String) {
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = told.as_ref() {
            let json = json.into();
            // Nobody listens: nothing to do.
            let _ = told.send(Told { name, json });
        }
    }

    /// Ends all listening.
    pub(super) fn close(&self) {
        let mut told = self.told.write().unwrap_or_else(PoisonError::into_inner);
        *told = None;
    }

    /// Takes in the alert topic, for ever.
    pub(super) async fn follow(&self, mut from: Receiver<Tailed>) {
        while let Some(said) = from.recv().await {
            match said {
                Tailed::Record { key, value, .. } => self.take(&key, value.as_deref()),
                Tailed::End { .. } => {}
                Tailed::Trouble(trouble) => tracing::warn!("what others say of alerts: {trouble}"),
            }
        }
    }

    fn take(&self, key: &str, value: Option<&[u8]>) {
        let mut board = self.board.write().unwrap_or_else(PoisonError::into_inner);
        let json = board
            .take(key, value)
            .and_then(|record| serde_json::to_string(record).ok());
        drop(board);
        if let Some(json) = json {
            self.tell("alert", json);
        }
    }

    /// Its metrics.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let (unreadable, crowded) = self.board().lost();
        vec![
            gauge(
                "flowvitals_aggregator_live_listeners",
                "Clients that listen to /api/v1/live.",
                self.listeners() as f64,
            ),
            counter(
                "flowvitals_aggregator_live_listeners_dropped_total",
                "Clients of /api/v1/live that were too slow.",
                self.slow.load(Ordering::Relaxed),
            ),
            counter(
                "flowvitals_aggregator_alert_records_unreadable_total",
                "Records of the alert topic that are none of ours.",
                unreadable,
            ),
            counter(
                "flowvitals_aggregator_alert_records_crowded_total",
                "Records of the alert topic that found no room here.",
                crowded,
            ),
        ]
    }
}
