//! What was decided, handed to those who are to hear of it.
//!
//! Input: what the engine wants done, in its order. Output: records of the alert topic and of the state topic, and words to every [`Output`].
//! Nobody waits for anybody: each output has a bound of its own, and counts what it drops.

pub mod alertmanager;
pub mod later;
pub mod log;
pub mod records;
pub mod unconfirmed;
pub mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use service::topics;

use self::alertmanager::Alertmanagers;
use self::records::{Records, Status};
use crate::alert::engine::{Out, Said};

/// Somebody who is to hear of alerts, beside the topic.
pub trait Output: Send + Sync {
    /// Takes what is said; never waits.
    fn say(&self, said: &Said);
}

impl Output for Alertmanagers {
    fn say(&self, said: &Said) {
        if let Some(alert) = &said.alert {
            self.send(vec![alert.clone()]);
        }
    }
}

/// All of them.
pub struct Publisher {
    records: Records,
    outputs: Vec<Arc<dyn Output>>,
    /// The state topic is there.
    state: bool,
}

impl Publisher {
    /// To the topics, and to these.
    pub fn new(records: Records, outputs: Vec<Arc<dyn Output>>) -> Self {
        Self {
            records,
            outputs,
            state: true,
        }
    }

    /// Whether states are kept: not where their topic is missing.
    pub const fn keep_state(&mut self, keep: bool) {
        self.state = keep;
    }

    /// Does what is wanted.
    pub fn publish(&mut self, out: Out) {
        match out {
            Out::Say(said) => {
                let key = said.record.key.to_string();
                // Only numbers that are none could fail.
                match serde_json::to_string(&said.record) {
                    Ok(value) => self.records.put_after_state(topics::ALERT, key, value),
                    Err(error) => tracing::error!(%error, key, "no record"),
                }
                self.outputs.iter().for_each(|output| output.say(&said));
            }
            Out::Forget(key) => self.records.put(topics::ALERT, None, key.to_string(), None),
            Out::Save {
                partition,
                key,
                value,
            } => {
                if self.state {
                    self.records.put(topics::STATE, Some(partition), key, value);
                }
            }
        }
    }

    /// To be called several times a second, and when something [`reported`](Self::reported).
    pub fn tick(&mut self) {
        self.records.tick();
    }

    /// Drops words that wait for their state: another owner may have taken over.
    pub fn drop_words(&mut self) {
        self.records.drop_words();
    }

    /// Ends when the brokers have said something of a record.
    pub fn reported(&self) -> impl Future<Output = ()> + use<> {
        self.records.reported()
    }

    /// Waits until the topics have all; how many records they have not. Blocks, `patience` at most.
    pub fn flush(&mut self, patience: Duration) -> usize {
        self.records.flush(patience)
    }

    /// How the topics are doing.
    #[must_use]
    pub fn status(&self) -> Status {
        self.records.status()
    }
}
