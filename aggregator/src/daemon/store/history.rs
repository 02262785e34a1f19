//! Alerts into the store: every change of an episode, and the windows around its onset.
//!
//! Input: the alert topic, whoever writes it. Output: rows of `alert_history` as they come, and once per episode, when the time is
//! over that belongs to it, `alert_evidence`: the stream's windows read once more from the log, by the member that holds their
//! partition. All writes may come again. While the store does not take them, the topic is not read on.
//! Limits: [`MOST_ROWS`] rows and [`MOST_EPISODES`] episodes wait; evidence that cannot be had for [`GIVE_UP_MS`] is given up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sampler_event::{Message, StreamWindow};
use service::metrics::{Family, counter};
use service::topics;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::Storing;
use crate::alert::{Kind, Record};
use crate::consume::{Kafka, SettingsError, Span, Tail, Tailed, windows_of};
use crate::daemon::unix_ms;
use crate::store::{AlertRow, EvidenceRow, Part, Store, StoreError};

/// Rows that wait for the store.
const MOST_ROWS: usize = 500;
/// Episodes that are remembered, those that wait among them.
const MOST_EPISODES: usize = 4_096;
/// Windows so long before and after an onset belong to it, ms.
const AROUND_MS: u64 = 60_000;
/// Late windows of that time are waited for, ms.
const LATE_MS: u64 = 10_000;
/// What could not be read is tried again after, ms.
const AGAIN_MS: u64 = 30_000;
/// The windows' topic keeps no longer, ms.
const GIVE_UP_MS: u64 = 6 * 3_600_000;
/// What waits is looked at so often.
const TICK: Duration = Duration::from_secs(1);

/// What became of them, cumulative.
#[derive(Debug, Default)]
pub(super) struct Figures {
    changes: AtomicU64,
    windows: AtomicU64,
    lost: AtomicU64,
}

impl Figures {
    pub(super) fn families(&self) -> Vec<Family> {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        vec![
            counter(
                "flowvitals_store_alert_changes_total",
                "Changes of alerts that the store has taken; what is read again counts again.",
                read(&self.changes),
            ),
            counter(
                "flowvitals_store_evidence_windows_total",
                "Windows around onsets of alerts that the store has taken.",
                read(&self.windows),
            ),
            counter(
                "flowvitals_store_evidence_lost_total",
                "Alerts whose evidence could not be had, or not all of it.",
                read(&self.lost),
            ),
        ]
    }
}

/// The task; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct History {
    task: JoinHandle<()>,
    _tail: Tail,
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl History {
    pub(super) fn start(
        kafka: &Kafka,
        site: &str,
        store: Arc<dyn Store>,
        storing: Arc<Storing>,
    ) -> Result<Self, SettingsError> {
        let (tail, said) = Tail::start(kafka, topics::ALERT)?;
        let keeper = Keeper {
            kafka: kafka.clone(),
            site: site.to_owned(),
            store,
            storing,
            rows: Vec::new(),
            episodes: BTreeMap::new(),
        };
        tail.read_all();
        Ok(Self {
            task: tokio::spawn(keeper.run(said)),
            _tail: tail,
        })
    }
}

/// Which episode: key and id.
type Episode = (String, String);

/// Where the evidence of an episode is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Evidence {
    /// It is looked for at a moment, Unix ms.
    Due { onset_ms: u64, at_ms: u64 },
    /// It is in the store, or given up.
    Done,
}

struct Keeper {
    kafka: Kafka,
    site: String,
    store: Arc<dyn Store>,
    storing: Arc<Storing>,
    rows: Vec<AlertRow>,
    episodes: BTreeMap<Episode, Evidence>,
}

impl Keeper {
    async fn run(mut self, mut said: Receiver<Tailed>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(said) = said.recv(), if self.rows.len() < MOST_ROWS => self.take(said),
                _ = tick.tick() => {
                    if let Err(error) = self.write().await {
                        tracing::debug!(%error, "alerts wait for the store");
                    } else {
                        self.look(unix_ms()).await;
                    }
                }
            }
        }
    }

    fn take(&mut self, said: Tailed) {
        let (offset, key, value) = match said {
            Tailed::Record {
                offset,
                key,
                value: Some(value),
                ..
            } => (offset, key, value),
            Tailed::Record { .. } | Tailed::End { .. } => return,
            Tailed::Trouble(trouble) => return tracing::debug!("alerts to store: {trouble}"),
        };
        // What cannot be read is counted where the topic is read for answers.
        let Ok(record) = serde_json::from_slice::<Record>(&value) else {
            return;
        };
        let (Some(id), true) = (&record.notice.episode_id, record.key.site == self.site) else {
            return;
        };
        let notice = &record.notice;
        self.remember((key.clone(), id.clone()), notice.onset_ms);
        if is_change(notice.kind) {
            self.rows.push(AlertRow {
                key,
                episode: id.clone(),
                at_ms: notice.said_ms,
                offset,
                state: name_of(notice.state),
                value,
            });
        }
    }

    fn remember(&mut self, episode: Episode, onset_ms: u64) {
        if self.episodes.contains_key(&episode) || onset_ms == 0 {
            return;
        }
        if self.episodes.len() >= MOST_EPISODES {
            let done = |(_, evidence): &(&Episode, &Evidence)| **evidence == Evidence::Done;
            let over = self.episodes.iter().find(done).map(|(episode, _)| episode);
            let Some(over) = over.cloned() else {
                return self.lose();
            };
            self.episodes.remove(&over);
        }
        let at_ms = onset_ms.saturating_add(AROUND_MS + LATE_MS);
        let due = Evidence::Due { onset_ms, at_ms };
        self.episodes.insert(episode, due);
    }

    fn lose(&self) {
        let lost = &self.storing.history().lost;
        lost.fetch_add(1, Ordering::Relaxed);
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.store.write_alerts(&self.rows).await?;
        let changes = &self.storing.history().changes;
        changes.fetch_add(self.rows.len() as u64, Ordering::Relaxed);
        self.rows.clear();
        Ok(())
    }

    /// Looks for evidence whose time is over, one episode at a time.
    async fn look(&mut self, now_ms: u64) {
        let due = self.episodes.iter().find_map(|(episode, evidence)| {
            let Evidence::Due { onset_ms, at_ms } = *evidence else {
                return None;
            };
            (at_ms <= now_ms).then(|| (episode.clone(), onset_ms))
        });
        let Some((episode, onset_ms)) = due else {
            return;
        };
        let after = match self.keep(&episode, onset_ms).await {
            Ok(true) => Evidence::Done,
            _ if now_ms > onset_ms.saturating_add(GIVE_UP_MS) => Evidence::Done,
            Ok(false) => again(onset_ms, now_ms),
            Err(error) => {
                tracing::warn!(%error, key = episode.0, "evidence of an alert waits");
                again(onset_ms, now_ms)
            }
        };
        self.episodes.insert(episode, after);
    }

    /// Brings the windows around an onset into the store; false: that is another member's business now.
    async fn keep(&self, (key, id): &Episode, onset_ms: u64) -> Result<bool, String> {
        let known = self.store.evidence(key, id).await;
        if !known.map_err(|error| error.to_string())?.is_empty() {
            return Ok(true);
        }
        let stream = key.rsplit('|').next().unwrap_or_default().to_owned();
        let (kafka, storing) = (self.kafka.clone(), Arc::clone(&self.storing));
        let (from_ms, to_ms) = (onset_ms.saturating_sub(AROUND_MS), onset_ms + AROUND_MS);
        let read = tokio::task::spawn_blocking(move || {
            let appended = (from_ms, to_ms + LATE_MS);
            windows_of(&kafka, &stream, appended, |partition| {
                storing.holds(partition)
            })
        });
        let Some(span) = read.await.map_err(|error| error.to_string())?? else {
            return Ok(false);
        };
        self.store_evidence((key, id), (from_ms, to_ms), span)
            .await?;
        Ok(true)
    }

    async fn store_evidence(
        &self,
        (key, id): (&str, &str),
        (from_ms, to_ms): (u64, u64),
        span: Span,
    ) -> Result<(), String> {
        if span.cut {
            self.lose();
        }
        let inside = |window: &&StreamWindow| (from_ms..to_ms).contains(&window.window_start_ms);
        let rows = span
            .windows
            .iter()
            .filter(inside)
            .map(|window| EvidenceRow {
                key: key.to_owned(),
                episode: id.to_owned(),
                window_start_ms: window.window_start_ms,
                id: Part::of(window).to_string(),
                event: window.encode_to_vec(),
            });
        let rows: Vec<_> = rows.collect();
        let written = self.store.write_evidence(&rows).await;
        written.map_err(|error| error.to_string())?;
        let windows = &self.storing.history().windows;
        windows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

const fn again(onset_ms: u64, now_ms: u64) -> Evidence {
    Evidence::Due {
        onset_ms,
        at_ms: now_ms.saturating_add(AGAIN_MS),
    }
}

/// What is said again is no change.
const fn is_change(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Repeated | Kind::ResolvedRepeated | Kind::SuspectRepeated
    )
}

/// The word for a state, as the record has it.
fn name_of(state: crate::alert::State) -> String {
    let word = serde_json::to_value(state).ok();
    let word = word.as_ref().and_then(serde_json::Value::as_str);
    word.unwrap_or_default().to_owned()
}
