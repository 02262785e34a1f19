//! The HTTP interface over a site of two nodes, as a client sees it.

mod access;
#[path = "../fixture/site.rs"]
mod fixture;
mod limits;
mod store;
#[path = "../fixture/stored.rs"]
mod stored;

use std::collections::BTreeSet;
use std::sync::Arc;

use aggregator::api;
use aggregator::daemon::Site;
use aggregator::merge::LiveOptions;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BEGIN_MS: u64 = 1_700_000_000_000;
const SECONDS: u64 = 20;

/// A site with 20 s of two nodes, served on a port of its own.
async fn site() -> (Arc<Site>, std::net::SocketAddr) {
    let site = Site::new("ams1", LiveOptions::default());
    for second in 0..SECONDS {
        fixture::play(&site, BEGIN_MS + second * 1_000);
    }
    serve(site).await
}

async fn serve(site: Site) -> (Arc<Site>, std::net::SocketAddr) {
    let site = Arc::new(site);
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
    let answer = whole(address, method, path).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// Its status alone: what is answered may never end.
async fn status_of(address: std::net::SocketAddr, path: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.expect("a head");
    let status = std::str::from_utf8(&head[9..]).ok();
    let status = status.and_then(|status| status.parse().ok());
    status.expect("a status")
}

/// The answer with its head.
async fn whole(address: std::net::SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
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
            "from 1 to 604800",
        ),
        (
            format!("{base}/total?metric=retrans_segs&over_s=604801"),
            400,
            "from 1 to 604800",
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
            422,
            "not after",
        ),
        (
            format!("{base}/windows?from_ms=0&to_ms={BEGIN_MS}"),
            422,
            "more than 1000 points",
        ),
        (
            "/api/v1/streams/x/windows".to_owned(),
            404,
            "no such stream",
        ),
        ("/api/v2".to_owned(), 404, "no such path"),
        ("/api/v1/streams?x=1".to_owned(), 400, "there are none here"),
        (
            format!("{base}/total?metric=retrans_segs&over_s=%2B5"),
            400,
            "not a whole number",
        ),
        ("/api/v1/streams/%FF/windows".to_owned(), 400, "UTF-8"),
        (
            "/api/v1/streams/%00/windows".to_owned(),
            400,
            "characters of A-Z",
        ),
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

/// One place says what there is: whatever the document names is there, and the router has nothing else.
#[tokio::test]
async fn the_document_and_the_router_have_the_same_paths() {
    let (site, address) = site().await;
    let (status, document) = get(address, "/openapi.json").await;
    assert_eq!((status, &document["openapi"]), (200, &"3.1.0".into()));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let paths = document["paths"].as_object().expect("paths");
    // The fallback is a route of "/" too: whether there is another does not show.
    let named: BTreeSet<_> = paths.keys().filter(|path| *path != "/").cloned().collect();
    // What the router holds shows in its debug text only: `RouteId(0): "/healthz"`.
    let router = format!("{:?}", api::router(site));
    let held: BTreeSet<_> = router
        .split("RouteId(")
        .filter_map(|part| part.split_once("): \"")?.1.split_once('"'))
        .filter(|(path, _)| path.len() > 1 && !path.contains("__private"))
        .map(|(path, _)| path.to_owned())
        .collect();
    assert_eq!(named, held);
    for (path, item) in paths {
        let asked = path.replace("{stream}", "sport-1");
        assert_ne!(status_of(address, &asked).await, 404, "{path}");
        let responses = item["get"]["responses"].as_object().expect("responses");
        for status in ["200", "400", "401", "503"] {
            assert!(responses.contains_key(status), "{path} {status}");
        }
    }
}

/// Every reference of the document leads somewhere, and parameters have the ranges by which they are checked.
#[tokio::test]
async fn the_document_holds_together() {
    let (_site, address) = site().await;
    let (_, document) = get(address, "/openapi.json").await;
    let text = document.to_string();
    let references = text.split("\"$ref\":\"#").skip(1);
    let mut found = BTreeSet::new();
    for reference in references {
        let pointer = reference.split('"').next().expect("its end");
        assert!(document.pointer(pointer).is_some(), "{pointer}");
        found.insert(pointer);
    }
    for schema in [
        "Total",
        "Answer",
        "Series",
        "Point",
        "StreamList",
        "ErrorBody",
    ] {
        let pointer = format!("/components/schemas/{schema}");
        assert!(found.contains(pointer.as_str()), "{schema}");
    }
    let total = &document["paths"]["/api/v1/streams/{stream}/total"]["get"];
    let parameters = total["parameters"].as_array().expect("a list");
    let over_s = parameters.iter().find(|one| one["name"] == "over_s");
    let schema = &over_s.expect("over_s")["schema"];
    assert_eq!(
        (&schema["minimum"], &schema["maximum"], &schema["default"]),
        (&1.into(), &604_800.into(), &10.into())
    );
    let counters = &document["components"]["schemas"]["Point"]["properties"]["counters"];
    assert!(
        counters["properties"]["retrans_segs"].is_object(),
        "{counters}"
    );
}

#[tokio::test]
async fn only_get_is_answered_and_that_is_said() {
    let (_site, address) = site().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let whole = whole(address, method, "/api/v1/streams").await;
        assert!(whole.starts_with("HTTP/1.1 405 "), "{whole}");
        assert!(whole.contains("\r\nallow: GET,HEAD\r\n"), "{whole}");
    }
}
