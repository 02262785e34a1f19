//! The HTTP interface over a site of two nodes, as a client sees it.

use std::sync::Arc;

use aggregator::api;
use aggregator::daemon::Site;
use aggregator::merge::LiveOptions;
use sampler_event::{Event, LifeCycle, NodeHeartbeat, StreamState, StreamWindow};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BEGIN_MS: u64 = 1_700_000_000_000;
const SECONDS: u64 = 20;

fn window(node: &str, start_ms: u64) -> StreamWindow {
    StreamWindow {
        node: node.to_owned(),
        stream: "sport-1".to_owned(),
        instance: 7,
        window_start_ms: start_ms,
        window_ms: 1_000,
        observed_ms: 1_000,
        sampling_rate: 0.5,
        rate_epoch: 1,
        flows_seen: 3,
        flows_active: 50,
        flows_active_10s: 50,
        flows_open: 50,
        retrans_segs: 32,
        data_segs_out: 1_600,
        g_retrans_segs: vec![2; 16],
        g_data_segs_out: vec![100; 16],
        ..StreamWindow::default()
    }
}

fn heartbeat(node: &str, start_ms: u64) -> NodeHeartbeat {
    let stream = |name: &str, degraded: &str| StreamState {
        stream: name.to_owned(),
        degraded: degraded.to_owned(),
        ..StreamState::default()
    };
    NodeHeartbeat {
        node: node.to_owned(),
        instance: 7,
        window_start_ms: start_ms,
        window_ms: 1_000,
        life_cycle: LifeCycle::Run.into(),
        streams: vec![
            stream("sport-1", ""),
            stream("news", "cgroup /x is not there"),
        ],
        ..NodeHeartbeat::default()
    }
}

/// A site with 20 s of two nodes, served on a port of its own.
async fn site() -> (Arc<Site>, std::net::SocketAddr) {
    let site = Arc::new(Site::new("ams1", LiveOptions::default()));
    for second in 0..SECONDS {
        let start_ms = BEGIN_MS + second * 1_000;
        let events = ["edge-1", "edge-2"].into_iter().flat_map(|node| {
            [
                Event::Window(Box::new(window(node, start_ms))),
                Event::Node(Box::new(heartbeat(node, start_ms))),
            ]
        });
        site.take(events.map(|event| (event, 0, start_ms + 1_040)));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(api::serve(
        listener,
        Arc::clone(&site),
        std::future::pending(),
    ));
    (site, address)
}

async fn ask(address: std::net::SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    (status.expect("a status"), body.to_owned())
}

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, Value) {
    let (status, body) = ask(address, "GET", path).await;
    (status, serde_json::from_str(&body).expect("JSON"))
}

#[tokio::test]
async fn totals_travel_whole() {
    let (_site, address) = site().await;
    let at_ms = BEGIN_MS + 15_000;
    let path = format!("/api/v1/streams/sport-1/total?metric=retrans_segs&over_s=10&at_ms={at_ms}");
    let (status, total) = get(address, &path).await;
    assert_eq!(status, 200, "{total}");
    // 10 windows of two nodes, 32 segments each, at a rate of 0.5.
    assert_eq!(total["value"], 1280.0);
    let (low, high) = (total["low"].as_f64(), total["high"].as_f64());
    assert!(low <= Some(1280.0) && Some(1280.0) <= high, "{total}");
    for (field, expected) in [
        ("confidence", Value::from(0.95)),
        ("from_ms", (at_ms - 10_000).into()),
        ("to_ms", at_ms.into()),
        ("flows_sampled", 100.into()),
        ("flows_seen", 60.into()),
        ("nodes_expected", 2.into()),
        ("nodes_reported", 2.into()),
        ("provisional", false.into()),
        ("biased", false.into()),
    ] {
        assert_eq!(total[field], expected, "{field}");
    }
    // Without a time: the last ten seconds, not yet past the watermark.
    let (_, now) = get(
        address,
        "/api/v1/streams/sport-1/total?metric=retrans_ratio",
    )
    .await;
    assert_eq!(
        (&now["to_ms"], &now["provisional"]),
        (&(BEGIN_MS + 20_000).into(), &true.into())
    );
    assert_eq!(now["value"], 0.02);
}

#[tokio::test]
async fn a_silent_stream_is_insufficient_and_an_unknown_one_not_found() {
    let (_site, address) = site().await;
    let (status, silent) = get(address, "/api/v1/streams/news/total?metric=retrans_segs").await;
    assert_eq!((status, &silent["value"]), (200, &Value::Null));
    assert_eq!(silent["reason"], "insufficient");
    let (status, unknown) = get(address, "/api/v1/streams/no/total?metric=retrans_segs").await;
    assert_eq!((status, &unknown["error"]), (404, &"no such stream".into()));
}

#[tokio::test]
async fn series_are_sums_in_steps() {
    let (_site, address) = site().await;
    let (from_ms, to_ms) = (BEGIN_MS, BEGIN_MS + 20_000);
    let path =
        format!("/api/v1/streams/sport-1/windows?from_ms={from_ms}&to_ms={to_ms}&step_ms=5000");
    let (status, series) = get(address, &path).await;
    assert_eq!(status, 200, "{series}");
    let windows = series["windows"].as_array().expect("a list");
    assert_eq!(windows.len(), 4);
    for (at, window) in windows.iter().enumerate() {
        assert_eq!(window["from_ms"], from_ms + at as u64 * 5_000);
        assert_eq!(window["counters"]["retrans_segs"], 5 * 2 * 32);
        assert_eq!(window["flows_open"], 100);
    }
}

#[tokio::test]
async fn streams_say_who_reports_them_and_what_is_wrong() {
    let (_site, address) = site().await;
    let (_, list) = get(address, "/api/v1/streams").await;
    assert_eq!(list["site"], "ams1");
    let streams = list["streams"].as_array().expect("a list");
    let names: Vec<_> = streams.iter().map(|s| s["stream"].clone()).collect();
    assert_eq!(names, ["news", "sport-1"]);
    assert_eq!(
        streams[0]["degraded"][0]["reason"],
        "cgroup /x is not there"
    );
    assert_eq!(
        (&streams[1]["nodes_expected"], &streams[1]["nodes_reported"]),
        (&2.into(), &2.into())
    );
}

#[tokio::test]
async fn what_is_asked_wrongly_is_said() {
    let (_site, address) = site().await;
    let base = "/api/v1/streams/sport-1";
    for (path, status, part) in [
        (format!("{base}/total"), 400, "metric is missing"),
        (
            format!("{base}/total?metric=x"),
            400,
            "is none of retrans_segs",
        ),
        (
            format!("{base}/total?metric=retrans_segs&over_s=0"),
            400,
            "from 1 to 120",
        ),
        (
            format!("{base}/total?metric=retrans_segs&over_s=121"),
            400,
            "from 1 to 120",
        ),
        (
            format!("{base}/total?metric=retrans_segs&at_ms=-1"),
            400,
            "not a whole number",
        ),
        (
            format!("{base}/total?metric=retrans_segs&metric=x"),
            400,
            "given twice",
        ),
        (
            format!("{base}/total?metric=retrans_segs&x=1"),
            400,
            "unknown parameter",
        ),
        (
            format!("{base}/total?metric=retrans_segs&at_ms=5"),
            404,
            "lies before",
        ),
        (
            format!("{base}/windows?step_ms=1500"),
            400,
            "multiple of 1000",
        ),
        (
            format!("{base}/windows?from_ms=9000&to_ms=9000"),
            400,
            "not after",
        ),
        (
            format!("{base}/windows?from_ms=0&to_ms={BEGIN_MS}"),
            400,
            "more than 1000 points",
        ),
        (
            "/api/v1/streams/x/windows".to_owned(),
            404,
            "no such stream",
        ),
        ("/api/v2".to_owned(), 404, "no such path"),
    ] {
        let (got, body) = get(address, &path).await;
        assert_eq!(got, status, "{path}: {body}");
        let error = body["error"].as_str().expect("an error");
        assert!(error.contains(part), "{path}: {error}");
    }
    let (status, body) = ask(address, "POST", "/api/v1/streams").await;
    assert_eq!(status, 405, "{body}");
}

#[tokio::test]
async fn health_and_metrics_are_there() {
    let (_site, address) = site().await;
    let (status, body) = ask(address, "GET", "/healthz").await;
    assert_eq!((status, body.as_str()), (200, "ok\n"));
    let (_, metrics) = ask(address, "GET", "/metrics").await;
    let parsed = service::metrics::parse(&metrics).expect("an exposition");
    let value = |name: &str| {
        let sample = parsed.samples.iter().find(|s| s.name == name);
        sample.map(|s| s.value)
    };
    assert_eq!(value("flowvitals_aggregator_windows_total"), Some(40.0));
    assert_eq!(value("flowvitals_aggregator_nodes"), Some(2.0));
    assert_eq!(value("flowvitals_aggregator_sums"), Some(20.0));
}
