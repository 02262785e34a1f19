//! The metrics endpoint over a real socket, held against the rules of the format and of good names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sampler::metrics::{Edge, ProgramCost, Registry, StreamSeries, bind, serve};
use sampler::sink::{Capacity, Event, Ledger, Record, queue};
use sampler::spool::{Spool, SpoolSettings};
use sampler_event::{
    Histogram, Layout, NamespaceCounters, NodeHeartbeat, StreamState, StreamWindow, codec,
};
use service::metrics::parse;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,text/plain;q=0.3";

fn window(stream: &str, start_ms: u64) -> StreamWindow {
    let mut rtt = Histogram::new(Layout::RTT);
    (1..=200).for_each(|step| rtt.record(step * 400));
    StreamWindow {
        stream: stream.to_owned(),
        window_start_ms: start_ms,
        flows_seen: 9,
        data_segs_out: 1000,
        retrans_fast_segs: 4,
        sampling_rate: 0.1,
        rtt_count: 200,
        rtt_sum_us: 8_040_000,
        rtt_counts: codec::encode(&rtt),
        ..Default::default()
    }
}

/// A spool to which nothing is written.
fn spool(ledger: &Arc<Ledger>) -> Spool {
    let place = tempfile::tempdir().expect("a directory");
    let settings = SpoolSettings {
        directory: place.path().to_path_buf(),
        max_bytes: 1 << 20,
        fsync: Duration::from_secs(1),
        instance: 1,
        resume: false,
        faults: None,
    };
    let (spool, ..) = Spool::start(settings, Arc::clone(ledger)).expect("a spool");
    spool
}

fn filled(series: StreamSeries) -> Arc<Registry> {
    let ledger = Arc::new(Ledger::default());
    let (sender, _receiver) = queue(Capacity::DEFAULT, Arc::clone(&ledger));
    let spool = spool(&ledger);
    let registry = Registry::new(series, Duration::from_secs(1), ledger, Some(spool));
    for second in 0..3 {
        for stream in ["news", "sport-1", "quo\"te"] {
            let window = window(stream, 60_000 + second * 1000);
            registry.observe_window(&window);
            sender.push(Record::of(&Event::Window(Box::new(window))));
        }
        let edge = Edge {
            lateness: Duration::from_micros(300),
            read: Duration::from_micros(80),
            end_ms: 61_000,
            ..Edge::default()
        };
        registry.observe_edge(edge, Instant::now());
    }
    registry.observe_heartbeat(&NodeHeartbeat {
        kernel_mode: "full".into(),
        namespaces: vec![NamespaceCounters {
            netns: "host".into(),
            tcp_retrans_segs: 12,
            ..Default::default()
        }],
        streams: vec![StreamState {
            stream: "news".into(),
            silent: true,
            degraded: "its cgroup is not there".into(),
            flows_open: 5,
            ..Default::default()
        }],
        ..Default::default()
    });
    registry.set_programs(vec![ProgramCost {
        name: "flow".into(),
        run_ns: 2_000_000_000,
        runs: 10,
    }]);
    registry.config_taken(
        &[0xab; 32],
        Duration::from_secs(1),
        &["news", "sport-1", "quo\"te"],
        1_790_000_000,
    );
    Arc::new(registry)
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// One request over a socket of its own, without a client library between.
async fn get(registry: &Arc<Registry>, path: &str, accept: &str) -> Answer {
    let listener = bind("127.0.0.1:0".parse().expect("address"))
        .await
        .expect("bound");
    let address = listener.local_addr().expect("address");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, Arc::clone(registry), async move {
        let _ = stopped.await;
    }));
    let mut socket = TcpStream::connect(address).await.expect("connected");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.expect("answer");
    stop.send(()).expect("server");
    server.await.expect("server").expect("served");
    let split = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8(bytes[..split].to_vec()).expect("text");
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .expect("status");
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(key, value)| (key.to_lowercase(), value.to_owned()))
        .collect();
    Answer {
        status,
        headers,
        body: bytes[split + 4..].to_vec(),
    }
}

#[tokio::test]
async fn text_follows_the_format_and_the_rules_of_names() {
    let answer = get(&filled(StreamSeries::All), "/metrics", "text/plain").await;
    assert_eq!(
        (answer.status, answer.headers["content-type"].as_str()),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    let parsed = parse(std::str::from_utf8(&answer.body).expect("text")).expect("strict format");
    let mut seen = BTreeSet::new();
    for sample in &parsed.samples {
        assert!(
            seen.insert((sample.name.clone(), sample.labels.clone())),
            "{sample:?} twice"
        );
    }
    for (name, kind) in &parsed.kinds {
        assert!(
            name.starts_with("flowvitals_")
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
            "{name}"
        );
        assert_eq!(
            name.ends_with("_total"),
            kind == "counter",
            "{name} is a {kind}"
        );
        let help = parsed.helps.get(name).expect("every family has a help");
        assert!(help.ends_with('.') && help.len() > 10, "{name}: {help}");
        for unit in [
            "_ms",
            "_us",
            "_ns",
            "_milliseconds",
            "_kb",
            "_percent",
            "_count",
            "_sum",
            "_bucket",
        ] {
            assert!(
                !name.trim_end_matches("_total").ends_with(unit),
                "{name} is not in base units, or ends like a part of a histogram"
            );
        }
    }
    let labels: BTreeSet<&str> = parsed
        .samples
        .iter()
        .flat_map(|sample| sample.labels.keys().map(String::as_str))
        .collect();
    let known = [
        "cause",
        "fate",
        "kernel_mode",
        "kernel_release",
        "law",
        "le",
        "netns",
        "program",
        "quantile",
        "reason",
        "sha256",
        "state",
        "stream",
        "version",
    ];
    assert_eq!(labels, BTreeSet::from(known));
    for (name, kind) in parsed.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
        for stream in ["news", "sport-1", "quo\"te"] {
            let of = |suffix: &str| {
                let wanted = format!("{name}{suffix}");
                parsed
                    .samples
                    .iter()
                    .filter(|sample| sample.name == wanted && sample.labels["stream"] == stream)
                    .cloned()
                    .collect::<Vec<_>>()
            };
            let buckets = of("_bucket");
            assert!(
                buckets
                    .windows(2)
                    .all(|pair| pair[0].value <= pair[1].value),
                "{kind} {name} goes down"
            );
            let bound = |sample: &str| sample.replace("+Inf", "inf").parse::<f64>().expect("bound");
            assert!(
                buckets
                    .windows(2)
                    .all(|pair| bound(&pair[0].labels["le"]) < bound(&pair[1].labels["le"]))
            );
            let last = buckets.last().expect("buckets");
            assert_eq!(
                (last.labels["le"].as_str(), last.value),
                ("+Inf", of("_count")[0].value)
            );
            assert_eq!(last.value, 600.0);
            assert!((of("_sum")[0].value - 24.12).abs() < 1e-9);
        }
    }
}

#[tokio::test]
async fn values_are_those_that_were_observed() {
    let answer = get(&filled(StreamSeries::All), "/metrics", "*/*").await;
    let parsed = parse(std::str::from_utf8(&answer.body).expect("text")).expect("format");
    let stream = |name: &str, stream: &str| {
        parsed
            .named(name)
            .find(|sample| sample.labels["stream"] == stream)
            .map(|sample| sample.value)
    };
    assert_eq!(
        stream("flowvitals_stream_flows_seen_total", "sport-1"),
        Some(27.0)
    );
    assert_eq!(stream("flowvitals_stream_flows_open", "news"), Some(5.0));
    let fast = parsed
        .named("flowvitals_stream_retransmitted_segments_total")
        .find(|sample| sample.labels["cause"] == "fast");
    assert_eq!(fast.map(|sample| sample.value), Some(12.0));
    for (name, expected) in [
        ("flowvitals_window_edges_total", 3.0),
        ("flowvitals_streams_degraded", 1.0),
        ("flowvitals_events_produced_total", 9.0),
        ("flowvitals_sink_waiting_events", 9.0),
        ("flowvitals_netns_tcp_retransmitted_segments_total", 12.0),
        ("flowvitals_bpf_run_seconds_total", 2.0),
        (
            "flowvitals_config_last_reload_success_timestamp_seconds",
            1_790_000_000.0,
        ),
        ("flowvitals_window_lateness_seconds_count", 3.0),
    ] {
        assert_eq!(parsed.value(name), Some(expected), "{name}");
    }
    let config = parsed
        .named("flowvitals_config_info")
        .next()
        .expect("config");
    assert_eq!(config.labels["sha256"], "ab".repeat(32));
}

#[tokio::test]
async fn protobuf_only_when_it_is_asked_for() {
    let registry = filled(StreamSeries::All);
    let answer = get(&registry, "/metrics", PROTOBUF).await;
    assert_eq!(
        answer.headers["content-type"],
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
    );
    // Each message behind its length, a varint: the lengths must add up to the body.
    let (mut rest, mut families) = (answer.body.as_slice(), 0);
    while !rest.is_empty() {
        let length = prost::decode_length_delimiter(rest).expect("length");
        let behind = prost::length_delimiter_len(length);
        assert!(rest.len() >= behind + length);
        rest = &rest[behind + length..];
        families += 1;
    }
    let text = get(&registry, "/metrics", "text/plain").await;
    let parsed = parse(std::str::from_utf8(&text.body).expect("text")).expect("format");
    assert_eq!(families, parsed.kinds.len());
}

#[tokio::test]
async fn streams_are_bounded_as_asked() {
    for (series, expected) in [
        (StreamSeries::Top(2), 2),
        (StreamSeries::Off, 0),
        (StreamSeries::All, 3),
    ] {
        let answer = get(&filled(series), "/metrics", "").await;
        let parsed = parse(std::str::from_utf8(&answer.body).expect("text")).expect("format");
        let streams: BTreeSet<&String> = parsed
            .samples
            .iter()
            .filter_map(|sample| sample.labels.get("stream"))
            .collect();
        assert_eq!(streams.len(), expected, "{series:?}");
        assert!(
            parsed.value("flowvitals_window_edges_total").is_some(),
            "node health is always there"
        );
    }
}

#[tokio::test]
async fn a_reload_is_told_and_forgets_streams_that_are_gone() {
    let registry = filled(StreamSeries::All);
    registry.config_refused();
    let parsed =
        |answer: Answer| parse(std::str::from_utf8(&answer.body).expect("text")).expect("format");
    let refused = parsed(get(&registry, "/metrics", "").await);
    assert_eq!(
        refused.value("flowvitals_config_last_reload_successful"),
        Some(0.0)
    );
    assert_eq!(
        refused.value("flowvitals_config_last_reload_success_timestamp_seconds"),
        Some(1_790_000_000.0)
    );
    registry.config_taken(&[1], Duration::from_secs(2), &["news"], 1_790_000_100);
    let taken = parsed(get(&registry, "/metrics", "").await);
    assert_eq!(
        taken.value("flowvitals_config_last_reload_successful"),
        Some(1.0)
    );
    assert_eq!(taken.named("flowvitals_stream_windows_total").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn health_says_why_not() {
    let registry = Registry::new(
        StreamSeries::Off,
        Duration::from_secs(1),
        Arc::new(Ledger::default()),
        None,
    );
    assert_eq!(
        registry.health(Instant::now()),
        Err("no window was closed yet".to_owned())
    );
    registry.observe_edge(Edge::default(), Instant::now());
    tokio::time::advance(Duration::from_secs(8)).await;
    assert!(registry.health(Instant::now()).is_ok());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(
        registry.health(Instant::now()),
        Err("no window was closed for 9 s".to_owned())
    );
}

#[tokio::test]
async fn healthz_answers_with_the_right_status() {
    let fresh = Arc::new(Registry::new(
        StreamSeries::Off,
        Duration::from_secs(1),
        Arc::new(Ledger::default()),
        None,
    ));
    let answer = get(&fresh, "/healthz", "").await;
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (503, b"no window was closed yet\n".as_slice())
    );
    let answer = get(&filled(StreamSeries::Off), "/healthz", "").await;
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, b"windows flow; sink: starting\n".as_slice())
    );
    assert_eq!(get(&fresh, "/else", "").await.status, 404);
}

#[tokio::test]
async fn a_taken_port_is_an_error_with_the_option() {
    let first = bind("127.0.0.1:0".parse().expect("address"))
        .await
        .expect("bound");
    let error = bind(first.local_addr().expect("address"))
        .await
        .expect_err("taken")
        .to_string();
    assert!(
        error.starts_with("metrics.listen: cannot listen on 127.0.0.1:"),
        "{error}"
    );
}
