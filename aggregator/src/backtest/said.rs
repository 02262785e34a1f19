//! What the running rules said: the alert topic from its beginning to its end.
//!
//! Input: the brokers. Output: every episode of which the topic still has a record. The topic is compacted: of a rule and stream it surely has the newest
//! episode, older ones until the cleaner takes them. Limits: [`PATIENCE`].

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;
use service::topics;
use tokio::sync::mpsc::error::TryRecvError;

use crate::alert::{Ended, Key, Kind, Peak, Record};
use crate::consume::{Kafka, Tail, Tailed};

/// How long reading may take without a record.
const PATIENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(10);

/// An episode that was said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Ran {
    /// What it is about.
    #[serde(flatten)]
    pub key: Key,
    /// Its id.
    pub episode_id: String,
    /// Event time at which it went on, Unix ms.
    pub starts_at_ms: u64,
    /// Event time at which it went off, Unix ms; none: it is on, as far as is known.
    pub ends_at_ms: Option<u64>,
    /// How long it was on, ms.
    pub duration_ms: Option<u64>,
    /// Why it ended.
    pub ended: Option<Ended>,
    /// The highest estimate.
    pub peak: Option<Peak>,
}

/// All episodes of a site.
///
/// # Errors
/// Why the topic cannot be read, in words.
pub(super) fn read(kafka: &Kafka, site: &str, partitions: i32) -> Result<Vec<Ran>, String> {
    let (tail, mut from) = Tail::start(kafka, topics::ALERT).map_err(|error| error.to_string())?;
    tail.read_all();
    let (mut episodes, mut open) = (BTreeMap::new(), partitions);
    let mut heard = Instant::now();
    while open > 0 {
        match from.try_recv() {
            Ok(Tailed::Record { value, .. }) => {
                heard = Instant::now();
                if let Some(value) = value {
                    take(site, &value, &mut episodes);
                }
            }
            Ok(Tailed::End { .. }) => open -= 1,
            Ok(Tailed::Trouble(trouble)) => return Err(trouble),
            Err(TryRecvError::Disconnected) => return Err("reading broke off".to_owned()),
            Err(TryRecvError::Empty) if heard.elapsed() > PATIENCE => {
                return Err(format!("{}: not read to its end", topics::ALERT));
            }
            Err(TryRecvError::Empty) => sleep(POLL),
        }
    }
    Ok(episodes.into_values().collect())
}

fn take(site: &str, value: &[u8], episodes: &mut BTreeMap<(Key, String), Ran>) {
    let record: Option<Record> = serde_json::from_slice(value).ok();
    let Some(record) = record.filter(|record| record.key.site == site) else {
        return;
    };
    let notice = record.notice;
    let Some(episode_id) = notice.episode_id else {
        return;
    };
    let over = matches!(notice.kind, Kind::Resolved | Kind::ResolvedRepeated);
    let ran = Ran {
        key: record.key.clone(),
        episode_id: episode_id.clone(),
        starts_at_ms: notice.starts_at_ms,
        ends_at_ms: over.then_some(notice.ends_at_ms),
        duration_ms: notice.duration_ms,
        ended: notice.ended,
        peak: notice.peak,
    };
    episodes.insert((record.key, episode_id), ran);
}
