//! What a Prometheus server, and `top`, see of this node.
//!
//! Input: windows and heartbeats from the window stage, the sink's books. Output: text or protobuf on `/metrics`, and
//! `/healthz`. Limits: at most 1024 streams are kept, and `top:N` of them shown; nothing per flow. The lock is
//! held for one window's additions, or one copy of the shown totals.

mod fields;
mod node;
mod rtt;
mod select;
mod server;
mod spool;
mod totals;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sampler_event::{NodeHeartbeat, StreamWindow};
use service::metrics::Family;
use tokio::time::Instant;

pub use node::{NodeStatus, ProgramCost};
pub use select::StreamSeries;
pub use server::{ServeError, bind, serve};

use self::select::Selection;
use self::totals::StreamTotals;
use crate::laws;
use crate::sink::{Ledger, SinkState};
use crate::spool::Spool;
use crate::stage::heartbeat::FlowTotals;

/// Streams kept; a node has fewer.
const MAX_STREAMS: usize = 1024;
/// Without a window edge for so many window lengths, and [`SLACK`], windows do not flow.
const LENGTHS: u32 = 3;
/// Beyond the window lengths.
const SLACK: Duration = Duration::from_secs(5);

/// How a window edge was closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    /// How long after the edge the read began.
    pub lateness: Duration,
    /// How long the read took.
    pub read: Duration,
    /// Edges that were skipped before this one.
    pub missed: u64,
    /// Reads that failed.
    pub lost_reads: u64,
    /// The edge, Unix ms.
    pub end_ms: u64,
}

/// Everything that the endpoint shows.
#[derive(Debug)]
pub struct Registry {
    state: Mutex<State>,
    ledger: Arc<Ledger>,
    spool: Option<Spool>,
}

#[derive(Debug)]
struct State {
    node: NodeStatus,
    streams: BTreeMap<String, StreamTotals>,
    selection: Selection,
    window: Duration,
    last_edge: Option<Instant>,
}

impl Registry {
    /// An empty registry for windows of the given length.
    pub fn new(
        series: StreamSeries,
        window: Duration,
        ledger: Arc<Ledger>,
        spool: Option<Spool>,
    ) -> Self {
        let state = State {
            node: NodeStatus::default(),
            streams: BTreeMap::new(),
            selection: Selection::new(series),
            window,
            last_edge: None,
        };
        Self {
            state: Mutex::new(state),
            ledger,
            spool,
        }
    }

    /// Adds a stream's window.
    pub fn observe_window(&self, window: &StreamWindow) {
        let mut state = self.state();
        if !state.streams.contains_key(&window.stream) {
            if state.streams.len() >= MAX_STREAMS {
                return;
            }
            state
                .streams
                .insert(window.stream.clone(), StreamTotals::default());
        }
        state
            .selection
            .observe(&window.stream, window.window_start_ms, window.flows_seen);
        let readable = state
            .streams
            .get_mut(&window.stream)
            .is_none_or(|totals| totals.add(window));
        state.node.bad_histograms += u64::from(!readable);
    }

    /// Takes the node's heartbeat in: its ledger, and the streams that were silent.
    pub fn observe_heartbeat(&self, heartbeat: &NodeHeartbeat) {
        let mut state = self.state();
        for stream in heartbeat.streams.iter().filter(|stream| stream.silent) {
            if let Some(totals) = state.streams.get_mut(&stream.stream) {
                totals.silent(
                    heartbeat.window_start_ms,
                    stream.flows_open,
                    stream.sampling_rate,
                );
            }
        }
        state.node.heartbeat = heartbeat.clone();
    }

    /// A window edge was closed at `now`: windows flow.
    pub fn observe_edge(&self, edge: Edge, now: Instant) {
        let mut state = self.state();
        state.last_edge = Some(now);
        let node = &mut state.node;
        node.edges += 1;
        node.missed_edges = node.missed_edges.saturating_add(edge.missed);
        node.lost_reads = node.lost_reads.saturating_add(edge.lost_reads);
        node.last_end_ms = edge.end_ms;
        node.lateness.record(edge.lateness);
        node.read.record(edge.read);
    }

    /// A configuration was taken at `at_s`, Unix s: its hash, its window length and its streams. Totals of streams that
    /// are no longer configured are forgotten.
    pub fn config_taken(&self, sha256: &[u8], window: Duration, streams: &[&str], at_s: u64) {
        let keep: BTreeSet<&str> = streams.iter().copied().collect();
        let mut state = self.state();
        state.node.config_sha256 = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        state.node.reload = Some((true, at_s));
        state.window = window;
        state
            .streams
            .retain(|stream, _| keep.contains(stream.as_str()));
        state.selection.retain(|stream| keep.contains(stream));
    }

    /// A configuration was refused; the old one stays.
    pub fn config_refused(&self) {
        let mut state = self.state();
        let at_s = state.node.reload.map_or(0, |(_, at_s)| at_s);
        state.node.reload = Some((false, at_s));
    }

    /// What the kernel programs cost so far; empty where the kernel does not measure it.
    pub fn set_programs(&self, programs: Vec<ProgramCost>) {
        self.state().node.programs = programs;
    }

    /// The window stage's totals at the last edge, and how many events had been handed to the sink then.
    pub fn set_flows(&self, flows: FlowTotals, handed_over: u64) {
        let node = &mut self.state().node;
        (node.flows, node.handed_over) = (flows, handed_over);
    }

    /// All families, for a scrape.
    pub fn families(&self) -> Vec<Family> {
        let (node, streams) = {
            let state = self.state();
            let chosen = state
                .streams
                .iter()
                .filter(|(stream, _)| state.selection.contains(stream));
            let chosen: Vec<_> = chosen
                .map(|(stream, totals)| (stream.clone(), totals.clone()))
                .collect();
            (state.node.clone(), chosen)
        };
        let mut families = node::status_families(&node);
        families.extend(node::sink_families(
            self.ledger.totals(),
            &self.ledger.state(),
            &self.ledger.delivery(),
        ));
        let totals = self.ledger.totals();
        let of_edge = laws::of_flows(&node.flows).into_iter();
        let of_edge = of_edge.chain([laws::of_hand_over(&node.flows, node.handed_over)]);
        families.push(spool::laws_family(of_edge.chain(laws::of_events(&totals))));
        if let Some(spool) = &self.spool {
            families.extend(spool::families(&spool.status(), &totals));
        }
        let streams = streams
            .iter()
            .map(|(stream, totals)| (stream.as_str(), totals, self.ledger.loss(stream)));
        families.extend(totals::families(streams));
        families
    }

    /// One line about the node, or why windows do not flow, as of `now`.
    pub fn health(&self, now: Instant) -> Result<String, String> {
        let state = self.state();
        let Some(last) = state.last_edge else {
            return Err("no window was closed yet".to_owned());
        };
        let age = now.saturating_duration_since(last);
        if age > state.window.saturating_mul(LENGTHS).saturating_add(SLACK) {
            return Err(format!("no window was closed for {} s", age.as_secs()));
        }
        let limited = &state.node.heartbeat.limited;
        let limited = (!limited.is_empty()).then(|| limited.clone());
        let sink = match self.ledger.state() {
            SinkState::Ok => None,
            other => Some(format!("sink: {other}")),
        };
        let spool = self.spool.as_ref().and_then(|s| s.status().trouble());
        let words: Vec<_> = limited.into_iter().chain(sink).chain(spool).collect();
        let off = matches!(&*state.node.heartbeat.kernel_mode, "disabled" | "detached");
        Ok(match (words.is_empty(), off) {
            (true, _) => "ok".to_owned(),
            (false, false) => format!("windows flow; {}", words.join("; ")),
            (false, true) => words.join("; "),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Sums stay usable whatever panicked while it held them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
