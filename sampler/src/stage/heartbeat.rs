//! The heartbeat: that the node lives, what it lost, and how its sample compares with the
//! kernel's own totals.

use sampler_event::{LifeCycle, NamespaceCounters, NodeHeartbeat, StreamState};

use crate::{laws, limits::Cost, sink::Totals};

use super::{
    state::Attachment,
    streams::Streams,
    window::{Frame, Identity},
};

/// What the rim knows and the window stage does not.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// Hash of the configuration in force.
    pub config_sha256: [u8; 32],
    /// What this kernel allows.
    pub kernel_mode: String,
    /// Flows of the sample that were open before the attach and are not followed.
    pub flows_unreached: u64,
    /// Its release.
    pub kernel_release: String,
    /// What became of the events so far.
    pub events: Totals,
    /// Why events wait or are less safe than they should be; empty when all is well.
    pub degraded: String,
    /// Bytes of the spool.
    pub spool_bytes: u64,
    /// Age of about the oldest event in it that is not confirmed.
    pub spool_age_ms: u64,
    /// By stream: dropped events and dead letters.
    pub lost_by_stream: Vec<(String, u64, u64)>,
    /// The wall clock is synchronised.
    pub clock_synchronised: bool,
    /// Its error as the kernel estimates it.
    pub clock_error_us: u64,
    /// The kernel's totals of the watched namespaces.
    pub namespaces: Vec<NamespaceCounters>,
    /// CPU time of daemon and programs.
    pub cost: Cost,
    /// Of both over the last minute, percent of one core.
    pub cost_percent: f64,
    /// What is allowed.
    pub cost_limit_percent: f64,
    /// What is done because of it, or why nothing is sampled; empty when all is as configured.
    pub limited: String,
    /// Flags of every event of the window.
    pub flags: u32,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Memory of maps.
    pub kernel_memory_bytes: u64,
    /// Run time and runs of the programs, if the kernel measures them.
    pub bpf: Option<(u64, u64)>,
    /// Since when the kernel side counts, and what was not counted before.
    pub attachment: Attachment,
}

/// Totals: of flows since the kernel side was attached, of events over the life of the daemon; their laws are in [`laws`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowTotals {
    /// Chosen by the hash.
    pub flows_selected: u64,
    /// Admitted.
    pub flows_sampled: u64,
    /// Refused at a bound.
    pub flows_refused: u64,
    /// Refused in earlier lives.
    pub refused_earlier: u64,
    /// Found open at start.
    pub flows_picked_up: u64,
    /// Ended.
    pub flows_closed: u64,
    /// Open now.
    pub flows_open: u64,
    /// Unhooked now.
    pub flows_unhooked: u64,
    /// Events made.
    pub events_produced: u64,
    /// Steps of the wall clock.
    pub clock_step_ms: i64,
    /// Heartbeats so far.
    pub next_sequence: u64,
    /// Edges in a row at which a law of flows did not hold. One may not: the kernel counts while its counters are read.
    pub uneven_edges: u8,
}

impl FlowTotals {
    /// Takes in an event of the window that [`FlowTotals::begin_window`] began.
    pub fn add(&mut self, window: &sampler_event::StreamWindow) {
        self.flows_selected += window.flows_selected;
        self.flows_sampled += window.flows_sampled;
        self.flows_picked_up += window.flows_picked_up;
        self.flows_closed += window.flows_closed;
        self.flows_open += window.flows_open;
        self.flows_unhooked += window.flows_unhooked;
        self.events_produced += 1;
    }

    /// Before the events of a window.
    pub fn begin_window(&mut self) {
        self.flows_open = 0;
        self.flows_unhooked = 0;
    }
}

fn broken_laws(flows: &mut FlowTotals, events: &Totals) -> Vec<String> {
    let of_flows = laws::of_flows(flows);
    flows.uneven_edges = match of_flows.iter().all(laws::Law::holds) {
        true => 0,
        false => flows.uneven_edges.saturating_add(1),
    };
    let lasting = of_flows.into_iter().filter(|_| flows.uneven_edges > 1);
    lasting
        .chain(laws::of_events(events))
        .filter(|law| !law.holds())
        .map(|law| law.name.to_owned())
        .collect()
}

/// The heartbeat of a window; `spoke`: streams that sent a window event in it.
pub fn close(
    identity: &Identity,
    frame: &Frame,
    life_cycle: LifeCycle,
    streams: &Streams,
    spoke: &[bool],
    ledger: &mut FlowTotals,
    outside: &Outside,
) -> NodeHeartbeat {
    ledger.clock_step_ms += frame.closed.clock_step_ms;
    ledger.events_produced += 1;
    let refused: u64 = streams.streams().iter().map(|s| s.lost_flows).sum();
    ledger.flows_refused = ledger.refused_earlier + refused;
    let events = outside.events;
    // Those of this window are on their way to the sink.
    let handing_over = ledger.events_produced.saturating_sub(events.produced);
    let broken_laws = broken_laws(ledger, &events);
    let sequence = ledger.next_sequence;
    ledger.next_sequence += 1;
    let states = streams
        .streams()
        .iter()
        .enumerate()
        .filter(|(_, s)| s.live)
        .map(|(i, s)| {
            let open = streams
                .epochs()
                .iter()
                .filter(|e| e.stream == i)
                .map(|e| e.flows_open(&e.counted))
                .sum();
            let lost = outside
                .lost_by_stream
                .iter()
                .find(|(name, ..)| *name == s.wanted.name);
            StreamState {
                stream: s.wanted.name.clone(),
                silent: !spoke.get(i).copied().unwrap_or(false),
                next_sequence: s.next_sequence,
                next_pulse_sequence: s.next_pulse_sequence,
                sampling_rate: s.rate(),
                rate_epoch: s.rate_epoch(),
                labels: s.wanted.labels.clone().into_iter().collect(),
                degraded: s.degraded.clone(),
                lost_flows: s.lost_flows,
                lost_reads: s.lost_reads,
                spool_dropped_events: lost.map_or(0, |l| l.1),
                dead_letter_events: lost.map_or(0, |l| l.2),
                flows_open: open,
            }
        });
    NodeHeartbeat {
        node: identity.node.clone(),
        site: identity.site.clone(),
        instance: identity.instance,
        previous_instance: identity.previous_instance,
        sequence,
        window_start_ms: frame.closed.window_start_ms,
        window_ms: frame.closed.window_ms,
        emitted_ms: frame.emitted_ms,
        life_cycle: life_cycle.into(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        abi_version: ebpf_abi::ABI_VERSION,
        config_sha256: outside.config_sha256.to_vec(),
        sampling_key_id: identity.sampling_key_id,
        kernel_mode: outside.kernel_mode.clone(),
        kernel_release: outside.kernel_release.clone(),
        rtt_source: identity.rtt_source().into(),
        streams: states.collect(),
        flows_selected: ledger.flows_selected,
        flows_sampled: ledger.flows_sampled,
        flows_refused: ledger.flows_refused,
        flows_picked_up: ledger.flows_picked_up,
        flows_closed: ledger.flows_closed,
        flows_open: ledger.flows_open,
        flows_unhooked: ledger.flows_unhooked,
        events_produced: ledger.events_produced,
        events_delivered: events.delivered,
        events_dropped: events.dropped,
        dead_letter: events.dead_letter,
        clock_synchronised: outside.clock_synchronised,
        clock_error_us: outside.clock_error_us,
        clock_step_ms: ledger.clock_step_ms,
        namespaces: outside.namespaces.clone(),
        cpu_us_total: outside
            .cost
            .daemon_us
            .saturating_add(outside.cost.kernel_us),
        rss_bytes: outside.rss_bytes,
        kernel_memory_bytes: outside.kernel_memory_bytes,
        bpf_run_ns: outside.bpf.map(|b| b.0),
        bpf_run_count: outside.bpf.map(|b| b.1),
        flags: frame.flags,
        degraded: outside.degraded.clone(),
        events_waiting: events.waiting + handing_over,
        events_spooled: events.spooled,
        events_unspooled: events.unspooled,
        events_dropped_queue: events.dropped_by.queue,
        events_dropped_spool: events.dropped_by.spool,
        events_dropped_unreadable: events.dropped_by.unreadable,
        earlier_found: events.earlier.found,
        earlier_delivered: events.earlier.delivered,
        earlier_dropped: events.earlier.dropped.sum(),
        earlier_dead_letter: events.earlier.dead_letter,
        earlier_at_risk: events.earlier.at_risk,
        spool_bytes: outside.spool_bytes,
        spool_age_ms: outside.spool_age_ms,
        broken_laws,
        attached_ms: outside.attachment.attached_ms,
        uncounted_ms: outside.attachment.uncounted_ms,
        uncounted_reason: outside.attachment.uncounted_reason.clone(),
        flows_unreached: outside.flows_unreached,
        daemon_cpu_us: outside.cost.daemon_us,
        kernel_cpu_us: outside.cost.kernel_us,
        cost_percent: outside.cost_percent,
        cost_limit_percent: outside.cost_limit_percent,
        rate_halvings: streams.all_halvings(),
        limited: outside.limited.clone(),
    }
}
