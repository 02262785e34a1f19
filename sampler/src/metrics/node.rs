//! The node's own health as families. Pure.
//!
//! Input: [`NodeStatus`] and the sink's books. Output: families. Units: base units.

use sampler_event::NodeHeartbeat;

use crate::sink::{SinkState, Totals};
use crate::stage::heartbeat::FlowTotals;
use service::latency::Latency;
use service::metrics::family::{Family, Kind, Value, counter, gauge};

/// Quantiles of the daemon's own times.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// What one kernel program cost so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramCost {
    /// Name of the program.
    pub name: String,
    /// Time that it ran, ns.
    pub run_ns: u64,
    /// How often it ran.
    pub runs: u64,
}

/// State of the node, but for the sink.
#[derive(Clone, Debug, Default)]
pub struct NodeStatus {
    /// Window edges that were closed.
    pub edges: u64,
    /// Edges that were skipped by a late read.
    pub missed_edges: u64,
    /// Reads of the kernel's counters that failed.
    pub lost_reads: u64,
    /// End of the last window, Unix ms.
    pub last_end_ms: u64,
    /// How late the edges were read.
    pub lateness: Latency,
    /// How long the reads took.
    pub read: Latency,
    /// SHA-256 of the configuration in force, hexadecimal.
    pub config_sha256: String,
    /// Whether the last reload was taken, and when the configuration in force was, Unix s.
    pub reload: Option<(bool, u64)>,
    /// Cost of the kernel programs; empty where the kernel does not measure it.
    pub programs: Vec<ProgramCost>,
    /// Windows whose RTT histogram could not be read.
    pub bad_histograms: u64,
    /// The last heartbeat.
    pub heartbeat: NodeHeartbeat,
    /// The window stage's totals.
    pub flows: FlowTotals,
    /// Events handed to the sink by then.
    pub handed_over: u64,
}

/// Families of the window stage, the configuration and the process.
pub fn status_families(status: &NodeStatus) -> Vec<Family> {
    let beat = &status.heartbeat;
    let degraded = beat.streams.iter().filter(|s| !s.degraded.is_empty());
    let degraded = degraded.count();
    let build = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("kernel_mode", beat.kernel_mode.as_str()),
        ("kernel_release", beat.kernel_release.as_str()),
    ];
    let mut families = vec![
        Family::new(
            Kind::Gauge,
            "flowvitals_build_info",
            "Always 1; the labels say what runs, and on what.",
        )
        .number(&build, 1.0),
        Family::new(
            Kind::Gauge,
            "flowvitals_config_info",
            "Always 1; the label is the SHA-256 of the configuration in force.",
        )
        .number(&[("sha256", &status.config_sha256)], 1.0),
        counter(
            "flowvitals_window_edges_total",
            "Window edges closed.",
            status.edges,
        ),
        counter(
            "flowvitals_window_missed_edges_total",
            "Window edges skipped by a late read.",
            status.missed_edges,
        ),
        gauge(
            "flowvitals_window_last_end_timestamp_seconds",
            "End of the last window, Unix time.",
            status.last_end_ms as f64 / 1e3,
        ),
        counter(
            "flowvitals_lost_reads_total",
            "Reads of the kernel's counters that failed.",
            status.lost_reads,
        ),
        counter(
            "flowvitals_bad_histograms_total",
            "Windows whose RTT histogram could not be read for these metrics.",
            status.bad_histograms,
        ),
        summary(
            "flowvitals_window_lateness_seconds",
            "How late window edges were read.",
            &status.lateness,
        ),
        summary(
            "flowvitals_read_duration_seconds",
            "How long a read of the kernel's counters took.",
            &status.read,
        ),
        counter(
            "flowvitals_flows_selected_total",
            "Flows that the hash chose, all streams.",
            beat.flows_selected,
        ),
        counter(
            "flowvitals_flows_sampled_total",
            "Flows chosen and admitted, all streams.",
            beat.flows_sampled,
        ),
        counter(
            "flowvitals_flows_refused_total",
            "Flows chosen and refused at a limit, all streams.",
            beat.flows_refused,
        ),
        counter(
            "flowvitals_flows_picked_up_total",
            "Flows found open at start and taken in, all streams.",
            beat.flows_picked_up,
        ),
        gauge(
            "flowvitals_flows_unreached",
            "Flows of the sample that were open before the attach and are not followed, all network namespaces (kernel_mode no_fold: this one).",
            beat.flows_unreached as f64,
        ),
        counter(
            "flowvitals_flows_closed_total",
            "Sampled flows closed, all streams.",
            beat.flows_closed,
        ),
        gauge(
            "flowvitals_flows_open",
            "Sampled flows open, all streams.",
            beat.flows_open as f64,
        ),
        gauge(
            "flowvitals_flows_unhooked",
            "Sampled flows whose callback flags another program took away.",
            beat.flows_unhooked as f64,
        ),
        gauge(
            "flowvitals_streams_degraded",
            "Streams that are not sampled as configured; the log and the heartbeat say why.",
            degraded as f64,
        ),
        gauge(
            "flowvitals_attached_timestamp_seconds",
            "Since when the kernel side counts, Unix time; it can outlive the daemon.",
            beat.attached_ms as f64 / 1e3,
        ),
        gauge(
            "flowvitals_uncounted_seconds",
            "Time before that in which nobody counted: since the last window of the life before. The heartbeat says why.",
            beat.uncounted_ms as f64 / 1e3,
        ),
        gauge(
            "flowvitals_clock_synchronised",
            "1 if the kernel says that the wall clock is synchronised.",
            f64::from(u8::from(beat.clock_synchronised)),
        ),
        gauge(
            "flowvitals_clock_error_seconds",
            "The kernel's estimate of the error of the wall clock.",
            beat.clock_error_us as f64 / 1e6,
        ),
        Family::new(
            Kind::Counter,
            "flowvitals_process_cpu_seconds_total",
            "CPU time of the daemon, its walks and folds included.",
        )
        .number(&[], beat.daemon_cpu_us as f64 / 1e6),
        Family::new(
            Kind::Counter,
            "flowvitals_kernel_programs_cpu_seconds_total",
            "CPU time of the kernel programs in the callbacks of sockets: measured while kernel.bpf_stats_enabled is on, else estimated from what they counted.",
        )
        .number(&[], beat.kernel_cpu_us as f64 / 1e6),
        gauge(
            "flowvitals_cost_ratio",
            "CPU time of daemon and kernel programs over the last minute, as a share of one core.",
            beat.cost_percent / 100.0,
        ),
        gauge(
            "flowvitals_cost_limit_ratio",
            "What it may be ([limits] cpu_percent).",
            beat.cost_limit_percent / 100.0,
        ),
        gauge(
            "flowvitals_rate_halvings",
            "Rates of new flows are divided by 2 to this power: the flow table is near its bound, or the cost above its limit.",
            beat.rate_halvings.into(),
        ),
        gauge(
            "flowvitals_limited",
            "1 if less is sampled than configured, or nothing, because of a limit or the disable file; the heartbeat and /healthz say why.",
            f64::from(u8::from(!beat.limited.is_empty())),
        ),
        gauge(
            "flowvitals_process_resident_memory_bytes",
            "Resident memory of the daemon.",
            beat.rss_bytes as f64,
        ),
        gauge(
            "flowvitals_kernel_memory_bytes",
            "Memory of the kernel side: maps and programs.",
            beat.kernel_memory_bytes as f64,
        ),
    ];
    if let Some((taken, at_s)) = status.reload {
        let taken = f64::from(u8::from(taken));
        families.push(gauge(
            "flowvitals_config_last_reload_successful",
            "1 if the last configuration given was taken.",
            taken,
        ));
        families.push(gauge(
            "flowvitals_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was taken, Unix time.",
            at_s as f64,
        ));
    }
    families.extend(namespace_families(beat));
    families.extend(program_families(&status.programs));
    families
}

fn namespace_families(beat: &NodeHeartbeat) -> Vec<Family> {
    let mut families = [
        (
            "flowvitals_netns_tcp_retransmitted_segments_total",
            "The kernel's TcpRetransSegs of the network namespace (exact: all flows).",
        ),
        (
            "flowvitals_netns_tcp_syn_retransmits_total",
            "The kernel's TcpExtTCPSynRetrans of the network namespace (exact: all flows).",
        ),
        (
            "flowvitals_netns_tcp_out_segments_total",
            "The kernel's TcpOutSegs of the network namespace (exact: all flows).",
        ),
        (
            "flowvitals_netns_udp_out_datagrams_total",
            "UDP datagrams sent in the network namespace: traffic that is not seen.",
        ),
    ]
    .map(|(name, help)| Family::new(Kind::Counter, name, help));
    for namespace in &beat.namespaces {
        let values = [
            namespace.tcp_retrans_segs,
            namespace.tcp_syn_retrans,
            namespace.tcp_out_segs,
            namespace.udp_out_datagrams,
        ];
        for (family, value) in families.iter_mut().zip(values) {
            family.push(&[("netns", &namespace.netns)], Value::Number(value as f64));
        }
    }
    families.into()
}

fn program_families(programs: &[ProgramCost]) -> [Family; 2] {
    let mut time = Family::new(
        Kind::Counter,
        "flowvitals_bpf_run_seconds_total",
        "Run time of the kernel program; only while kernel.bpf_stats_enabled is on.",
    );
    let mut runs = Family::new(
        Kind::Counter,
        "flowvitals_bpf_runs_total",
        "Runs of the kernel program; only while kernel.bpf_stats_enabled is on.",
    );
    for program in programs {
        time.push(
            &[("program", &program.name)],
            Value::Number(program.run_ns as f64 / 1e9),
        );
        runs.push(
            &[("program", &program.name)],
            Value::Number(program.runs as f64),
        );
    }
    [time, runs]
}

/// Families of the sink.
pub fn sink_families(totals: Totals, state: &SinkState, delivery: &Latency) -> Vec<Family> {
    let is = |wanted: bool| f64::from(u8::from(wanted));
    let states = Family::new(
        Kind::Gauge,
        "flowvitals_sink_state",
        "1 for the state that the sink is in.",
    )
    .number(&[("state", "starting")], is(*state == SinkState::Starting))
    .number(&[("state", "ok")], is(*state == SinkState::Ok))
    .number(
        &[("state", "degraded")],
        is(matches!(state, SinkState::Degraded(_))),
    );
    vec![
        states,
        counter(
            "flowvitals_events_produced_total",
            "Events handed to the sink.",
            totals.produced,
        ),
        counter(
            "flowvitals_events_delivered_total",
            "Events confirmed by a broker, or written.",
            totals.delivered,
        ),
        Family::new(
            Kind::Counter,
            "flowvitals_events_dropped_total",
            "Events dropped: no room in memory (queue) or on disk (spool), or not readable there.",
        )
        .number(&[("reason", "queue")], totals.dropped_by.queue as f64)
        .number(&[("reason", "spool")], totals.dropped_by.spool as f64)
        .number(
            &[("reason", "unreadable")],
            totals.dropped_by.unreadable as f64,
        ),
        counter(
            "flowvitals_events_dead_letter_total",
            "Events that no broker would take.",
            totals.dead_letter,
        ),
        gauge(
            "flowvitals_sink_waiting_events",
            "Events in memory: queued, or sent and not confirmed.",
            totals.waiting as f64,
        ),
        gauge(
            "flowvitals_sink_queue_bytes",
            "Bytes of the events in the queue.",
            totals.queued_bytes as f64,
        ),
        counter(
            "flowvitals_sink_producer_renewals_total",
            "Kafka producers that broke and were replaced.",
            totals.renewals,
        ),
        summary(
            "flowvitals_delivery_duration_seconds",
            "Time from the window stage to the broker's confirmation.",
            delivery,
        ),
    ]
}

pub(super) fn summary(name: &'static str, help: &'static str, latency: &Latency) -> Family {
    let quantiles = QUANTILES
        .iter()
        .map(|&q| (q, latency.quantile_s(q).unwrap_or(f64::NAN)))
        .collect();
    let mut family = Family::new(Kind::Summary, name, help);
    family.push(
        &[],
        Value::Summary {
            count: latency.count(),
            sum: latency.sum_s(),
            quantiles,
        },
    );
    family
}
