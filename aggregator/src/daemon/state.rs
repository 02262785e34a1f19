//! The state topic, as the owner of partitions reads it.
//!
//! Input: partitions that were assigned. Output: all that is kept of them; then what others write there. Limits: [`PATIENCE`] for all of it:
//! who cannot read what was begins anew, and says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use service::topics;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout_at};

use crate::consume::{Kafka, SettingsError, Tail, Tailed, partitions_of};

/// How long reading may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Keys and values of a partition, in their order.
pub(super) type Kept = Vec<(String, Vec<u8>)>;

/// The reader.
pub(super) struct StateTopic {
    settings: Kafka,
    tail: Tail,
    from: Receiver<Tailed>,
    turn: u64,
    /// Why it is not used.
    pub(super) trouble: Option<String>,
    /// Partitions of the window topic, if the brokers said so.
    pub(super) partitions: Option<i32>,
    /// Records read.
    pub(super) read: u64,
}

impl StateTopic {
    pub(super) fn start(settings: &Kafka) -> Result<Self, SettingsError> {
        let (tail, from) = Tail::start(settings, topics::STATE)?;
        Ok(Self {
            settings: settings.clone(),
            tail,
            from,
            turn: 0,
            trouble: None,
            partitions: None,
            read: 0,
        })
    }

    /// Reads partitions to their end. What cannot be read is missing, and `trouble` says why.
    pub(super) async fn read(&mut self, numbers: &[i32]) -> BTreeMap<i32, Kept> {
        self.trouble = None;
        let mut kept = BTreeMap::new();
        match self.usable(numbers).await {
            Ok(()) => self.read_to_end(numbers, &mut kept).await,
            Err(trouble) => self.trouble = Some(trouble),
        }
        kept
    }

    async fn usable(&mut self, numbers: &[i32]) -> Result<(), String> {
        let settings = self.settings.clone();
        let counts = tokio::task::spawn_blocking(move || {
            let of = |topic| partitions_of(&settings, topic);
            (of(topics::WINDOW), of(topics::STATE))
        });
        let (windows, states) = counts.await.map_err(|error| error.to_string())?;
        let (windows, states) = (windows?, states?);
        self.partitions = Some(windows);
        let most = numbers.iter().max().copied().unwrap_or(0);
        match most < states {
            true => Ok(()),
            false => Err(format!(
                "topic {}: {states} partitions, the windows have {windows}: states are not kept",
                topics::STATE
            )),
        }
    }

    async fn read_to_end(&mut self, numbers: &[i32], kept: &mut BTreeMap<i32, Kept>) {
        self.turn = self.tail.read(numbers.to_vec());
        let mut open: BTreeSet<i32> = numbers.iter().copied().collect();
        let deadline = Instant::now() + PATIENCE;
        while !open.is_empty() {
            match timeout_at(deadline, self.from.recv()).await {
                Ok(Some(Tailed::Record {
                    turn,
                    partition,
                    key,
                    value,
                    ..
                })) if turn == self.turn => {
                    self.read += 1;
                    let of = kept.entry(partition).or_default();
                    match value {
                        Some(value) => of.push((key, value)),
                        None => of.retain(|(known, _)| *known != key),
                    }
                }
                Ok(Some(Tailed::End { turn, partition })) if turn == self.turn => {
                    open.remove(&partition);
                }
                Ok(Some(Tailed::Trouble(trouble))) => self.trouble = Some(trouble),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    let trouble = format!("topic {}: not read to its end", topics::STATE);
                    self.trouble.get_or_insert(trouble);
                    return;
                }
            }
        }
        self.trouble = None;
    }

    /// What is written there from now on: partition, key, value. Never ends.
    pub(super) async fn heard(&mut self) -> (i32, String, Vec<u8>) {
        loop {
            match self.from.recv().await {
                Some(Tailed::Record {
                    turn,
                    partition,
                    key,
                    value: Some(value),
                    ..
                }) if turn == self.turn => {
                    self.read += 1;
                    return (partition, key, value);
                }
                Some(_) => {}
                // Its thread is gone: nothing is heard any more.
                None => std::future::pending().await,
            }
        }
    }
}
