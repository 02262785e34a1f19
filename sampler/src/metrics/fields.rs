//! Which fields of a window become which metric. Pure.
//!
//! A new counter of the event is a new line here. Names end in their base unit and `_total`.

use sampler_event::{Flag, StreamWindow};

/// A counter of a stream: name, help, further label, how many of the window's units make one of the metric's, and which
/// field it sums.
pub struct Counter {
    pub name: &'static str,
    pub help: &'static str,
    pub label: Option<(&'static str, &'static str)>,
    pub per_unit: f64,
    pub field: fn(&StreamWindow) -> u64,
}

const fn count(name: &'static str, help: &'static str, field: fn(&StreamWindow) -> u64) -> Counter {
    Counter {
        name,
        help,
        label: None,
        per_unit: 1.0,
        field,
    }
}

const fn micros(
    name: &'static str,
    help: &'static str,
    field: fn(&StreamWindow) -> u64,
) -> Counter {
    Counter {
        name,
        help,
        label: None,
        per_unit: 1e6,
        field,
    }
}

const fn of(counter: Counter, label: &'static str, value: &'static str) -> Counter {
    Counter {
        label: Some((label, value)),
        ..counter
    }
}

/// Name of the retransmitted segments.
pub const RETRANS: &str = "flowvitals_stream_retransmitted_segments_total";
const RETRANS_HELP: &str = "Segments retransmitted by sampled flows after the handshake, by cause.";
/// Name of the stalled time.
pub const STALL: &str = "flowvitals_stream_stall_seconds_total";
const STALL_HELP: &str = "Stalled time of sampled flows, by cause.";

/// All counters; those of one name stand together.
pub const COUNTERS: [Counter; 29] = [
    count("flowvitals_stream_windows_total", "Windows sent.", |_| 1),
    count(
        "flowvitals_stream_flows_seen_total",
        "Flow handshakes completed (exact: all flows).",
        |w| w.flows_seen,
    ),
    count(
        "flowvitals_stream_flows_selected_total",
        "Flows that the hash chose.",
        |w| w.flows_selected,
    ),
    count(
        "flowvitals_stream_flows_sampled_total",
        "Flows chosen and admitted.",
        |w| w.flows_sampled,
    ),
    count(
        "flowvitals_stream_flows_closed_total",
        "Sampled flows closed.",
        |w| w.flows_closed,
    ),
    count(
        "flowvitals_stream_flows_picked_up_total",
        "Flows found open at start and taken in.",
        |w| w.flows_picked_up,
    ),
    count(
        "flowvitals_stream_sent_bytes_total",
        "Payload bytes sent by sampled flows, retransmitted ones included.",
        |w| w.bytes_sent,
    ),
    count(
        "flowvitals_stream_acked_bytes_total",
        "Payload bytes of sampled flows acknowledged by the client.",
        |w| w.bytes_acked,
    ),
    count(
        "flowvitals_stream_retransmitted_bytes_total",
        "Payload bytes sent again by sampled flows.",
        |w| w.bytes_retrans,
    ),
    count(
        "flowvitals_stream_data_segments_total",
        "Segments with payload sent by sampled flows, retransmitted ones included.",
        |w| w.data_segs_out,
    ),
    of(
        count(RETRANS, RETRANS_HELP, |w| w.retrans_rto_segs),
        "cause",
        "rto",
    ),
    of(
        count(RETRANS, RETRANS_HELP, |w| w.retrans_fast_segs),
        "cause",
        "fast",
    ),
    of(
        count(RETRANS, RETRANS_HELP, |w| w.retrans_other_segs),
        "cause",
        "other",
    ),
    count(
        "flowvitals_stream_retransmit_failed_segments_total",
        "Retransmits of sampled flows that the node failed to send.",
        |w| w.retrans_failed_segs,
    ),
    count(
        "flowvitals_stream_syn_retransmits_total",
        "SYN-ACKs sent again for sampled flows; not among the retransmitted segments.",
        |w| w.syn_retrans,
    ),
    count(
        "flowvitals_stream_rto_total",
        "Expiries of the retransmission timer of sampled flows.",
        |w| w.rto_count,
    ),
    count(
        "flowvitals_stream_dsack_duplicates_total",
        "Duplicates that clients of sampled flows reported: retransmits that were not needed.",
        |w| w.dsack_dups,
    ),
    count(
        "flowvitals_stream_stalls_total",
        "Stalls of sampled flows, counted when recognised.",
        |w| w.stalls,
    ),
    of(
        micros(STALL, STALL_HELP, |w| w.stall_network_us),
        "cause",
        "network",
    ),
    of(
        micros(STALL, STALL_HELP, |w| w.stall_receiver_us),
        "cause",
        "receiver",
    ),
    of(
        micros(STALL, STALL_HELP, |w| w.stall_sender_us),
        "cause",
        "sender",
    ),
    of(
        micros(STALL, STALL_HELP, |w| w.stall_other_us),
        "cause",
        "other",
    ),
    micros(
        "flowvitals_stream_busy_seconds_total",
        "Time in which sampled flows had data outstanding.",
        |w| w.busy_us,
    ),
    micros(
        "flowvitals_stream_rwnd_limited_seconds_total",
        "Time in which the client's receive window limited sampled flows.",
        |w| w.rwnd_limited_us,
    ),
    micros(
        "flowvitals_stream_sndbuf_limited_seconds_total",
        "Time in which the send buffer limited sampled flows.",
        |w| w.sndbuf_limited_us,
    ),
    count(
        "flowvitals_stream_rtt_slow_samples_total",
        "Round-trip samples above the stream's limit.",
        |w| w.g_rtt_slow.iter().map(|&slow| u64::from(slow)).sum(),
    ),
    count(
        "flowvitals_stream_retransmitting_flow_windows_total",
        "Sampled flows with a retransmit, counted once in every window.",
        |w| w.flows_retransmitting,
    ),
    count(
        "flowvitals_stream_stalled_flow_windows_total",
        "Sampled flows with a stall, counted once in every window.",
        |w| w.flows_stalled,
    ),
    count(
        "flowvitals_stream_late_windows_total",
        "Windows that were read late and are longer than nominal.",
        |w| u64::from(w.flags & Flag::LateRead as u32 != 0),
    ),
];

/// A gauge of a stream: name, help, and which field it shows.
pub type Gauge = (&'static str, &'static str, fn(&StreamWindow) -> u64);

pub const GAUGES: [Gauge; 5] = [
    (
        "flowvitals_stream_flows_open",
        "Sampled flows open at the end of the last window.",
        |w| w.flows_open,
    ),
    (
        "flowvitals_stream_flows_active",
        "Sampled flows with data in the last window.",
        |w| w.flows_active,
    ),
    (
        "flowvitals_stream_flows_silent",
        "Sampled flows with data waiting and no progress for the whole last window.",
        |w| w.flows_silent,
    ),
    (
        "flowvitals_stream_flows_unhooked",
        "Sampled flows whose callback flags another program took away.",
        |w| w.flows_unhooked,
    ),
    (
        "flowvitals_stream_stalls_open",
        "Stalls open at the end of the last window.",
        |w| w.stalls_open,
    ),
];
