//! The heartbeat: that the node lives, what it lost, and how its sample compares with the
//! kernel's own totals.

use sampler_event::{LifeCycle, NamespaceCounters, NodeHeartbeat, StreamState};

use super::{
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
    /// Its release.
    pub kernel_release: String,
    /// Events that a broker confirmed.
    pub events_delivered: u64,
    /// Events dropped for want of room.
    pub events_dropped: u64,
    /// Events that no broker would take.
    pub dead_letter: u64,
    /// By stream: dropped events and dead letters.
    pub lost_by_stream: Vec<(String, u64, u64)>,
    /// The wall clock is synchronised.
    pub clock_synchronised: bool,
    /// Its error as the kernel estimates it.
    pub clock_error_us: u64,
    /// The kernel's totals of the watched namespaces.
    pub namespaces: Vec<NamespaceCounters>,
    /// CPU time of daemon and programs.
    pub cpu_us_total: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Memory of maps.
    pub kernel_memory_bytes: u64,
    /// Run time and runs of the programs, if the kernel measures them.
    pub bpf: Option<(u64, u64)>,
}

/// Totals over the life of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Chosen by the hash.
    pub flows_selected: u64,
    /// Admitted.
    pub flows_sampled: u64,
    /// Refused at a bound.
    pub flows_refused: u64,
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
}

impl Ledger {
    /// Takes in an event of the window that [`Ledger::begin_window`] began.
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

    /// The laws that hold at every window edge, by the names of what must be equal.
    pub fn laws(&self) -> [(&'static str, bool); 2] {
        [
            (
                "flows_selected = flows_sampled + flows_refused",
                self.flows_selected == self.flows_sampled + self.flows_refused,
            ),
            (
                "flows_sampled + flows_picked_up = flows_closed + flows_open",
                self.flows_sampled + self.flows_picked_up == self.flows_closed + self.flows_open,
            ),
        ]
    }
}

/// The heartbeat of a window; `spoke`: streams that sent a window event in it.
pub fn close(
    identity: &Identity,
    frame: &Frame,
    life_cycle: LifeCycle,
    streams: &Streams,
    spoke: &[bool],
    ledger: &mut Ledger,
    outside: &Outside,
) -> NodeHeartbeat {
    ledger.clock_step_ms += frame.closed.clock_step_ms;
    ledger.events_produced += 1;
    ledger.flows_refused = streams.streams().iter().map(|s| s.lost_flows).sum();
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
        events_delivered: outside.events_delivered,
        events_dropped: outside.events_dropped,
        dead_letter: outside.dead_letter,
        clock_synchronised: outside.clock_synchronised,
        clock_error_us: outside.clock_error_us,
        clock_step_ms: ledger.clock_step_ms,
        namespaces: outside.namespaces.clone(),
        cpu_us_total: outside.cpu_us_total,
        rss_bytes: outside.rss_bytes,
        kernel_memory_bytes: outside.kernel_memory_bytes,
        bpf_run_ns: outside.bpf.map(|b| b.0),
        bpf_run_count: outside.bpf.map(|b| b.1),
    }
}
