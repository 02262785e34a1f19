//! The life of the daemon: roles, the HTTP interface, signals, the service manager. What a role does is in its own file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use service::config::ConfigErrors;
use service::exit;
use service::notify::Notifier;
use service::topics;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::Site;
use super::alert::{AlertRole, Parts};
use super::outputs::Outputs;
use super::store::{self, StoreRole, Storing};
use crate::alert::{Engine, Rule};
use crate::api;
use crate::config::{Config, Role};
use crate::consume::{self, Consume, SettingsError, Tail};
use crate::publish::Publisher;
use crate::publish::records::Records;
use crate::store::Target;

/// The service manager hears of us so often.
const TICK: Duration = Duration::from_secs(1);
/// A role that does nothing for so long hangs.
const HANGS: Duration = Duration::from_secs(30);
/// Brokers that did not answer are asked again so soon.
const ASK_AGAIN: Duration = Duration::from_secs(5);

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
    let settings =
        consume::Kafka::of(&config).map_err(|error| Failure::from(ConfigErrors::from(error)))?;
    let options = config.live_options();
    let roles = config.running();
    let (merges, stores) = (roles.contains(&Role::Alert), roles.contains(&Role::Store));
    let target = Target::of(&config).map_err(|error| Failure::from(ConfigErrors::from(error)))?;
    let storing = stores.then(Arc::<Storing>::default);
    let site = Site::new(config.site.as_str(), options)
        .with_roles(merges, storing.clone())
        .with_store(target.as_ref().and_then(Target::shared));
    let site = Arc::new(site);
    let access = api::Access::of(&config.http)
        .map_err(|error| Failure::from(ConfigErrors::from(error.placed(&config))))?;
    let listener = listen(&config).await?;
    // Everything that can fail has been made before anything runs.
    let alerting = merges
        .then(|| Alerts::start(&config, &settings, &site))
        .transpose()?;
    if target.is_some() {
        tokio::spawn(count_partitions(settings.clone(), Arc::clone(&site)));
    }
    let storing = storing.zip(target).map(|(storing, target)| {
        StoreRole::start(store_settings(target, &config, &settings), storing)
    });
    let (stop_api, api_stopped) = oneshot::channel::<()>();
    let server = api::Server::new(Arc::clone(&site)).with_access(access);
    let serving = tokio::spawn(server.serve(listener, async {
        // Ends also when the sender is dropped.
        let _ = api_stopped.await;
    }));
    let groups: Vec<_> = roles.iter().map(|role| config.group(*role)).collect();
    tracing::info!(
        site = config.site,
        groups = groups.join(", "),
        rules = config.alerts.len(),
        "consuming from {}, answering on {}",
        settings.brokers.join(", "),
        config.http.listen
    );
    let mut life = Life {
        site: Arc::clone(&site),
        config,
        notifier: Notifier::from_env(),
        alerting,
        storing,
    };
    life.run().await?;

    life.notifier.stopping("leaving the groups");
    if let Some(storing) = life.storing {
        storing.stop().await;
    }
    if let Some(alerting) = life.alerting {
        alerting.stop().await?;
    }
    site.boards().close();
    drop(stop_api);
    serving.await.map_err(bug)?.map_err(bug)?;
    tracing::info!("stopped: {}", site.summary());
    Ok(())
}

/// The alert role with all that it needs, running.
struct Alerts {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    new_rules: mpsc::Sender<Vec<Arc<Rule>>>,
    outputs: Outputs,
    tail: Tail,
    following: JoinHandle<()>,
}

impl Alerts {
    fn start(
        config: &Config,
        settings: &consume::Kafka,
        site: &Arc<Site>,
    ) -> Result<Self, Failure> {
        let (tail, said) = Tail::start(settings, topics::ALERT)?;
        let outputs = Outputs::start(config, site)?;
        let publisher = Publisher::new(Records::start(settings)?, outputs.list());
        let horizon = Duration::from_millis(config.live_options().horizon_ms);
        let (consume, inputs) = Consume::start(settings, horizon)?;
        let engine = Engine::new(
            config.site.as_str(),
            config.rules(),
            config.engine_options(),
        );
        let parts = Parts {
            site: Arc::clone(site),
            consume,
            inputs,
            engine,
            publisher,
        };
        let role = AlertRole::new(parts, settings)?;
        tail.read_all();
        let following = tokio::spawn({
            let site = Arc::clone(site);
            async move { site.boards().follow(said).await }
        });
        let (new_rules, rules_from) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        Ok(Self {
            task: tokio::spawn(role.run(rules_from, stopped)),
            stop,
            new_rules,
            outputs,
            tail,
            following,
        })
    }

    async fn stop(self) -> Result<(), Failure> {
        drop(self.stop);
        self.task.await.map_err(bug)?;
        self.outputs.stop().await;
        self.following.abort();
        drop(self.tail);
        Ok(())
    }
}

/// Why a role ended, which it does not do by itself.
async fn ended(alerting: &mut Option<Alerts>, storing: &mut Option<StoreRole>) -> String {
    let alert_ended = async {
        match alerting {
            Some(alerting) => {
                let ended = (&mut alerting.task).await;
                ended.err().map_or("it ended".to_owned(), |e| e.to_string())
            }
            None => std::future::pending().await,
        }
    };
    let store_ended = async {
        match storing {
            Some(storing) => storing.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        reason = alert_ended => format!("the alert role: {reason}"),
        reason = store_ended => format!("the store role: {reason}"),
    }
}

/// Asks until it is known how many partitions windows have: which of them a stream is in says how far the store is with it.
async fn count_partitions(settings: consume::Kafka, site: Arc<Site>) {
    loop {
        let settings = settings.clone();
        let count = move || consume::partitions_of(&settings, topics::WINDOW);
        if let Ok(Ok(count)) = tokio::task::spawn_blocking(count).await {
            return site.note_window_partitions(count);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn store_settings(target: Target, config: &Config, kafka: &consume::Kafka) -> store::Settings {
    store::Settings {
        target,
        kafka: kafka.clone(),
        site: config.site.clone(),
        lateness_ms: config.merge.lateness_ms.into(),
        node_forget_after_ms: u64::from(config.merge.node_forget_after_s) * 1_000,
        buries: !config.running().contains(&Role::Alert),
    }
}

pub(super) fn bug(error: impl ToString) -> Failure {
    Failure::new(exit::BUG, error)
}

async fn listen(config: &Config) -> Result<TcpListener, Failure> {
    let address = config.http.listen;
    TcpListener::bind(address).await.map_err(|error| {
        let place = config.place_or_file(config.places.http_listen.as_ref());
        let message = format!("{place}: http.listen: {address}: {error}");
        Failure::new(exit::CONFIG, message)
    })
}

/// What happens between start and stop.
struct Life {
    site: Arc<Site>,
    config: Config,
    notifier: Notifier,
    alerting: Option<Alerts>,
    storing: Option<StoreRole>,
}

impl Life {
    /// Runs until a signal; a role that ends by itself is a bug.
    async fn run(&mut self) -> Result<(), Failure> {
        let mut terminate = signal(SignalKind::terminate()).map_err(bug)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(bug)?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(bug)?;
        let begin = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.notifier.ready("consuming");
        loop {
            tokio::select! {
                reason = ended(&mut self.alerting, &mut self.storing) => {
                    return Err(Failure::new(exit::BUG, reason));
                }
                _ = tick.tick() => {
                    self.notifier.status(&self.status());
                    if self.site.idle() < HANGS {
                        self.notifier.window_closed(begin.elapsed());
                    }
                }
                Some(()) = hang_up.recv() => self.reload().await,
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
        }
    }

    fn status(&self) -> String {
        let trouble = self.site.ill();
        let trouble = trouble.or_else(|| self.site.alerting().trouble());
        trouble.unwrap_or_else(|| self.site.summary())
    }

    /// Reads the file again. Rules are taken from it, and nothing else; a wrong file changes nothing.
    async fn reload(&mut self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        self.notifier.reloading(now);
        match Config::load(&self.config.file) {
            Err(errors) => {
                tracing::error!("reload refused, the old rules stay:\n{errors}");
            }
            Ok(config) => {
                for warning in &config.warnings {
                    tracing::warn!("{warning}");
                }
                if !self.config.same_but_rules(&config) {
                    tracing::warn!(
                        "reload: only rules are taken from the file; the rest takes effect with a restart"
                    );
                }
                let rules = config.rules();
                tracing::info!(rules = rules.len(), "rules reloaded");
                self.config.alerts = config.alerts;
                // The role is gone only when we are about to say so.
                if let Some(alerting) = &self.alerting {
                    let _ = alerting.new_rules.send(rules).await;
                }
            }
        }
        self.notifier.ready(&self.status());
    }
}
