//! The life of the daemon: readers, the loop that takes their events in, the HTTP interface, the service manager.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sampler_event::Event;
use service::config::ConfigErrors;
use service::exit;
use service::notify::Notifier;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::Site;
use crate::api;
use crate::config::Config;
use crate::consume::{self, Arrival, Consume, Input, Partition, SettingsError};
use crate::input::{Key, Sequences, Taken, Topic, Totals};
use crate::merge::LiveOptions;

/// Status and metrics of the readers are looked at so often.
const TICK: Duration = Duration::from_secs(1);

/// Why the daemon ended: an exit status and its reason.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// One of [`exit`].
    pub code: u8,
    /// In words.
    pub message: String,
}

impl Failure {
    fn new(code: u8, message: impl ToString) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(exit::CONFIG, errors)
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::new(exit::CONFIG, error)
    }
}

/// What was seen of each partition that this member reads.
#[derive(Default)]
struct Partitions(HashMap<Partition, Sequences>);

impl Partitions {
    /// Events that were not there before, with the broker's time.
    fn sift(&mut self, batch: Vec<Arrival>, now_ms: u64) -> Vec<(Event, i32, u64)> {
        let new = |arrival: &Arrival| {
            let partition = (arrival.topic, arrival.partition);
            let sequences = self.0.entry(partition).or_default();
            let key = Key::from(&arrival.event);
            sequences.take(key, sequence_of(&arrival.event), now_ms) == Taken::New
        };
        let new = batch.into_iter().filter(new);
        new.map(|arrival| (arrival.event, arrival.partition, arrival.append_ms))
            .collect()
    }

    fn totals(&self) -> Totals {
        let totals = self.0.values().map(Sequences::totals);
        totals.fold(Totals::default(), |sum, part| Totals {
            keys: sum.keys + part.keys,
            new: sum.new + part.new,
            duplicate: sum.duplicate + part.duplicate,
            given_up: sum.given_up + part.given_up,
            untracked: sum.untracked + part.untracked,
        })
    }

    fn missing(&self) -> u64 {
        self.0.values().map(Sequences::missing_now).sum()
    }
}

fn sequence_of(event: &Event) -> u64 {
    match event {
        Event::Window(window) => window.sequence,
        Event::Pulse(pulse) => pulse.sequence,
        Event::Node(heartbeat) => heartbeat.sequence,
    }
}

/// Runs until a signal.
///
/// # Errors
/// A [`Failure`] with the exit status that fits.
pub async fn run(config: Config) -> Result<(), Failure> {
    config
        .ready_to_run()
        .map_err(|error| Failure::from(ConfigErrors::from(error)))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(missing) = config.not_yet() {
        tracing::warn!("{missing}");
    }
    let settings =
        consume::Kafka::of(&config).map_err(|error| Failure::from(ConfigErrors::from(error)))?;
    let options = LiveOptions {
        lateness_ms: config.merge.lateness_ms.into(),
        node_forget_after_ms: u64::from(config.merge.node_forget_after_s) * 1_000,
        ..LiveOptions::default()
    };
    let access = api::Access::of(&config.http)
        .map_err(|error| Failure::from(ConfigErrors::from(error.placed(&config))))?;
    let site = Arc::new(Site::new(config.site.as_str(), options));
    let listener = TcpListener::bind(config.http.listen)
        .await
        .map_err(|error| {
            let place = config.place_or_file(config.places.http_listen.as_ref());
            let address = config.http.listen;
            Failure::new(
                exit::CONFIG,
                format!("{place}: http.listen: {address}: {error}"),
            )
        })?;
    let (consume, mut inputs) =
        Consume::start(&settings, Duration::from_millis(options.horizon_ms))?;
    let (stop_api, stopped) = oneshot::channel::<()>();
    let server = api::Server::new(Arc::clone(&site)).with_access(access);
    let serving = tokio::spawn(server.serve(listener, async {
        // Ends also when the sender is dropped.
        let _ = stopped.await;
    }));

    let bug = |error: std::io::Error| Failure::new(exit::BUG, error);
    let mut terminate = signal(SignalKind::terminate()).map_err(bug)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(bug)?;
    let mut notifier = Notifier::from_env();
    let begin = Instant::now();
    let committer = consume.committer();
    let mut partitions = Partitions::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tracing::info!(
        site = config.site,
        group = settings.alert_group(),
        "consuming from {}, answering on {}",
        settings.brokers.join(", "),
        config.http.listen
    );
    notifier.ready("consuming");
    loop {
        tokio::select! {
            Some(input) = inputs.recv() => match input {
                Input::Assigned(assigned) => {
                    // Its history comes again, a horizon long: what was known of it would count twice.
                    site.forget(&window_partitions(&assigned));
                    for partition in &assigned {
                        partitions.0.insert(*partition, Sequences::default());
                    }
                    tracing::info!("reads {}", in_words(&assigned));
                }
                Input::Revoked(revoked) => {
                    site.forget(&window_partitions(&revoked));
                    partitions.0.retain(|partition, _| !revoked.contains(partition));
                    tracing::info!("reads no more: {}", in_words(&revoked));
                }
                Input::Batch(batch) => {
                    let ends: HashMap<Partition, i64> = batch
                        .iter()
                        .map(|arrival| ((arrival.topic, arrival.partition), arrival.offset + 1))
                        .collect();
                    let now_ms = begin.elapsed().as_millis() as u64;
                    site.take(partitions.sift(batch, now_ms));
                    // Nothing is read from there again, but lag is measured against it.
                    for ((topic, partition), offset) in ends {
                        committer.commit(topic, partition, offset);
                    }
                }
            },
            _ = tick.tick() => {
                site.note(consume.status(), partitions.totals(), partitions.missing());
                let status = site.trouble().unwrap_or_else(|| site.summary());
                notifier.status(&status);
                notifier.window_closed(begin.elapsed());
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    notifier.stopping("leaving the group");
    drop(stop_api);
    drop(inputs);
    let left = tokio::task::spawn_blocking(move || consume.stop()).await;
    left.map_err(|error| Failure::new(exit::BUG, error))?;
    let served = serving
        .await
        .map_err(|error| Failure::new(exit::BUG, error))?;
    served.map_err(bug)?;
    tracing::info!("stopped: {}", site.summary());
    Ok(())
}

fn window_partitions(partitions: &[Partition]) -> Vec<i32> {
    let windows = partitions
        .iter()
        .filter(|(topic, _)| *topic == Topic::Window);
    windows.map(|(_, partition)| *partition).collect()
}

/// "window 0, 1, 2; pulse 0".
fn in_words(partitions: &[Partition]) -> String {
    let of = |topic: Topic| {
        let mut numbers: Vec<_> = partitions.iter().filter(|(t, _)| *t == topic).collect();
        numbers.sort();
        let numbers: Vec<_> = numbers.iter().map(|(_, n)| n.to_string()).collect();
        (!numbers.is_empty()).then(|| format!("{} {}", topic.name(), numbers.join(", ")))
    };
    let parts: Vec<_> = Topic::ALL.into_iter().filter_map(of).collect();
    parts.join("; ")
}
