//! All wiring. Built from sink to source; every channel is bounded.

use std::{
    io::{self, IsTerminal},
    sync::Arc,
    time::Duration,
};

use sampler_event::Event;
use service::{exit, notify::Notifier};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

use super::{
    node::{Edge, Node, degraded},
    off::{LOOK, Look, Why},
    prepare::{Failure, Mode, Prepared, kafka_settings},
    time,
};
use crate::{
    config::{Config, SeriesOf, diff},
    control::server::{self, Asked, Socket},
    laws,
    metrics::{self, Registry, StreamSeries},
    sink::{
        Capacity, JsonLines, KafkaSink, Ledger, Outlet, QueueReceiver, Record, Table, spooled_queue,
    },
    spool::Spool,
};

/// How the sink ended.
type SinkEnd = Result<String, String>;

/// Starts the sink that the configuration and the terminal ask for.
fn start_sink(
    config: &Config,
    mode: &Mode,
    ledger: &Arc<Ledger>,
    events: QueueReceiver,
    spool: Option<&Spool>,
) -> Result<JoinHandle<SinkEnd>, Failure> {
    if let Some(settings) = kafka_settings(config) {
        let mut sink = KafkaSink::new(settings, Arc::clone(ledger))
            .map_err(|e| Failure::new(exit::CONFIG, e))?;
        if let Some(spool) = spool {
            sink = sink.with_spool(spool.clone(), config.spool.replay_events_per_s);
        }
        return Ok(tokio::spawn(async move {
            let left = sink.run(events).await;
            let lost = left.queued + left.unconfirmed;
            if left.spooled > 0 && lost == 0 {
                let spooled = left.spooled;
                Ok(format!(
                    "{spooled} events wait in the spool for the next start"
                ))
            } else if lost == 0 {
                Ok("every event is confirmed".to_owned())
            } else {
                Err(format!(
                    "{lost} events were not confirmed in time and are lost"
                ))
            }
        }));
    }
    let end = |result: io::Result<()>| match result {
        Ok(()) => Ok("every event is written".to_owned()),
        Err(error) => Err(format!("standard output: {error}")),
    };
    let stdout = io::stdout();
    Ok(if matches!(mode, Mode::AdHoc) && stdout.is_terminal() {
        tokio::spawn(async move { end(Table::new(stdout).run(events).await) })
    } else {
        tokio::spawn(async move { end(JsonLines::new(stdout).run(events).await) })
    })
}

fn series(config: &Config) -> StreamSeries {
    match config.metrics.streams {
        SeriesOf::Top(n) => StreamSeries::Top(n.into()),
        SeriesOf::All => StreamSeries::All,
        SeriesOf::Off => StreamSeries::Off,
    }
}

fn window(config: &Config) -> Duration {
    Duration::from_millis(config.window.length_ms.into())
}

/// The window task's outlets.
struct Outlets {
    registry: Arc<Registry>,
    ledger: Arc<Ledger>,
    outlet: Outlet,
    spool: Option<Spool>,
    notifier: Notifier,
}

impl Outlets {
    fn config_taken(&self, config: &Config) {
        let names: Vec<_> = config.streams.iter().map(|s| s.name.as_str()).collect();
        let at_s = time::now().wall_ms / 1000;
        self.registry
            .config_taken(&config.sha256, window(config), &names, at_s);
    }

    fn pulses(&self, events: &[Event]) {
        self.outlet.pulses(events.iter().map(Record::of));
    }

    /// What a next life goes on from, where that is written down.
    fn state(&self, node: &Node) -> Option<Vec<u8>> {
        self.outlet.wants_state().then(|| node.state())
    }

    fn edge(&mut self, node: &Node, edge: &Edge) {
        for event in &edge.events {
            match event {
                Event::Window(window) => self.registry.observe_window(window),
                Event::Node(heartbeat) => self.registry.observe_heartbeat(heartbeat),
                Event::Pulse(_) => {}
            }
        }
        let closed = &edge.closed;
        let end_ms = closed.end_ms();
        let records = edge.events.iter().map(Record::of).collect();
        self.outlet
            .edge(records, node.counted_ms(), self.state(node));
        let seen = metrics::Edge {
            lateness: Duration::from_micros(closed.lateness_us),
            read: edge.read,
            missed: closed.missed_edges.into(),
            lost_reads: edge.lost_reads,
            end_ms,
        };
        self.registry.observe_edge(seen, Instant::now());
        self.registry.set_programs(node.spending.programs.clone());
        if closed.is_late() {
            tracing::warn!(
                lateness_ms = closed.lateness_us / 1000,
                missed_edges = closed.missed_edges,
                "window was closed late: it is one long window"
            );
        }
        if closed.clock_step_ms != 0 {
            tracing::warn!(
                clock_step_ms = closed.clock_step_ms,
                "the wall clock was stepped"
            );
        }
        let flows = node.stage().ledger();
        let handed_over = self.ledger.totals().produced;
        self.registry.set_flows(flows.clone(), handed_over);
        let flows = laws::of_flows(flows);
        for law in flows.iter().filter(|law| !law.holds()) {
            tracing::debug!(?law, "law does not hold at this edge");
        }
        // Fed only here: a daemon whose windows do not flow is restarted.
        self.notifier.window_closed(time::monotonic());
        let mut status = node.summary();
        let limited = node.limited();
        if !limited.is_empty() && limited != status {
            status = format!("{status}; {limited}");
        }
        let spool = self.spool.as_ref().map(Spool::status);
        let degraded = degraded(&self.ledger.state(), spool.as_ref());
        if !degraded.is_empty() {
            status = format!("{status}; {degraded}");
        }
        self.notifier.status(&status);
    }

    /// SIGHUP: the new configuration, or the old one and why.
    fn reload(&mut self, node: &mut Node, mode: &Mode) {
        let Mode::File(path) = mode else { return };
        self.notifier.reloading(time::monotonic());
        match Config::load(path) {
            Ok(config) => {
                let changes = diff(node.config(), &config);
                for warning in &config.warnings {
                    tracing::warn!("{warning}");
                }
                match node.reload(config) {
                    Ok(()) => {
                        for change in &changes {
                            tracing::info!(restart = change.needs_restart(), "reload: {change}");
                        }
                        tracing::info!(changes = changes.len(), "configuration reloaded");
                        self.config_taken(node.config());
                        self.note(node);
                    }
                    Err(error) => self.refuse(&error),
                }
            }
            Err(errors) => self.refuse(&errors),
        }
        self.notifier.ready(&node.summary());
    }

    /// What is due.
    fn turn(&mut self, node: &mut Node) {
        if node.expire_rates(time::now()) {
            self.note(node);
        }
        let (pulses, edge) = node.turn(&self.ledger);
        self.pulses(&pulses);
        let Some(edge) = edge else { return };
        self.edge(node, &edge);
        if let Some(why) = edge.take_off {
            self.take_off(node, why);
        }
    }

    fn take_off(&mut self, node: &mut Node, why: Why) {
        let edge = node.take_off(why, &self.ledger);
        self.edge(node, &edge);
    }

    /// Somebody at the control socket.
    fn asked(&self, node: &mut Node, asked: Asked) {
        let (answer, changed) = node.answer(&asked.request, asked.by);
        if changed {
            self.note(node);
        }
        // Who has gone away needs no answer.
        let _ = asked.reply.send(answer);
    }

    /// Streams or their rates are others from now on: a next life must know them.
    fn note(&self, node: &Node) {
        self.outlet
            .edge(Vec::new(), node.counted_ms(), self.state(node));
    }

    fn refuse(&self, error: &impl std::fmt::Display) {
        tracing::error!("reload refused, the old configuration stays:\n{error}");
        self.registry.config_refused();
    }
}

/// SIGTERM and SIGINT, and SIGHUP.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// The last word of a process that may attach again and cannot.
const AGAIN: &str = "the disable file is gone: to attach again, it must be started again";

/// Requests waiting for the window task.
const REQUESTS: usize = 8;

/// Serves the control socket.
fn take_requests(socket: Socket) -> mpsc::Receiver<Asked> {
    let (sender, receiver) = mpsc::channel(REQUESTS);
    tokio::spawn(async move {
        if let Err(error) = server::serve(socket, sender).await {
            tracing::error!(%error, "the control socket ended");
        }
    });
    receiver
}

/// The next request; never one where there is no socket.
async fn next_request(requests: &mut Option<mpsc::Receiver<Asked>>) -> Option<Asked> {
    requests.as_mut()?.recv().await
}

/// Runs until a signal, or until the sink has ended by itself; returns when all is flushed.
///
/// # Errors
/// A [`Failure`] with the exit status that fits.
pub async fn run(prepared: Prepared) -> Result<(), Failure> {
    let Prepared {
        mut node,
        ledger,
        spool,
        listener,
        control,
        mode,
        _locks,
    } = prepared;
    let bug = |e: io::Error| Failure::new(exit::BUG, e);
    let mut signals = Signals::new().map_err(bug)?;
    let capacity = match spool {
        Some(_) => Capacity::SPOOLED,
        None => Capacity::DEFAULT,
    };
    let (sender, receiver) = spooled_queue(capacity, Arc::clone(&ledger), spool.clone());
    let mut sink = start_sink(node.config(), &mode, &ledger, receiver, spool.as_ref())?;
    let outlet = match &spool {
        Some(spool) => Outlet::spooled(sender, Arc::clone(&ledger), spool.clone()),
        None => Outlet::direct(sender, Arc::clone(&ledger)),
    };
    let registry = Arc::new(Registry::new(
        series(node.config()),
        window(node.config()),
        Arc::clone(&ledger),
        spool.clone(),
    ));
    let (stop_endpoint, stopped) = oneshot::channel::<()>();
    if let Some(listener) = listener {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(bug)?;
        let registry = Arc::clone(&registry);
        tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            if let Err(error) = metrics::serve(listener, registry, shutdown).await {
                tracing::error!(%error, "the metrics endpoint ended");
            }
        });
    }
    let mut requests = control.map(take_requests);
    let mut outlets = Outlets {
        registry,
        ledger,
        outlet,
        spool: spool.clone(),
        notifier: Notifier::from_env(),
    };
    outlets.config_taken(node.config());
    tracing::info!("{}", node.summary());
    outlets.notifier.ready(&node.summary());

    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut again = false;
    let early = loop {
        let wait = node.next_us().saturating_sub(time::now().monotonic_us);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_micros(wait)) => {
                outlets.turn(&mut node);
            }
            _ = looks.tick() => match node.look() {
                Look::Same => {}
                Look::TakeOff(why) => outlets.take_off(&mut node, why),
                Look::StartAgain => {
                    again = true;
                    break None;
                }
            },
            Some(asked) = next_request(&mut requests) => outlets.asked(&mut node, asked),
            Some(()) = signals.hang_up.recv() => outlets.reload(&mut node, &mode),
            Some(()) = signals.terminate.recv() => break None,
            Some(()) = signals.interrupt.recv() => break None,
            // A closed pipe: nobody reads any more.
            end = &mut sink => break Some(end),
        }
    };
    // Who asks from now on is told that it stops.
    drop(requests);
    outlets.notifier.stopping("folding open flows");
    let edge = node.last_window(&outlets.ledger);
    outlets.edge(&node, &edge);
    let totals = node.stage().ledger().clone();
    drop(outlets);
    let end = match early {
        Some(end) => end,
        None => {
            // The sink keeps its own time; this bounds what it might forget.
            let limit = Duration::from_secs(u64::from(node.config().shutdown.timeout_s) + 5);
            match tokio::time::timeout(limit, sink).await {
                Ok(end) => end,
                Err(_) => return Err(Failure::new(exit::BUG, "the sink did not end in time")),
            }
        }
    };
    if let Some(spool) = &spool {
        spool.stop().await;
    }
    drop(stop_endpoint);
    node.side.leave();
    let end = end.map_err(|e| Failure::new(exit::BUG, e))?;
    tracing::info!(
        flows_sampled = totals.flows_sampled,
        flows_closed = totals.flows_closed,
        flows_open = totals.flows_open,
        events = totals.events_produced,
        "stopped: {}",
        match &end {
            Ok(text) | Err(text) => text,
        }
    );
    match again {
        true => Err(Failure::new(exit::AGAIN, AGAIN)),
        false => Ok(()),
    }
}
