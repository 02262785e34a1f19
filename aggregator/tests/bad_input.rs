//! Records that nobody of ours wrote, through all that the aggregator does with a record: nothing panics, and what does not hold to
//! the contract is refused with its reason.
//!
//! The seeds of the fuzzer (`fuzz/seeds/record`) are replayed here, so that a stable compiler covers them: the first part of a seed's
//! name is the reason for which its last record is refused, or `event`. `FLOWVITALS_SEEDS=write` writes those that are made here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aggregator::input::{Reason, Topic};
use proptest::prelude::*;
use sampler_event::{Message, NodeHeartbeat, StreamPulse, StreamState, StreamWindow};

#[path = "../../fuzz/record.rs"]
mod record;

const BEGIN_MS: u64 = 1_795_000_000_000;
const APPEND_MS: u64 = BEGIN_MS + 2_000;

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/record")
}

/// The bytes of [`record::pass`] for records.
fn input<'a>(append_ms: u64, records: impl IntoIterator<Item = (Topic, &'a [u8])>) -> Vec<u8> {
    let mut bytes = append_ms.to_le_bytes().to_vec();
    for (topic, payload) in records {
        let length = u16::try_from(payload.len()).expect("a small record");
        bytes.push(topic.index() as u8);
        bytes.extend(length.to_le_bytes());
        bytes.extend(payload);
    }
    bytes
}

fn window() -> StreamWindow {
    StreamWindow {
        node: "edge-07".into(),
        site: "ams1".into(),
        stream: "sport-1".into(),
        instance: 7,
        sequence: 1,
        window_start_ms: BEGIN_MS,
        window_ms: 1_000,
        observed_ms: 1_000,
        sampling_rate: 0.1,
        rate_epoch: 1,
        flows_active: 40,
        retrans_segs: 48,
        data_segs_out: 1_600,
        rtt_source: 1,
        rtt_count: 3,
        rtt_counts: vec![100, 1, -2, 2],
        g_retrans_segs: vec![3; 16],
        g_data_segs_out: vec![100; 16],
        ..StreamWindow::default()
    }
}

fn pulse() -> StreamPulse {
    StreamPulse {
        node: "edge-07".into(),
        site: "ams1".into(),
        stream: "sport-1".into(),
        instance: 7,
        sequence: 1,
        pulse_start_ms: BEGIN_MS + 100,
        pulse_ms: 100,
        sampling_rate: 0.1,
        rate_epoch: 1,
        retrans_segs: 5,
        data_segs_out: 160,
        g_retrans_segs: vec![1; 16],
        ..StreamPulse::default()
    }
}

fn heartbeat() -> NodeHeartbeat {
    NodeHeartbeat {
        node: "edge-07".into(),
        site: "ams1".into(),
        instance: 7,
        sequence: 1,
        window_start_ms: BEGIN_MS,
        window_ms: 1_000,
        streams: vec![StreamState {
            stream: "sport-1".into(),
            next_sequence: 2,
            sampling_rate: 0.1,
            ..StreamState::default()
        }],
        ..NodeHeartbeat::default()
    }
}

fn changed(change: impl FnOnce(&mut StreamWindow)) -> Vec<u8> {
    let mut window = window();
    change(&mut window);
    window.encode_to_vec()
}

/// The kinds of bad input, by name; good events come first, so that there is something to spoil.
fn made_here() -> BTreeMap<&'static str, Vec<u8>> {
    use Topic::{Node, Pulse, Window};
    let good = window().encode_to_vec();
    let truncated = good[..good.len() - 3].to_vec();
    let mut unknown = good.clone();
    prost::encoding::string::encode(9_002, &"newer".to_owned(), &mut unknown);
    let many = StreamState::default();
    let last = [
        ("event-window", Window, good.clone()),
        ("event-pulse", Pulse, pulse().encode_to_vec()),
        ("event-heartbeat", Node, heartbeat().encode_to_vec()),
        ("event-unknown-field", Window, unknown),
        ("event-other-epoch", Window, changed(|w| w.rate_epoch = 2)),
        (
            "event-contradicts-its-rate",
            Window,
            changed(|w| w.sampling_rate = 0.2),
        ),
        (
            "event-contradicts-its-source",
            Window,
            changed(|w| w.rtt_source = 2),
        ),
        (
            "event-ahead-a-little",
            Window,
            changed(|w| w.window_start_ms += 30_000),
        ),
        ("event-long-ago", Window, changed(|w| w.window_start_ms = 0)),
        ("event-replayed", Window, changed(|w| w.flags = u32::MAX)),
        (
            "event-all-numbers-at-their-end",
            Window,
            changed(|w| {
                (w.retrans_segs, w.data_segs_out, w.rtt_sum_us) = (u64::MAX, u64::MAX, u64::MAX);
                (w.sequence, w.flows_seen, w.flows_active) = (u64::MAX, u64::MAX, u64::MAX);
                w.g_retrans_segs = vec![u32::MAX; 16];
                w.rtt_counts = vec![641, i64::MAX];
            }),
        ),
        (
            "undecodable-garbage",
            Window,
            b"\xff\xff\xffgarbage".to_vec(),
        ),
        ("undecodable-truncated", Window, truncated),
        (
            "undecodable-other-message",
            Window,
            heartbeat().encode_to_vec(),
        ),
        ("empty", Pulse, Vec::new()),
        ("too_large-window", Window, vec![0; 16 * 1024 + 1]),
        (
            "too_large-many-streams",
            Node,
            NodeHeartbeat {
                streams: vec![many; 4_097],
                ..heartbeat()
            }
            .encode_to_vec(),
        ),
        (
            "future-window",
            Window,
            changed(|w| w.window_start_ms += 120_000),
        ),
        (
            "future-end-of-time",
            Window,
            changed(|w| w.window_start_ms = u64::MAX / 1_000 * 1_000),
        ),
        (
            "malformed-rate",
            Window,
            changed(|w| w.sampling_rate = f64::NAN),
        ),
        (
            "malformed-rate-tiny",
            Window,
            changed(|w| w.sampling_rate = f64::MIN_POSITIVE),
        ),
        ("malformed-length", Window, changed(|w| w.window_ms = 1_500)),
        (
            "malformed-groups",
            Window,
            changed(|w| w.g_retrans_segs = vec![1; 17]),
        ),
        (
            "malformed-histogram",
            Window,
            changed(|w| w.rtt_counts = vec![641, 1, 1]),
        ),
        (
            "malformed-histogram-overflow",
            Window,
            changed(|w| w.rtt_counts = vec![0, i64::MAX, i64::MAX, i64::MAX]),
        ),
        (
            "malformed-name",
            Window,
            changed(|w| w.node = "../../etc".into()),
        ),
    ];
    let before = [
        (Node, heartbeat().encode_to_vec()),
        (Window, good),
        (Pulse, pulse().encode_to_vec()),
    ];
    let made = last.iter().map(|(name, topic, payload)| {
        let before = before.iter().map(|(topic, payload)| (*topic, &payload[..]));
        let records = before.chain([(*topic, &payload[..])]);
        (*name, input(APPEND_MS, records))
    });
    made.collect()
}

#[test]
fn seeds_are_refused_for_what_they_are() {
    for (name, bytes) in made_here() {
        let path = seeds().join(name);
        if std::env::var("FLOWVITALS_SEEDS").is_ok_and(|wish| wish == "write") {
            fs::write(&path, &bytes).expect("written");
        }
        let held = fs::read(&path).unwrap_or_default();
        assert!(
            held == bytes,
            "{name} is not what is made here: FLOWVITALS_SEEDS=write"
        );
        let outcomes = record::pass(&bytes);
        let (last, before) = outcomes.split_last().expect("records");
        assert_eq!(before, [Ok(()); 3], "{name}");
        let expected = name.split('-').next().expect("a reason");
        assert_eq!(
            last.map_or_else(Reason::label, |()| "event"),
            expected,
            "{name}"
        );
    }
}

/// Among them what the fuzzer once broke something with.
#[test]
fn every_seed_passes() {
    let entries = fs::read_dir(seeds()).expect("seeds");
    let mut count = 0;
    for entry in entries {
        let bytes = fs::read(entry.expect("an entry").path()).expect("bytes");
        record::pass(&bytes);
        count += 1;
    }
    assert!(count >= made_here().len(), "{count}");
}

/// Numbers at which sums and products break.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        prop::sample::select(vec![
            0,
            1,
            2,
            15,
            1_000,
            u64::from(u32::MAX),
            1 << 53,
            u64::MAX / 2,
            u64::MAX - 1,
            u64::MAX,
        ]),
        0..100_000_u64,
        any::<u64>(),
    ]
}

fn groups() -> impl Strategy<Value = Vec<u32>> {
    let one = prop_oneof![Just(0), Just(u32::MAX), 0..1_000_u32];
    prop_oneof![Just(Vec::new()), prop::collection::vec(one, 16)]
}

fn histogram(buckets: i64) -> impl Strategy<Value = Vec<i64>> {
    let count = prop_oneof![Just(1), Just(i64::MAX / 4), 1..1_000_i64];
    let some = (0..buckets - 8, prop::collection::vec(count, 1..4))
        .prop_map(|(first, counts)| [first].into_iter().chain(counts).collect());
    prop_oneof![Just(Vec::new()), some]
}

/// Events that hold to the contract, and to nothing else.
fn any_window() -> impl Strategy<Value = StreamWindow> {
    (
        prop::collection::vec(number(), 40),
        prop::collection::vec(groups(), 6),
        (histogram(642), histogram(160), histogram(160)),
        (
            0..8_u64,
            prop::sample::select(vec![1_000_u32, 2_000, 5_000, 10_000]),
        ),
        (any::<u32>(), 0..3_u32, 0..4_i32),
        prop::sample::select(vec![0.0, f64::MIN_POSITIVE, 1e-9, 0.1, 1.0]),
        ("edge-[0-2]", "(sport|news)", 0..2_u64),
    )
        .prop_map(|(numbers, groups, histograms, time, small, rate, names)| {
            let mut numbers = numbers.into_iter();
            let mut n = move || numbers.next().unwrap_or(u64::MAX);
            let mut groups = groups.into_iter();
            let mut g = move || groups.next().unwrap_or_default();
            let length_ms = u64::from(time.1);
            StreamWindow {
                node: names.0,
                site: "ams1".into(),
                stream: names.1,
                instance: names.2,
                sequence: n(),
                window_start_ms: (BEGIN_MS / length_ms).saturating_add(time.0) * length_ms,
                window_ms: time.1,
                observed_ms: time.1,
                flags: small.0,
                rate_epoch: small.1,
                rtt_source: small.2,
                sampling_rate: rate,
                flows_seen: n(),
                flows_selected: n(),
                flows_sampled: n(),
                flows_closed: n(),
                flows_open: n(),
                flows_active: n(),
                flows_active_10s: n(),
                flows_retransmitting: n(),
                flows_stalled: n(),
                flows_silent: n(),
                bytes_sent: n(),
                bytes_acked: n(),
                bytes_retrans: n(),
                data_segs_out: n(),
                retrans_segs: n(),
                retrans_rto_segs: n(),
                retrans_fast_segs: n(),
                retrans_other_segs: n(),
                dsack_dups: n(),
                rto_count: n(),
                rtt_count: n(),
                rtt_sum_us: n(),
                rtt_min_us: n(),
                rtt_max_us: n(),
                stalls: n(),
                stalls_open: n(),
                stall_network_us: n(),
                stall_receiver_us: n(),
                stall_sender_us: n(),
                stall_other_us: n(),
                stall_longest_us: n(),
                busy_us: n(),
                lost_flows: n(),
                rtt_counts: histograms.0,
                rtt_handshake_counts: histograms.1,
                rtt_min_counts: histograms.2,
                g_retrans_segs: g(),
                g_data_segs_out: g(),
                g_stall_ms: g(),
                g_busy_ms: g(),
                g_rtt_count: g(),
                g_rtt_slow: g(),
                ..StreamWindow::default()
            }
        })
}

fn any_pulse() -> impl Strategy<Value = StreamPulse> {
    let numbers = prop::collection::vec(number(), 8);
    (numbers, groups(), 0..40_u64, "edge-[0-2]", "(sport|news)").prop_map(
        |(numbers, g_retrans_segs, tick, node, stream)| StreamPulse {
            node,
            site: "ams1".into(),
            stream,
            instance: 1,
            sequence: numbers[0],
            pulse_start_ms: BEGIN_MS + tick * 100,
            pulse_ms: 100,
            observed_ms: 100,
            sampling_rate: 0.1,
            retrans_segs: numbers[1],
            data_segs_out: numbers[2],
            rtt_count: numbers[3],
            rtt_slow: numbers[4],
            stalls_open: numbers[5],
            flows_active: numbers[6],
            g_retrans_segs,
            ..StreamPulse::default()
        },
    )
}

fn any_heartbeat() -> impl Strategy<Value = NodeHeartbeat> {
    let state = ("(sport|news|idle)", number(), any::<bool>()).prop_map(
        |(stream, next_sequence, silent)| StreamState {
            stream,
            next_sequence,
            silent,
            sampling_rate: 0.1,
            ..StreamState::default()
        },
    );
    let states = prop::collection::vec(state, 0..4);
    (states, 0..8_u64, 0..5_i32, "edge-[0-2]", 0..2_u64).prop_map(
        |(streams, second, life_cycle, node, instance)| NodeHeartbeat {
            node,
            site: "ams1".into(),
            instance,
            sequence: second,
            window_start_ms: BEGIN_MS + second * 1_000,
            window_ms: 1_000,
            life_cycle,
            streams,
            ..NodeHeartbeat::default()
        },
    )
}

fn any_record() -> impl Strategy<Value = (Topic, Vec<u8>)> {
    prop_oneof![
        4 => any_window().prop_map(|window| (Topic::Window, window.encode_to_vec())),
        2 => any_pulse().prop_map(|pulse| (Topic::Pulse, pulse.encode_to_vec())),
        2 => any_heartbeat().prop_map(|beat| (Topic::Node, beat.encode_to_vec())),
    ]
}

proptest! {
    /// Whatever the numbers are: sums, estimates, rules, detectors and rows hold.
    #[test]
    fn events_with_any_numbers_pass(
        records in prop::collection::vec(any_record(), 1..24),
        ahead_ms in 0..20_000_u64,
    ) {
        let records: Vec<_> = records.iter().map(|(topic, bytes)| (*topic, &bytes[..])).collect();
        let outcomes = record::pass(&input(APPEND_MS + ahead_ms, records));
        // No flow can have been selected at some of the rates, and some lie ahead.
        let known = [Reason::Malformed("sampling_rate"), Reason::Future].map(Err);
        let expected = |outcome: &Result<(), Reason>| outcome.is_ok() || known.contains(outcome);
        prop_assert!(outcomes.iter().all(expected), "{outcomes:?}");
    }

    /// The same, spoiled on the way.
    #[test]
    fn spoiled_records_are_refused_or_events(
        records in prop::collection::vec(any_record(), 1..6),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..12),
    ) {
        let records: Vec<_> = records.iter().map(|(topic, bytes)| (*topic, &bytes[..])).collect();
        let mut bytes = input(APPEND_MS, records);
        for (place, bit) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
        }
        record::pass(&bytes);
    }
}
