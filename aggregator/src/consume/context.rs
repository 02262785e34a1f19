//! librdkafka's calls, kept until the reader's loop looks at them.
//!
//! Input: rebalances, errors, statistics and logs, on the thread that polls. Output: [`Word`]s in their order; statistics go to
//! the books at once. Nothing here waits or answers: a rebalance stays open until the loop has found out where to begin.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};
use tracing::{debug, error};

use super::Partition;
use super::books::{Books, Role};
use crate::input::Topic;

/// What librdkafka said.
#[derive(Debug)]
pub(super) enum Word {
    /// The group gives these partitions; it waits for an answer.
    Assign(Vec<Partition>),
    /// The group takes everything back; it waits for an answer.
    Revoke,
    /// Something is wrong.
    Error(Code, String),
}

/// The context of a consumer.
#[derive(Debug)]
pub(super) struct Context {
    role: Role,
    books: Arc<Books>,
    words: Mutex<VecDeque<Word>>,
    closing: AtomicBool,
}

impl Context {
    pub(super) fn new(role: Role, books: Arc<Books>) -> Self {
        Self {
            role,
            books,
            words: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    /// The oldest word that nobody looked at.
    pub(super) fn next(&self) -> Option<Word> {
        self.words().pop_front()
    }

    /// From now on nobody looks at words: rebalances are answered at once.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    fn say(&self, word: Word) {
        self.words().push_back(word);
    }

    fn words(&self) -> MutexGuard<'_, VecDeque<Word>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(facility, "{message}");
            }
            // A broker that is away makes many of these; the reader says once what is the matter.
            _ => debug!(facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        self.books.set_error(self.role, reason.to_owned());
        self.say(Word::Error(code, reason.to_owned()));
    }

    fn stats(&self, statistics: Statistics) {
        self.books.set_statistics(self.role, &statistics);
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::Relaxed) {
            if let Err(error) = consumer.unassign() {
                debug!(%error, "while closing");
            }
        } else if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.say(Word::Assign(partitions(list)));
        } else {
            self.say(Word::Revoke);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        match result {
            Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => {}
            // The next commit says the same and more.
            Err(error) => {
                debug!(%error, "a commit was not taken");
                self.books.set_error(self.role, format!("commit: {error}"));
            }
        }
    }
}

/// Partitions of a list, in their order; of other topics there are none.
fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    let all = list.elements();
    let mut partitions: Vec<_> = all
        .iter()
        .filter_map(|one| Some((Topic::of_name(one.topic())?, one.partition())))
        .collect();
    partitions.sort_unstable();
    partitions
}
