//! The Kafka sink.
//!
//! Input: the queue. Output: records, each confirmed by the brokers or counted as a dead letter; the [`Ledger`] keeps the
//! books and the state. An event stays in the table of events in flight until its delivery report, so that a producer
//! which breaks can be replaced without a loss; consumers drop what was doubled by its sequence.
//! What the spool holds beyond that is replayed beside live events, throttled ([`replay`]).
//! Limits: [`inflight`] per kind; what finds no room waits in the queue, whose oldest goes back to the spool or is dropped.

mod credentials;
mod health;
mod inflight;
mod producer;
mod replay;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use service::delivery::{Class, class};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tracing::{error, info, warn};

use self::credentials::Credentials;
use self::health::Health;
use self::inflight::{Id, InFlight};
pub use self::producer::Breaker;
use self::producer::{Life, Report};
use self::replay::Replay;
pub use self::settings::{KafkaError, KafkaSettings, Topics, client_config};
use super::ledger::{Ledger, SinkState};
use super::queue::{Origin, QueueReceiver, Queued};
use super::record::Kind;
use crate::spool::{Replayed, Spool};

/// How often holds and state are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Reports worked off between two looks at the queue.
const REPORTS_AT_ONCE: usize = 512;
/// Events taken from the queue between two looks at the reports.
const EVENTS_AT_ONCE: usize = 512;
/// Dead letters are logged at most this often; all are counted.
const DEAD_LETTER_LOG: Duration = Duration::from_secs(60);
/// Nothing is replayed while an event has been unconfirmed for so long: no broker takes any.
const REPLAY_PATIENCE: Duration = Duration::from_secs(2);
/// A producer is replaced at most this often.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// How long a producer that works may go on to confirm what it has before it is replaced.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(2);

/// What was left when the sink stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Events not taken from the queue.
    pub queued: usize,
    /// Events sent but not confirmed: they may or may not have arrived.
    pub unconfirmed: usize,
    /// Events on disk, some of them sent but not confirmed: the next life sends them.
    pub spooled: usize,
}

/// Why and when a new producer is made.
#[derive(Debug)]
struct Renewal {
    reason: String,
    /// As soon as nothing is unconfirmed, then at the latest.
    at: Instant,
}

/// The sink.
pub struct KafkaSink {
    settings: KafkaSettings,
    ledger: Arc<Ledger>,
    in_flight: InFlight,
    health: Health,
    life: Life,
    reports: UnboundedReceiver<Report>,
    report_to: UnboundedSender<Report>,
    last_dead_letter_log: Option<Instant>,
    last_renewal: Option<Instant>,
    renewal: Option<Renewal>,
    credentials: Credentials,
    spool: Option<Spool>,
    replay: Replay,
}

impl KafkaSink {
    /// Makes the producer. An error is the configuration's: a broker that is away is none.
    pub fn new(settings: KafkaSettings, ledger: Arc<Ledger>) -> Result<Self, KafkaError> {
        let config = client_config(&settings)?;
        let (report_to, reports) = unbounded_channel();
        let credentials = Credentials::of(&settings, Instant::now());
        let life = Life::start(1, &config, report_to.clone())?;
        Ok(Self {
            credentials,
            settings,
            ledger,
            in_flight: InFlight::default(),
            health: Health::default(),
            life,
            reports,
            report_to,
            last_dead_letter_log: None,
            last_renewal: None,
            renewal: None,
            spool: None,
            replay: Replay::default(),
        })
    }

    /// Takes its backlog from a spool, at most so many events a second.
    #[must_use]
    pub fn with_spool(mut self, spool: Spool, replay_events_per_s: u32) -> Self {
        self.spool = Some(spool);
        self.replay = Replay::new(replay_events_per_s);
        self
    }

    /// Something that breaks this sink's first producer, for tests of what happens then.
    pub fn breaker(&self) -> Breaker {
        self.life.breaker()
    }

    /// Sends what the queue gives until its sender is gone, then empties itself within the flush timeout.
    pub async fn run(mut self, mut queue: QueueReceiver) -> Drained {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reports = Vec::with_capacity(REPORTS_AT_ONCE);
        let mut deadline: Option<Instant> = None;
        loop {
            let open = self.open();
            // The queue is asked no more once it ended: it would answer at once, for ever.
            let ask = open.contains(&true) && deadline.is_none();
            tokio::select! {
                biased;
                () = self.life.came() => self.life.serve(),
                count = self.reports.recv_many(&mut reports, REPORTS_AT_ONCE) => {
                    debug_assert!(count > 0, "this end holds a sender too");
                    for report in reports.drain(..) {
                        self.on_report(report);
                    }
                }
                queued = queue.recv(open), if ask => match queued {
                    Some(queued) => {
                        self.on_event(queued);
                        self.take_waiting(&mut queue, EVENTS_AT_ONCE);
                    }
                    None => deadline = Some(Instant::now() + self.settings.flush_timeout),
                },
                records = self.replay.arrival() => self.on_backlog(records),
                _ = tick.tick() => self.on_tick(),
            }
            if deadline.is_none() {
                self.ask_backlog();
            }
            if queue.is_closed() {
                let deadline =
                    *deadline.get_or_insert_with(|| Instant::now() + self.settings.flush_timeout);
                self.take_waiting(&mut queue, usize::MAX);
                let empty = queue.is_empty() && self.in_flight.is_empty();
                if empty || Instant::now() >= deadline {
                    return self.finish(&queue);
                }
            }
        }
    }

    /// Sends up to so many events that wait in the queue.
    fn take_waiting(&mut self, queue: &mut QueueReceiver, most: usize) {
        for _ in 0..most {
            match queue.try_recv(self.open()) {
                Some(queued) => self.on_event(queued),
                None => return,
            }
        }
    }

    fn open(&self) -> [bool; 3] {
        // Nothing new overtakes the events that wait for the next producer.
        Kind::ALL.map(|kind| {
            self.renewal.is_none() && self.health.is_open(kind) && self.in_flight.has_room(kind)
        })
    }

    fn finish(self, queue: &QueueReceiver) -> Drained {
        let safe = (queue.spooled_len(), self.in_flight.spooled_len());
        let backlog = self.spool.as_ref().map_or(0, Spool::pending) as usize;
        let left = Drained {
            queued: queue.len() - safe.0,
            unconfirmed: self.in_flight.len() - safe.1,
            spooled: backlog + safe.0 + safe.1,
        };
        if left == Drained::default() {
            info!("all events are confirmed");
        } else {
            warn!(queued = left.queued, unconfirmed = left.unconfirmed, spooled = left.spooled, state = %self.ledger.state(), "events are left behind");
        }
        self.life.end();
        left
    }

    /// Asks for events of the backlog, if live ones leave room and brokers take what they get.
    fn ask_backlog(&mut self) {
        // Mostly there is no backlog, and the rest looks at every event in flight.
        let Some(spool) = self.spool.as_ref().filter(|spool| spool.pending() > 0) else {
            return;
        };
        let held = self.renewal.is_some()
            || !Kind::ALL.iter().all(|kind| self.health.is_open(*kind))
            || self
                .in_flight
                .oldest()
                .is_some_and(|since| since.elapsed() >= REPLAY_PATIENCE);
        if !held {
            let room = self.in_flight.room_for_replays();
            self.replay.ask(spool, room, Instant::now());
        }
    }

    fn on_backlog(&mut self, records: Vec<Replayed>) {
        for Replayed {
            id,
            record,
            earlier,
        } in records
        {
            let origin = Origin {
                spooled: Some(id),
                earlier,
                replayed: true,
            };
            self.on_event(Queued {
                record: record.replayed(),
                since: Instant::now(),
                origin,
            });
        }
    }

    /// Tells the spool what it may forget.
    fn let_go(&self, origin: Origin) {
        if let Some(spool) = &self.spool {
            spool.done(origin.spooled);
        }
    }

    fn on_event(&mut self, queued: Queued) {
        let id = self.in_flight.add(queued);
        self.send(id);
    }

    fn send(&mut self, id: Id) {
        let Some(entry) = self.in_flight.get_mut(id) else {
            return;
        };
        let topic = self.settings.topics.of(entry.queued.record.kind);
        entry.sent_in = Some(self.life.number());
        if let Err(code) = self.life.send(topic, id, &entry.queued.record) {
            self.on_failure(self.life.number(), id, code);
        }
    }

    fn on_report(&mut self, report: Report) {
        match report {
            // A confirmation counts whichever life it comes from.
            Report::Delivery {
                id, result: Ok(()), ..
            } => {
                if let Some(queued) = self.in_flight.remove(id) {
                    self.ledger
                        .delivered(&queued.record, queued.origin, queued.since.elapsed());
                    self.let_go(queued.origin);
                    self.health.delivered(queued.record.kind);
                }
            }
            Report::Delivery {
                life,
                id,
                result: Err(code),
            } => self.on_failure(life, id, code),
            Report::Trouble { life, .. } if life != self.life.number() => {}
            Report::Trouble { code, reason, .. } => {
                self.health.trouble(code, reason);
                if code == Code::Fatal {
                    self.renew();
                }
            }
            Report::Probed { life, kind } if life == self.life.number() => self.send_waiting(kind),
            Report::Probed { .. } => {}
        }
    }

    fn on_failure(&mut self, life: u64, id: Id, code: Code) {
        if life != self.life.number() {
            return;
        }
        let class = if self.life.fatal().is_some() {
            Class::Fatal
        } else {
            class(code)
        };
        if class == Class::DeadLetter {
            self.bury(id, code);
            return;
        }
        let Some(kind) = self.in_flight.send_again(id, life) else {
            return;
        };
        match class {
            Class::Fatal => self.renew(),
            Class::DeadLetter | Class::Retry | Class::Hold => {
                let topic = self.settings.topics.of(kind);
                self.health
                    .hold(kind, format!("topic {topic}: {code}"), Instant::now());
            }
        }
    }

    fn bury(&mut self, id: Id, code: Code) {
        let Some(queued) = self.in_flight.remove(id) else {
            return;
        };
        self.ledger.dead_letter(&queued.record, queued.origin);
        self.let_go(queued.origin);
        let now = Instant::now();
        if self
            .last_dead_letter_log
            .is_none_or(|last| now.duration_since(last) >= DEAD_LETTER_LOG)
        {
            self.last_dead_letter_log = Some(now);
            let total = self.ledger.totals().dead_letter;
            error!(key = queued.record.key, bytes = queued.record.payload.len(), %code, total, "no broker takes this event: it is given up and counted");
        }
        if let Some(spool) = &self.spool {
            spool.dead_letter(queued.record, code.to_string());
        }
    }

    /// A new producer for a broken one; all unconfirmed events go again.
    fn renew(&mut self) {
        let reason = self.life.fatal().unwrap_or_else(|| "not said".to_owned());
        self.renewal = Some(Renewal {
            reason: format!("the producer broke: {reason}"),
            at: Instant::now(),
        });
        self.try_renew();
    }

    /// Makes the new producer, if it is time to.
    fn try_renew(&mut self) {
        let now = Instant::now();
        let Some(renewal) = &self.renewal else { return };
        let soon = self.last_renewal.map(|last| last + RENEWAL_PAUSE);
        let waits = now < renewal.at && !self.in_flight.is_empty();
        if waits || soon.is_some_and(|soon| now < soon) {
            return;
        }
        self.last_renewal = Some(now);
        if let Err(error) = self.replace() {
            error!(%error, "no new producer can be made");
            if self.life.fatal().is_none() {
                // The old one works as well as before.
                self.renewal = None;
            }
            return;
        }
        let reason = self.renewal.take().map(|renewal| renewal.reason);
        self.ledger.renewed();
        warn!(
            reason,
            unconfirmed = self.in_flight.len(),
            "a new producer sends all unconfirmed events again"
        );
        self.in_flight.send_all_again();
        for kind in Kind::ALL {
            self.send_waiting(kind);
        }
    }

    fn replace(&mut self) -> Result<(), KafkaError> {
        let config = client_config(&self.settings)?;
        let life = Life::start(self.life.number() + 1, &config, self.report_to.clone())?;
        std::mem::replace(&mut self.life, life).end();
        Ok(())
    }

    /// Sends the events of a kind that wait, and lets new ones through once they are all on their way.
    fn send_waiting(&mut self, kind: Kind) {
        for id in self.in_flight.waiting(kind) {
            let before = self.life.number();
            self.send(id);
            let failed = self
                .in_flight
                .get_mut(id)
                .is_some_and(|entry| entry.sent_in.is_none());
            if failed || self.life.number() != before {
                return;
            }
        }
        if self.in_flight.len_of(kind) == 0 {
            self.health.release(kind);
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        if self.life.fatal().is_some() {
            self.renew();
        } else if self.credentials.changed(now) {
            self.renewal.get_or_insert(Renewal {
                reason: "certificates, keys or the password changed".to_owned(),
                at: now + RENEWAL_PATIENCE,
            });
        }
        self.try_renew();
        for kind in self.health.due(Instant::now()) {
            self.life.probe(self.settings.topics.of(kind), kind);
        }
        let state = self
            .health
            .state(self.in_flight.oldest().map(|since| since.elapsed()));
        if self.ledger.set_state(state.clone()) {
            match state {
                SinkState::Degraded(reason) => warn!(
                    reason,
                    waiting = self.ledger.totals().waiting,
                    "sink: degraded"
                ),
                SinkState::Ok | SinkState::Starting => {
                    info!(waiting = self.ledger.totals().waiting, "sink: {state}")
                }
            }
        }
    }
}
