//! One consumer and the loop that polls it, in a thread of its own.
//!
//! Input: records. Output: [`Input`](super::Input)s, in their order; refused records to the dead letters. Limits: one batch in
//! hand. While nobody takes it, nothing is polled for [`PAUSE_AFTER`], then the partitions are paused and polling goes on, so that
//! the group sees a member that lives; what librdkafka had read ahead is read again afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers, Message, Timestamp};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc::Sender;
use tracing::{debug, info, warn};

use super::books::{Books, Role};
use super::commits::Committer;
use super::context::{Context, Word};
use super::dead_letters::DeadLetters;
use super::health::{Health, State};
use super::outbox::{Flushed, Outbox};
use super::plan::{Begin, Plan, Share};
use super::settings::{CLIENT, Kafka, SettingsError};
use super::{Arrival, Input, Partition, place};
use crate::input::{Raw, Topic, decode};

/// How long a poll waits for a record.
const POLL: Duration = Duration::from_millis(100);
/// How often the channel is tried while it is full.
const TRY: Duration = Duration::from_millis(5);
/// A channel that is full for so long pauses the reading.
const PAUSE_AFTER: Duration = Duration::from_millis(500);
/// How often commits go out, and a place is asked for again.
const TURN: Duration = Duration::from_secs(1);

/// What both readers share.
pub(super) struct Shared {
    pub(super) stop: Arc<AtomicBool>,
    pub(super) books: Arc<Books>,
    /// None: another role of this process buries.
    pub(super) dead_letters: Option<Arc<DeadLetters>>,
    pub(super) committer: Committer,
    pub(super) to: Sender<Input>,
}

/// The reader.
pub(super) struct Reader {
    role: Role,
    plan: Plan,
    consumer: BaseConsumer<Context>,
    shared: Shared,
    health: Health,
    outbox: Outbox,
    /// Partitions that were given and have no place to begin with yet.
    unplaced: Option<Vec<Partition>>,
    assigned: Vec<Partition>,
    /// Partitions whose history is not read yet, each with its end.
    ends: BTreeMap<Partition, i64>,
    paused: bool,
    full_since: Option<Instant>,
    next_turn: Instant,
}

impl Reader {
    /// Makes the consumer; it connects by itself, now or whenever a broker is there.
    pub(super) fn new(
        role: Role,
        settings: &Kafka,
        plan: Plan,
        shared: Shared,
    ) -> Result<Self, SettingsError> {
        let context = Context::new(role, Arc::clone(&shared.books));
        // Partitions that are assigned by hand need a group's name all the same; who never joins it is no member.
        let mut config = settings.consumer(&plan.group)?;
        if plan.share == Share::Whole {
            // Members are ordered by their ids, which begin with this: the oldest has the first partition, and keeps it.
            config.set("client.id", format!("{CLIENT}-{:013}", unix_ms()));
        }
        let consumer: BaseConsumer<Context> = config.create_with_context(context)?;
        if role == Role::Streams {
            let topics: Vec<_> = plan.topics.iter().map(|topic| topic.name()).collect();
            consumer.subscribe(&topics)?;
        }
        let now = Instant::now();
        Ok(Self {
            role,
            plan,
            consumer,
            shared,
            health: Health::new(now),
            outbox: Outbox::default(),
            unplaced: None,
            assigned: Vec::new(),
            ends: BTreeMap::new(),
            paused: false,
            full_since: None,
            next_turn: now,
        })
    }

    /// Reads until it is told to stop, or nobody takes what it reads.
    pub(super) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.look_around();
            match self.outbox.flush(&self.shared.to) {
                Flushed::All => self.read(),
                Flushed::Full => self.wait_for_room(),
                Flushed::Closed => break,
            }
        }
        self.commit();
        if let Some(dead_letters) = &self.shared.dead_letters {
            dead_letters.flush();
        }
        // Dropping the consumer leaves the group and answers its last rebalance.
        self.consumer.context().close();
        if self.unplaced.is_some()
            && let Err(error) = self.consumer.unassign()
        {
            debug!(%error, "while closing");
        }
    }

    /// Fills a batch with what is there; waits for the first record of it.
    fn read(&mut self) {
        self.full_since = None;
        self.set_paused(false);
        let mut wait = POLL;
        while self.outbox.has_room() && self.poll(wait) {
            wait = Duration::ZERO;
        }
        self.hear();
    }

    /// Waits for the owner without leaving the group.
    fn wait_for_room(&mut self) {
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if since.elapsed() < PAUSE_AFTER {
            std::thread::sleep(TRY);
            return;
        }
        self.set_paused(true);
        self.poll(POLL / 2);
        self.hear();
    }

    /// Takes one record if there is one; false if there was nothing to take.
    fn poll(&mut self, wait: Duration) -> bool {
        match self.consumer.poll(wait) {
            Some(Ok(message)) => {
                self.health.heard();
                if let Some(arrival) = self.shared.open(&message) {
                    self.outbox.arrival(arrival);
                }
                let place = Topic::of_name(message.topic()).map(|t| (t, message.partition()));
                let offset = message.offset();
                if let Some(place) = place
                    && self.ends.get(&place).is_some_and(|end| offset + 1 >= *end)
                {
                    self.ends.remove(&place);
                    self.outbox.caught_up(place);
                }
                true
            }
            // Its words came through the context too.
            Some(Err(error)) => {
                debug!(%error, "poll");
                true
            }
            None => false,
        }
    }

    /// Does what librdkafka's words ask for.
    fn hear(&mut self) {
        while let Some(word) = self.consumer.context().next() {
            match word {
                Word::Assign(partitions) => {
                    self.health.joined();
                    self.unplaced = Some(partitions);
                    self.find_place();
                }
                Word::Revoke => self.give_back(),
                Word::Error(code, reason) => self.health.error(code, &reason, Instant::now()),
            }
        }
    }

    /// Begins to read the partitions that were given, as soon as it is known where. Until then the group waits for our answer and
    /// gets its heartbeats.
    fn find_place(&mut self) {
        let Some(given) = self.unplaced.take() else {
            return;
        };
        let partitions = match self.place(&given) {
            Ok(partitions) => partitions,
            Err(reason) => {
                self.health.lost_place(format!("where to begin: {reason}"));
                self.unplaced = Some(given);
                return;
            }
        };
        info!(
            group = self.plan.group,
            role = self.role.word(),
            partitions = partitions.len(),
            "assigned"
        );
        self.assigned.clone_from(&partitions);
        // Pauses ended with the assignment before.
        self.paused = false;
        self.shared
            .books
            .set_assigned(self.role, partitions.clone());
        if partitions.len() < given.len() {
            let other = self.oldest_member();
            info!(group = self.plan.group, "stands by: {other} reads all");
            self.shared.books.set_standing_by(self.role, other);
        }
        if !partitions.is_empty() {
            self.outbox.assigned(partitions.clone());
        }
        for partition in partitions {
            if !self.ends.contains_key(&partition) {
                self.outbox.caught_up(partition);
            }
        }
    }

    /// Assigns what is to be read of what was given, with where to begin.
    fn place(&mut self, given: &[Partition]) -> Result<Vec<Partition>, String> {
        let words = |error: KafkaError| error.to_string();
        let partitions = self.share(given).map_err(words)?;
        let place = match &mut self.plan.begin {
            Begin::Ago(horizon) => {
                let horizon_ms = i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX);
                let since_ms = unix_ms().saturating_sub(horizon_ms);
                place::since(&self.consumer, &partitions, since_ms).map_err(words)?
            }
            Begin::Asked(owner) => {
                let extents = place::extents(&self.consumer, &partitions).map_err(words)?;
                let offsets = owner.places(&extents)?;
                place::at(&extents, &offsets).map_err(words)?
            }
        };
        self.consumer.assign(&place.begin).map_err(words)?;
        self.ends = place.ends;
        Ok(partitions)
    }

    /// What this member reads of what the group gave it.
    fn share(&self, given: &[Partition]) -> Result<Vec<Partition>, KafkaError> {
        if self.plan.share == Share::Split {
            return Ok(given.to_vec());
        }
        let mut all = Vec::new();
        for topic in self.plan.topics.iter().copied() {
            if given.contains(&(topic, 0)) {
                let metadata = self
                    .consumer
                    .fetch_metadata(Some(topic.name()), place::TIMEOUT)?;
                let known = metadata.topics().first();
                let count = known.map_or(0, |topic| topic.partitions().len());
                all.extend((0..i32::try_from(count).unwrap_or(i32::MAX)).map(|n| (topic, n)));
            }
        }
        Ok(all)
    }

    /// The member that reads everything, in words.
    fn oldest_member(&self) -> String {
        let group = Some(self.plan.group.as_str());
        let groups = self.consumer.fetch_group_list(group, place::TIMEOUT);
        let oldest = groups.as_ref().ok().and_then(|groups| {
            let members = groups.groups().first()?.members().iter();
            members.min_by_key(|member| member.id())
        });
        oldest.map_or_else(
            || "another member".to_owned(),
            |member| {
                let host = member.client_host().trim_start_matches('/');
                format!("the member at {host}")
            },
        )
    }

    /// Answers a revocation: last commits first.
    fn give_back(&mut self) {
        self.commit();
        self.set_paused(false);
        self.unplaced = None;
        self.ends.clear();
        self.health.left();
        if let Err(error) = self.consumer.unassign() {
            warn!(%error, "partitions cannot be given back");
        }
        info!(
            group = self.plan.group,
            role = self.role.word(),
            partitions = self.assigned.len(),
            "revoked"
        );
        let revoked = std::mem::take(&mut self.assigned);
        self.shared.books.set_assigned(self.role, Vec::new());
        if !revoked.is_empty() {
            self.outbox.revoked(revoked);
        }
    }

    /// What is done now and then.
    fn look_around(&mut self) {
        let now = Instant::now();
        if now >= self.next_turn {
            self.next_turn = now + TURN;
            self.find_place();
            self.commit();
        }
        if self.health.is_due(self.assigned.is_empty(), now) {
            self.ask_for_topics();
        }
        let state = self.health.state();
        if self.shared.books.set_state(self.role, state.clone()) {
            let role = self.role.word();
            match state {
                State::Degraded(reason) => warn!(role, reason, "reading: degraded"),
                State::Ok | State::Starting => info!(role, "reading: {state}"),
            }
        }
    }

    /// Asks the brokers for our topics, in words that say which one is missing.
    fn ask_for_topics(&mut self) {
        let mut news = false;
        for topic in self.plan.topics.iter().copied() {
            match self
                .consumer
                .fetch_metadata(Some(topic.name()), place::TIMEOUT)
            {
                Err(error) => return self.health.no_answer(error.to_string()),
                Ok(metadata) => {
                    let known = metadata.topics().first();
                    let error = match known.map(|topic| (topic.error(), topic.partitions().len())) {
                        Some((Some(error), _)) => Some(Code::from(error).to_string()),
                        Some((None, 0)) | None => Some("it has no partitions".to_owned()),
                        Some((None, count)) => {
                            self.read_all(topic, count);
                            None
                        }
                    };
                    news |= self.health.topic(topic, error);
                }
            }
        }
        // A group looks for topics again when all of them are listed, and by itself only now and then.
        if (news || self.assigned.is_empty())
            && self.role == Role::Streams
            && let Err(error) = self.consumer.fetch_metadata(None, place::TIMEOUT)
        {
            self.health.no_answer(error.to_string());
        }
    }

    /// Gives the reader without a group all partitions of its topic.
    fn read_all(&mut self, topic: Topic, count: usize) {
        if self.role == Role::Nodes && self.assigned.is_empty() && self.unplaced.is_none() {
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            self.health.joined();
            self.unplaced = Some((0..count).map(|number| (topic, number)).collect());
            self.find_place();
        }
    }

    /// Sends the commits that wait, of partitions that are ours.
    fn commit(&mut self) {
        if self.role != Role::Streams {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in self.shared.committer.take() {
            if !self.assigned.contains(&partition) {
                continue;
            }
            let (topic, number) = (partition.0.name(), partition.1);
            if let Err(error) = list.add_partition_offset(topic, number, Offset::Offset(offset)) {
                debug!(%error, offset, "no offset");
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            debug!(%error, "a commit was not sent");
        }
    }

    fn set_paused(&mut self, paused: bool) {
        if self.paused == paused || self.assigned.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::with_capacity(self.assigned.len());
        for (topic, partition) in &self.assigned {
            list.add_partition(topic.name(), *partition);
        }
        let done = if paused {
            self.shared.books.count(|counts| counts.pauses += 1);
            self.consumer.pause(&list)
        } else {
            self.consumer.resume(&list)
        };
        match done {
            Ok(()) => self.paused = paused,
            Err(error) => warn!(%error, paused, "reading goes on as it was"),
        }
    }
}

impl Shared {
    /// The event of a record; none if it was refused.
    fn open(&self, message: &BorrowedMessage<'_>) -> Option<Arrival> {
        let raw = raw(message)?;
        let topic = raw.topic;
        let bytes = message.key().map_or(0, <[u8]>::len) + message.payload_len();
        match decode(&raw) {
            Ok(event) => {
                self.books.record(topic, bytes, None);
                Some(Arrival {
                    event,
                    topic,
                    partition: raw.partition,
                    offset: raw.offset,
                    append_ms: raw.append_ms,
                })
            }
            Err(refused) => {
                self.books.record(topic, bytes, Some(refused.reason));
                if let Some(dead_letters) = &self.dead_letters {
                    dead_letters.bury(&raw, refused.reason, Instant::now());
                }
                None
            }
        }
    }
}

/// A message as a record; none if it is of no topic of ours.
pub(super) fn raw<'a>(message: &'a BorrowedMessage<'_>) -> Option<Raw<'a>> {
    let headers = message.headers();
    let schema = headers.and_then(|headers| {
        let found = headers.iter().find(|header| header.key == "schema");
        found.and_then(|header| header.value)
    });
    Some(Raw {
        topic: Topic::of_name(message.topic())?,
        partition: message.partition(),
        offset: message.offset(),
        append_ms: append_ms(message.timestamp()),
        key: message.key(),
        schema,
        payload: message.payload(),
    })
}

/// When a broker appended a record. Our topics have the broker's time; where one was made with the node's, a node of a fast
/// clock must not pass for one that is right: its time counts up to now.
fn append_ms(timestamp: Timestamp) -> u64 {
    let ms = match timestamp {
        Timestamp::LogAppendTime(ms) => ms,
        Timestamp::CreateTime(ms) => ms.min(unix_ms()),
        Timestamp::NotAvailable => unix_ms(),
    };
    u64::try_from(ms).unwrap_or(0)
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
