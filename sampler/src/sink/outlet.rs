//! The window stage's end of the sink: what it gives away is counted, spooled if there is a spool, and queued.
//!
//! Input: the events of a window edge, or pulses. Output: the same in the queue, each with its place on disk.
//! The caller never waits: a task of our own waits for the disk, at most [`spool::PATIENCE`]; a disk that takes longer is passed by
//! until it answers again. Limits: [`EDGES`] edges on their way to the disk; more go straight to the queue.

use std::sync::Arc;

use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};
use tokio::time::{Instant, timeout};

use super::ledger::Ledger;
use super::queue::{Origin, QueueSender, Queued};
use super::record::{Kind, Record};
use crate::spool::{self, Batch, Reference, Spool, SpoolId, Ticket};

/// Edges on their way to the disk.
const EDGES: usize = 8;

/// All events of a window edge.
struct Edge {
    records: Vec<Record>,
    since: Instant,
    /// When the window was closed, and the window stage's state then.
    state: Option<(u64, Vec<u8>)>,
}

/// Where the window stage gives its events away. Dropping it ends the sink once all is through.
#[derive(Debug)]
pub struct Outlet {
    queue: Arc<QueueSender>,
    ledger: Arc<Ledger>,
    edges: Option<Sender<Edge>>,
}

impl Outlet {
    /// An outlet straight into the queue.
    pub fn direct(queue: QueueSender, ledger: Arc<Ledger>) -> Self {
        Self {
            queue: Arc::new(queue),
            ledger,
            edges: None,
        }
    }

    /// An outlet by way of the spool; starts a task.
    pub fn spooled(queue: QueueSender, ledger: Arc<Ledger>, spool: Spool) -> Self {
        let (edges, receiver) = channel(EDGES);
        let queue = Arc::new(queue);
        let spooler = Spooler {
            spool,
            queue: Arc::clone(&queue),
            ledger: Arc::clone(&ledger),
            passed_by: None,
        };
        tokio::spawn(spooler.run(receiver));
        Self {
            queue,
            ledger,
            edges: Some(edges),
        }
    }

    /// Whether the state of the window stage is wanted with an edge.
    pub fn wants_state(&self) -> bool {
        self.edges.is_some()
    }

    /// Gives away pulses, which are not spooled.
    pub fn pulses(&self, records: impl IntoIterator<Item = Record>) {
        self.queue.push_all(records);
    }

    /// Gives away all events of an edge that was closed at `counted_ms`, the heartbeat last, and the window stage's state at its end.
    pub fn edge(&self, records: Vec<Record>, counted_ms: u64, state: Option<Vec<u8>>) {
        records
            .iter()
            .for_each(|record| self.ledger.produced(record));
        let edge = Edge {
            records,
            since: Instant::now(),
            state: state.map(|state| (counted_ms, state)),
        };
        let Some(edges) = &self.edges else {
            return pass_by(&self.queue, edge);
        };
        if let Err(TrySendError::Full(edge) | TrySendError::Closed(edge)) = edges.try_send(edge) {
            self.ledger.unspooled(spoolable(&edge.records));
            pass_by(&self.queue, edge);
        }
    }
}

fn spoolable(records: &[Record]) -> u64 {
    let some = records.iter().filter(|record| record.kind != Kind::Pulse);
    some.count() as u64
}

/// Queues events that are in memory only.
fn pass_by(queue: &QueueSender, edge: Edge) {
    let since = edge.since;
    queue.enqueue(edge.records.into_iter().map(|record| Queued {
        record,
        since,
        origin: Origin::default(),
    }));
}

struct Spooler {
    spool: Spool,
    queue: Arc<QueueSender>,
    ledger: Arc<Ledger>,
    /// A batch that the disk did not take in time and has not done with yet.
    passed_by: Option<Arc<Ticket>>,
}

impl Spooler {
    async fn run(mut self, mut edges: Receiver<Edge>) {
        while let Some(mut edge) = edges.recv().await {
            let mut batch = Batch::with_room_for(&edge.records);
            let on_disk: Vec<bool> = edge
                .records
                .iter()
                .map(|record| batch.push(record))
                .collect();
            let first = self.write(batch, edge.state.take()).await;
            self.queue_edge(edge, &on_disk, first);
        }
    }

    /// Place of the batch's first record; none: it is not on the disk.
    async fn write(&mut self, batch: Batch, state: Option<(u64, Vec<u8>)>) -> Option<SpoolId> {
        if self
            .passed_by
            .take_if(|ticket| ticket.is_settled())
            .is_some()
        {
            self.spool.set_stuck(false);
        }
        if self.passed_by.is_some() || (batch.is_empty() && state.is_none()) {
            return None;
        }
        let at_risk = self.ledger.totals().at_risk;
        let at_risk = at_risk.saturating_sub(batch.len() as u64);
        let reference: Option<Reference> =
            state.map(|(counted_ms, state)| self.spool.reference(counted_ms, at_risk, state));
        let (ticket, mut answer) = self.spool.append(batch, reference);
        let written = match timeout(spool::PATIENCE, &mut answer).await {
            Ok(written) => written,
            Err(_) if ticket.abandon() => {
                self.passed_by = Some(ticket);
                self.spool.set_stuck(true);
                return None;
            }
            // It came at the last moment.
            Err(_) => answer.await,
        };
        // An error of the disk is in the spool's status; no answer: the spool has stopped.
        written.ok()?.ok()
    }

    fn queue_edge(&self, edge: Edge, on_disk: &[bool], first: Option<SpoolId>) {
        let written = match first {
            Some(_) => on_disk.iter().filter(|on_disk| **on_disk).count() as u64,
            None => 0,
        };
        self.ledger.written(written);
        self.ledger.unspooled(spoolable(&edge.records) - written);
        let mut next = first;
        let records = edge.records.into_iter().zip(on_disk);
        self.queue.enqueue(records.map(|(record, on_disk)| {
            let spooled = next.filter(|_| *on_disk);
            if let (Some(id), Some(next)) = (spooled, &mut next) {
                next.index = id.index + 1;
            }
            Queued {
                record,
                since: edge.since,
                origin: Origin {
                    spooled,
                    ..Origin::default()
                },
            }
        }));
    }
}
