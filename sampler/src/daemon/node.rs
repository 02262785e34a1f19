//! This node: kernel side and window stage together, and what is done at an edge.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use ebpf_abi::walk::WalkRecord;
use sampler_event::{Event, Message, NamespaceCounters};

use super::{
    off::{Off, Why},
    side::Side,
    spending::Spending,
    time,
};
use crate::{
    config::Config,
    control::overrides::Overrides,
    doctor::clock_quality,
    kernel::{
        cgroup,
        load::{self, KernelError, NO_FOLD},
    },
    metrics::ProgramCost,
    rules::{CompileError, RuleSet},
    sink::{Ledger, SinkState},
    spool::{Spool, SpoolStatus},
    stage::{
        Output, Stage,
        clock::{Closed, Now},
        heartbeat::Outside,
        state::{Attachment, StageState},
        streams::{StreamsError, Wanted},
    },
};

/// Cgroups that a rule names are looked for this often, ms.
const CGROUP_INTERVAL_US: u64 = 5_000_000;
/// Flows without callbacks are folded this often: it asks every socket of the namespace.
const UNHOOKED_INTERVAL_US: u64 = 5_000_000;

/// The node.
pub(super) struct Node {
    pub(super) side: Side,
    pub(super) stage: Stage,
    config: Config,
    /// Rates that hold for a while instead of the configured ones.
    pub(super) overrides: Overrides,
    cgroup_root: PathBuf,
    cgroups: BTreeMap<String, Option<u64>>,
    cgroups_at_us: u64,
    next_walk_us: u64,
    /// 0: no flow without callbacks was met yet.
    next_unhooked_us: u64,
    records: Vec<WalkRecord>,
    spool: Option<Spool>,
    lost_reads: u64,
    release: String,
    books: Books,
    pub(super) spending: Spending,
    /// Why nothing is counted, where that is so.
    pub(super) off: Option<Off>,
    /// Whether the disable file is there could not be seen.
    pub(super) blind: bool,
    /// Flags of the window that is closed next.
    pub(super) flags: u32,
    /// Where notes for a next life are left; none: there is none.
    pub(super) state_directory: Option<PathBuf>,
}

/// What a next life must know beside the window stage's state.
pub(super) struct Books {
    /// The kernel side in use.
    pub(super) attachment: Attachment,
    /// Until when all is counted, Unix time: when the last window was closed, of whatever life.
    pub(super) counted_ms: u64,
}

/// One closed window.
pub(super) struct Edge {
    pub(super) closed: Closed,
    pub(super) events: Vec<Event>,
    pub(super) read: Duration,
    pub(super) lost_reads: u64,
    /// The kernel side is to be taken off now.
    pub(super) take_off: Option<Why>,
}

impl Node {
    pub(super) fn new(
        side: Side,
        stage: Stage,
        config: Config,
        cgroup_root: PathBuf,
        books: Books,
    ) -> Self {
        Self {
            spending: Spending::new(&config.limits),
            off: None,
            blind: false,
            flags: 0,
            state_directory: None,
            side,
            stage,
            config,
            overrides: Overrides::default(),
            cgroup_root,
            cgroups: BTreeMap::new(),
            cgroups_at_us: 0,
            next_walk_us: 0,
            next_unhooked_us: 0,
            records: Vec::new(),
            spool: None,
            lost_reads: 0,
            release: load::kernel_release(),
            books,
        }
    }

    /// Unix time at which the last window was closed.
    pub(super) fn counted_ms(&self) -> u64 {
        self.books.counted_ms
    }

    /// What a next life goes on from: the state at the end of the last window, encoded.
    pub(super) fn state(&self) -> Vec<u8> {
        let state = StageState {
            attachment: Some(self.books.attachment.clone()),
            ..self.stage.state()
        };
        state.encode_to_vec()
    }

    /// Heartbeats say how this spool is doing, and it gets the state of every window.
    pub(super) fn set_spool(&mut self, spool: Spool) {
        self.spool = Some(spool);
        self.stage.with_books = true;
    }

    /// Nothing is counted from now on.
    pub(super) fn set_off(&mut self, off: Off) {
        self.books.attachment = off.attachment(time::now().wall_ms);
        self.overrides = Overrides::default();
        self.off = Some(off);
    }

    /// What is done because of a limit, or why nothing is counted; empty when all is as configured.
    pub(super) fn limited(&self) -> String {
        let off = self.off.as_ref().map(Off::limited);
        off.unwrap_or_else(|| self.spending.limited())
    }

    pub(super) fn stage(&self) -> &Stage {
        &self.stage
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn summary(&self) -> String {
        let streams = self.config.streams.len();
        let degraded = self
            .stage
            .streams
            .streams()
            .iter()
            .filter(|s| !s.degraded.is_empty());
        let mut text = format!(
            "sampling {streams} stream{} on {} ({}), attached at {}",
            if streams == 1 { "" } else { "s" },
            self.stage.identity.node,
            self.release,
            self.cgroup_root.display(),
        );
        if let Some(off) = &self.off {
            return off.limited();
        }
        if streams == 0 {
            text = "no stream is configured: nothing is sampled".to_owned();
        }
        for stream in degraded {
            text.push_str(&format!("; {}: {}", stream.wanted.name, stream.degraded));
        }
        text
    }

    /// Takes a new configuration, or changes nothing.
    pub(super) fn reload(&mut self, config: Config) -> Result<(), CompileError> {
        let old = std::mem::replace(&mut self.config, config);
        if let Err(error) = self.apply() {
            self.config = old;
            return Err(error);
        }
        let gone = |name: &str| self.config.streams.iter().all(|s| s.name != name);
        if old.streams.iter().any(|s| gone(&s.name)) {
            // Flows of streams that are gone are closed out now, not at their next callback; in the lesser mode then.
            self.fold();
        }
        self.drop_rates_of_gone();
        self.set_limits(&old.limits);
        Ok(())
    }

    /// Makes rules and streams those of the configuration.
    pub(super) fn apply(&mut self) -> Result<(), CompileError> {
        self.look_for_cgroups();
        // Compiled once with the ids that the streams will have only to see that it can be:
        // nothing may have changed when it cannot.
        self.compile(|index| index as u32)?;
        if self.off.is_some() {
            return Ok(());
        }
        let wanted: Vec<Wanted> = self
            .config
            .streams
            .iter()
            .map(|s| Wanted {
                name: s.name.clone(),
                rate: self.overrides.rate(&s.name).unwrap_or(s.rate),
                pulse_ms: s.pulse_ms,
                rtt_slow_us: s.rtt_slow_us,
                labels: s.labels.clone(),
            })
            .collect();
        let window_ms = self.config.window.length_ms;
        for (stream, error) in self
            .stage
            .apply(&wanted, window_ms, time::now(), &self.side)
        {
            tracing::error!(stream, %error, "stream is not sampled as configured");
        }
        self.side
            .set_max_sampled_flows(self.config.sampling.max_sampled_flows);
        self.set_rules()
    }

    /// Gives new flows of a stream the rate that holds now, set or configured.
    pub(super) fn apply_rate(&mut self, name: &str) -> Result<(), StreamsError> {
        let stream = self.config.streams.iter().find(|s| s.name == name);
        let id = self.stage.streams.id(name);
        let Some((stream, id)) = stream.zip(id) else {
            return Ok(());
        };
        let rate = self.overrides.rate(name).unwrap_or(stream.rate);
        self.stage.set_rate(id, rate, &self.side)
    }

    fn compile(
        &self,
        id: impl Fn(usize) -> u32,
    ) -> Result<crate::rules::KernelRules, CompileError> {
        let cgroup = |path: &str| self.cgroups.get(path).copied().flatten();
        RuleSet::new(&self.config.streams).compile(id, cgroup)
    }

    fn set_rules(&mut self) -> Result<(), CompileError> {
        // A stream that got no id has no rule either: its id is one that is never live.
        const NOBODY: u32 = u32::MAX;
        let streams = &self.config.streams;
        let id = |index: usize| {
            self.stage
                .streams
                .id(&streams[index].name)
                .unwrap_or(NOBODY)
        };
        let rules = self.compile(id)?;
        self.side.set_rules(&rules);
        Ok(())
    }

    /// Finds the ids of the cgroups that rules name; `true` if one changed.
    fn look_for_cgroups(&mut self) -> bool {
        let found: BTreeMap<_, _> = self
            .config
            .streams
            .iter()
            .filter_map(|s| s.cgroup.clone())
            .map(|path| {
                let id = cgroup::cgroup_id(&self.cgroup_root, &path);
                (path, id)
            })
            .collect();
        let changed = found != self.cgroups;
        self.cgroups = found;
        changed
    }

    fn mark_degraded(&mut self) {
        for stream in &self.config.streams {
            let Some(path) = &stream.cgroup else { continue };
            let Some(id) = self.stage.streams.id(&stream.name) else {
                continue;
            };
            let absent = self.cgroups.get(path).copied().flatten().is_none();
            let state = &mut self.stage.streams.stream_mut(id as usize).degraded;
            let text = format!("cgroup {path} is not there; looked for every 5 s");
            if absent && *state != text {
                tracing::warn!(stream = stream.name, "{text}");
                *state = text;
            } else if !absent && state.starts_with("cgroup ") {
                tracing::info!(stream = stream.name, "cgroup {path} is there");
                state.clear();
            }
        }
    }

    /// When something is due, on the monotonic clock.
    pub(super) fn next_us(&self) -> u64 {
        let edge = self.stage.next_edge_us();
        let edge = self.overrides.next_us().map_or(edge, |us| edge.min(us));
        // A walk that is due with the edge is made at the edge.
        if self.next_walk_us + self.walk_slack_us() < self.stage.window_edge_us() {
            edge.min(self.next_walk_us)
        } else {
            edge
        }
    }

    fn walk_slack_us(&self) -> u64 {
        u64::from(self.config.window.walk_interval_ms) * 100
    }

    /// Attaches. `first`: the connections that are open already are taken in, or counted.
    pub(super) fn attach(&mut self, first: bool) -> Result<(), KernelError> {
        if let Some(lack) = self.side.lack() {
            let mode = self.side.mode().unwrap_or_default();
            tracing::warn!("kernel_mode {mode}: {lack}: {NO_FOLD}");
        }
        if first && let Err(error) = self.side.count_open() {
            self.lost_reads += 1;
            tracing::error!(%error, "connections that are open already could not be counted");
        }
        self.side.attach(&self.cgroup_root)?;
        if first {
            // After the attach, so that no connection comes between.
            self.pick_up();
        }
        Ok(())
    }

    /// Takes in the connections that were open before the attach.
    fn pick_up(&mut self) {
        let begin = time::monotonic();
        let before = self.side.report().flows_open;
        if let Err(error) = self.side.pick_up() {
            self.lost_reads += 1;
            tracing::error!(%error, "connections that were open before could not be picked up");
            return;
        }
        let report = self.side.report();
        let (flows, unreached) = (
            report.flows_open.saturating_sub(before),
            report.flows_unreached,
        );
        let took_ms = time::monotonic().saturating_sub(begin).as_millis() as u64;
        tracing::info!(flows, took_ms, "connections that were open are picked up");
        if unreached != 0 {
            tracing::warn!(
                flows = unreached,
                "flows of the sample were open already and are not followed: they are in other network namespaces, above \
                 sampling.max_sampled_flows, or this kernel (before 6.12) cannot take them in"
            );
        }
    }

    /// Folds every open flow now.
    pub(super) fn fold(&mut self) {
        let folded = self.side.fold();
        self.folded(folded);
    }

    /// Counts a fold that failed.
    pub(super) fn folded(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.lost_reads += 1;
            tracing::error!(%error, "open flows could not be folded");
        }
    }

    /// Folds flows whose callbacks another program took away: nothing else does while they live.
    fn fold_unhooked(&mut self, now: Now) {
        let flows = self.stage.ledger().flows_unhooked;
        if flows == 0 || now.monotonic_us < self.next_unhooked_us {
            return;
        }
        if self.next_unhooked_us == 0 {
            let folded = match self.side.is_lesser() {
                true => "at the stop, if they live as long",
                false => "every 5 s",
            };
            tracing::warn!(
                flows,
                "another sock_ops program took our callbacks away: such flows are folded {folded}, \
                 their stalls, RTT and ends are not seen"
            );
        }
        self.next_unhooked_us = now.monotonic_us + UNHOOKED_INTERVAL_US;
        self.fold();
    }

    fn walk_if_due(&mut self, now: Now) {
        if now.monotonic_us + self.walk_slack_us() < self.next_walk_us {
            return;
        }
        let interval_us = u64::from(self.config.window.walk_interval_ms) * 1000;
        self.next_walk_us = now.monotonic_us + interval_us;
        self.records.clear();
        match self.side.walk(&mut self.records) {
            Ok(false) => {}
            Ok(true) => self
                .stage
                .observe(&self.records, self.config.window.length_ms),
            Err(error) => {
                self.lost_reads += 1;
                for index in 0..self.stage.streams.streams().len() {
                    self.stage.streams.stream_mut(index).lost_reads += 1;
                }
                tracing::error!(%error, "the walk over sampled flows failed");
            }
        }
    }

    /// Does what is due: a walk, pulses, and the window if its edge has come.
    pub(super) fn turn(&mut self, ledger: &Ledger) -> (Vec<Event>, Option<Edge>) {
        let now = time::now();
        self.walk_if_due(now);
        let pulses = self.stage.close_pulses(now, &self.side);
        if now.monotonic_us < self.stage.window_edge_us() {
            return (pulses, None);
        }
        (pulses, Some(self.close_window(now, ledger, false)))
    }

    /// Folds and closes the last window.
    pub(super) fn last_window(&mut self, ledger: &Ledger) -> Edge {
        let folded = self.side.fold_at_stop();
        self.folded(folded);
        self.next_walk_us = 0;
        let now = time::now();
        self.walk_if_due(now);
        self.close_window(now, ledger, true)
    }

    pub(super) fn close_window(&mut self, now: Now, ledger: &Ledger, stopping: bool) -> Edge {
        if now.monotonic_us >= self.cgroups_at_us {
            self.cgroups_at_us = now.monotonic_us + CGROUP_INTERVAL_US;
            if self.look_for_cgroups()
                && let Err(error) = self.set_rules()
            {
                tracing::error!(%error, "rules could not be made anew");
            }
            self.mark_degraded();
        }
        self.fold_unhooked(now);
        let take_off = self.judge_cost(now);
        let outside = self.outside(ledger);
        let begin = time::monotonic();
        let max_flows = self.config.sampling.max_sampled_flows;
        let Output {
            closed,
            events,
            adapted,
        } = self
            .stage
            .close_window(now, &self.side, max_flows, stopping, &outside);
        if adapted {
            let halvings = self.stage.streams.halvings();
            tracing::warn!(
                halvings,
                "rates of new flows changed: the flow table is near its bound or has room again"
            );
        }
        let read = time::monotonic().saturating_sub(begin);
        self.spending.count(&events);
        self.flags = 0;
        let lost_reads = std::mem::take(&mut self.lost_reads);
        self.books.counted_ms = closed.closed_ms;
        Edge {
            closed,
            events,
            read,
            lost_reads,
            take_off,
        }
    }

    fn outside(&self, ledger: &Ledger) -> Outside {
        let totals = ledger.totals();
        let spool = self.spool.as_ref().map(Spool::status);
        let quality = clock_quality();
        let lost_by_stream = self.stage.streams.streams().iter().filter_map(|s| {
            let loss = ledger.loss(&s.wanted.name);
            let some = loss.dropped != 0 || loss.dead_letter != 0;
            some.then(|| (s.wanted.name.clone(), loss.dropped, loss.dead_letter))
        });
        let programs = self.spending.programs.iter();
        let (run_ns, runs) = programs.fold((0, 0), |(ns, runs), c| (ns + c.run_ns, runs + c.runs));
        let namespaces = self.spending.net.as_ref().map(|c| NamespaceCounters {
            netns: "self".to_owned(),
            tcp_retrans_segs: c.tcp_retrans_segs,
            tcp_syn_retrans: c.tcp_syn_retrans,
            tcp_out_segs: c.tcp_out_segs,
            udp_out_datagrams: c.udp_out_datagrams,
        });
        let mode = self.off.as_ref().map(Off::kernel_mode);
        let mode = mode.or_else(|| self.side.mode()).unwrap_or_default();
        let attachment = match &self.off {
            Some(off) => off.attachment(time::now().wall_ms),
            None => self.books.attachment.clone(),
        };
        let flows = self.stage.ledger().flows_open.min(u32::MAX.into()) as u32;
        Outside {
            config_sha256: self.config.sha256,
            kernel_mode: mode.to_owned(),
            flows_unreached: self.side.report().flows_unreached,
            kernel_release: self.release.clone(),
            events: totals,
            degraded: degraded(&ledger.state(), spool.as_ref()),
            spool_bytes: spool.as_ref().map_or(0, |s| s.bytes),
            spool_age_ms: spool
                .as_ref()
                .map_or(0, |s| (s.age_s(time::now().wall_ms) * 1000.0) as u64),
            lost_by_stream: lost_by_stream.collect(),
            clock_synchronised: quality.is_some_and(|q| q.synchronised),
            clock_error_us: quality.map_or(0, |q| q.max_error_us),
            namespaces: namespaces.into_iter().collect(),
            cost: self.spending.cost,
            cost_percent: self.spending.percent,
            cost_limit_percent: self.spending.limit_percent(),
            limited: self.limited(),
            flags: self.flags,
            rss_bytes: self.spending.own.rss_bytes,
            kernel_memory_bytes: self.side.memory_bytes(flows),
            bpf: (runs != 0).then_some((run_ns, runs)),
            attachment,
        }
    }

    /// Cost of the programs so far; nothing unless the kernel measures it.
    pub(super) fn program_costs(&self) -> Vec<ProgramCost> {
        if !stats_enabled(Path::new("/proc/sys/kernel/bpf_stats_enabled")) {
            return Vec::new();
        }
        self.side.costs()
    }
}

/// Why events wait, or are less safe than they should be.
pub(super) fn degraded(sink: &SinkState, spool: Option<&SpoolStatus>) -> String {
    let sink = match sink {
        SinkState::Degraded(reason) => Some(format!("sink: {reason}")),
        SinkState::Ok | SinkState::Starting => None,
    };
    let spool = spool.and_then(SpoolStatus::trouble);
    let both: Vec<_> = sink.into_iter().chain(spool).collect();
    both.join("; ")
}

fn stats_enabled(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
}
