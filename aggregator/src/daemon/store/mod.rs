//! The role that stores: events of its consumer group become rows.
//!
//! ```text
//! consume ─► Batch ─► rollup::Partition (one each) ─► rows, checkpoints ─► Store ─► committed offset
//! ```
//!
//! Rows are written every `FLUSH`, or as soon as there are `MOST_ROWS`; checkpoints go with them every `CHECKPOINT`. An offset is
//! committed when its checkpoint is in the store: the lowest one that an open row still needs. While the store does not take
//! them, nothing else is taken in: the channel fills, the reader pauses, and the member stays in its group. Whoever goes on after a
//! crash writes the same rows again, over the old ones.
//!
//! Limits: `MOST_ROWS` and the rows of one batch wait; a write is given `WRITE` and then tried again.

mod figures;
mod history;
mod places;
mod storing;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::history::History;
use self::places::{Ask, Found};
use self::work::Work;
use crate::consume::{Consume, Input, Kafka, Plan, SettingsError, Share};
use crate::rollup::Options;
use crate::store::{Store, StoreError, Target};

pub use self::storing::{Condition, Storing};

/// Rows are written so often.
const FLUSH: Duration = Duration::from_secs(1);
/// Rows that are written at once.
const MOST_ROWS: usize = 5_000;
/// Checkpoints are written so often: what a crash has read again.
const CHECKPOINT: Duration = Duration::from_secs(5);
/// How long the store may take for a write.
const WRITE: Duration = Duration::from_secs(30);
/// Pause before a store that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What it is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to.
    pub target: Target,
    /// From where.
    pub kafka: Kafka,
    /// Name of the site.
    pub site: String,
    /// When a window closes.
    pub lateness_ms: u64,
    /// A node that was silent for so long is forgotten.
    pub node_forget_after_ms: u64,
    /// Whether it buries what is no event: no other role here does.
    pub buries: bool,
}

/// The role, running.
#[derive(Debug)]
pub struct StoreRole {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), SettingsError>>,
}

impl StoreRole {
    /// Starts it; a store that cannot be opened is waited for.
    #[must_use]
    pub fn start(settings: Settings, storing: Arc<Storing>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(settings, storing, stopped));
        Self { stop, task }
    }

    /// Ends when the role does, which before [`Self::stop`] it does not do but for a bug.
    pub async fn ended(&mut self) -> String {
        match (&mut self.task).await {
            Ok(Ok(())) => "it ended".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Stops: what waits is written if the store takes it, and the group is left.
    pub async fn stop(self) {
        // Nobody hears it if the role has ended.
        let _ = self.stop.send(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the store role broke");
        }
    }
}

async fn run(
    settings: Settings,
    storing: Arc<Storing>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), SettingsError> {
    let opened = tokio::select! {
        opened = open(&settings.target, &storing) => opened,
        _ = stopped.changed() => return Ok(()),
    };
    tracing::info!("store: {}", opened.name());
    let share = match settings.target {
        // Its files belong to one process.
        Target::Embedded(_) => Share::Whole,
        Target::Cassandra(_) => Share::Split,
    };
    let found = Found::default();
    let ask = Ask {
        store: Arc::clone(&opened),
        found: found.clone(),
        runtime: Handle::current(),
    };
    let plan = Plan::store(&settings.kafka, share, Box::new(ask), settings.buries);
    let (consume, mut inputs) = Consume::start_as(&settings.kafka, plan)?;
    storing.opened(Arc::clone(&opened));
    let history = History::start(
        &settings.kafka,
        &settings.site,
        Arc::clone(&opened),
        Arc::clone(&storing),
    )?;
    let options = Options {
        lateness_ms: settings.lateness_ms,
    };
    let mut work = Work::new(opened, storing, found, consume.committer(), options);
    let mut tick = tokio::time::interval(FLUSH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let going = tokio::select! {
            Some(input) = inputs.recv() => step(&mut work, input, &mut stopped).await,
            _ = tick.tick() => {
                work.look_around(consume.status(), settings.node_forget_after_ms).await;
                work.flush(&mut stopped).await
            }
            _ = stopped.changed() => false,
        };
        if !going {
            break;
        }
    }
    drop(history);
    work.last().await;
    drop(inputs);
    if let Err(error) = tokio::task::spawn_blocking(move || consume.stop()).await {
        tracing::error!(%error, "the store's readers broke");
    }
    Ok(())
}

/// Takes in what comes; false: it is time to stop.
async fn step(work: &mut Work, input: Input, stopped: &mut watch::Receiver<bool>) -> bool {
    match input {
        Input::Assigned(partitions) => work.assigned(&partitions, stopped).await,
        Input::Revoked(partitions) => {
            work.revoked(&partitions);
            true
        }
        // Old or new, everything is stored.
        Input::CaughtUp(_) => true,
        Input::Batch(batch) => {
            work.take(batch);
            work.waiting() < MOST_ROWS || work.flush(stopped).await
        }
    }
}

/// Opens the store, as soon as that can be done.
async fn open(target: &Target, storing: &Storing) -> Arc<dyn Store> {
    loop {
        match target.open().await {
            Ok(store) => return store,
            Err(StoreError::Held(who)) => storing.turn(Condition::StandsBy(who)),
            Err(error) => storing.turn(Condition::Paused(error.to_string())),
        }
        tokio::time::sleep(RETRY).await;
    }
}
