//! `top` against a real endpoint, and against things that are none.

use std::sync::Arc;
use std::time::Duration;

use sampler::metrics::{Edge, Registry, StreamSeries, bind, serve};
use sampler::sink::Ledger;
use sampler::top::{Endpoint, once};
use sampler_event::StreamWindow;
use tokio::time::Instant;

fn step(registry: &Registry, second: u64) {
    let window = StreamWindow {
        stream: "sport-1".into(),
        window_start_ms: second * 1000,
        flows_seen: 40,
        bytes_sent: 1_000_000,
        ..Default::default()
    };
    registry.observe_window(&window);
    registry.observe_edge(
        Edge {
            end_ms: (second + 1) * 1000,
            ..Edge::default()
        },
        Instant::now(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_rates_over_the_next_window() {
    let registry = Arc::new(Registry::new(
        StreamSeries::All,
        Duration::from_secs(1),
        Arc::new(Ledger::default()),
        None,
    ));
    step(&registry, 1);
    let listener = bind("127.0.0.1:0".parse().expect("address"))
        .await
        .expect("bound");
    let address = listener.local_addr().expect("address").to_string();
    let server = tokio::spawn(serve(
        listener,
        Arc::clone(&registry),
        std::future::pending(),
    ));
    let endpoint = Endpoint::new(&address).expect("url");
    let first = endpoint.scrape().await.expect("scrape");
    step(&registry, 2);
    let mut out = Vec::new();
    once(&endpoint, first, &mut out).await.expect("table");
    let text = String::from_utf8(out).expect("text");
    let row: Vec<&str> = text
        .lines()
        .last()
        .expect("row")
        .split_whitespace()
        .collect();
    assert_eq!(
        (row[0], row[2], row[4]),
        ("sport-1", "40.0", "8.00"),
        "{text}"
    );
    server.abort();
}

#[tokio::test]
async fn nothing_there_is_a_clear_error() {
    let listener = bind("127.0.0.1:0".parse().expect("address"))
        .await
        .expect("bound");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let error = Endpoint::new(&address.to_string())
        .expect("url")
        .scrape()
        .await
        .expect_err("nobody")
        .to_string();
    assert!(
        error.starts_with(&format!("http://{address}/metrics: Connection refused"))
            && error.contains("metrics.listen"),
        "{error}"
    );
}

#[tokio::test]
async fn another_server_is_told_apart() {
    let registry = Arc::new(Registry::new(
        StreamSeries::All,
        Duration::from_secs(1),
        Arc::new(Ledger::default()),
        None,
    ));
    let listener = bind("127.0.0.1:0".parse().expect("address"))
        .await
        .expect("bound");
    let address = listener.local_addr().expect("address");
    let server = tokio::spawn(serve(listener, registry, std::future::pending()));
    for (path, expected) in [("/else", "status 404"), ("/healthz", "status 503")] {
        let error = Endpoint::new(&format!("http://{address}{path}"))
            .expect("url")
            .scrape()
            .await
            .expect_err("no metrics");
        assert!(error.to_string().contains(expected), "{error}");
    }
    server.abort();
}
