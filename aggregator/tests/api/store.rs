//! Answers that reach beyond what is in memory: from an embedded store, and from both.

use std::net::SocketAddr;
use std::sync::Arc;

use aggregator::daemon::Site;
use aggregator::merge::LiveOptions;
use aggregator::store::{Embedded, Store};
use serde_json::Value;

use super::stored::{self, KEY, NEW, OLD};
use super::{BEGIN_MS, SECONDS, fixture, get, serve};

/// Seconds that are in the store and not in memory.
const BEFORE_S: u64 = 7_300;
const FROM_MS: u64 = BEGIN_MS - BEFORE_S * 1_000;
const TO_MS: u64 = BEGIN_MS + SECONDS * 1_000;
/// Retransmits of two nodes in a second.
const EACH_S: u64 = 2 * 32;

/// A site with 20 s in memory, and two hours and these 20 s in a store.
async fn site(live: bool) -> (Arc<Site>, SocketAddr, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let store: Arc<dyn Store> = Arc::new(Embedded::open(directory.path()).expect("a store"));
    stored::fill(&*store, FROM_MS..TO_MS, BEGIN_MS - 100_000).await;
    stored::fill_alerts(&*store, BEGIN_MS).await;
    let site = Site::new("ams1", LiveOptions::default()).with_store(Some(store));
    site.note_window_partitions(1);
    if live {
        for second in 0..SECONDS {
            fixture::play(&site, BEGIN_MS + second * 1_000);
        }
    }
    let (site, address) = serve(site).await;
    (site, address, directory)
}

async fn total(address: SocketAddr, query: &str) -> Value {
    let path = format!("/api/v1/streams/sport-1/total?metric=retrans_segs&{query}");
    let (status, total) = get(address, &path).await;
    assert_eq!(status, 200, "{query}: {total}");
    total
}

/// Of all flows: half of them are sampled.
fn estimate(retrans_segs: u64) -> Value {
    Value::from(2.0 * retrans_segs as f64)
}

#[tokio::test]
async fn a_total_adds_memory_to_what_is_stored() {
    let (_site, address, _directory) = site(true).await;
    for (over_s, source) in [
        (10, "memory"),
        (60, "store_and_memory"),
        (3_600, "store_and_memory"),
    ] {
        let total = total(address, &format!("over_s={over_s}")).await;
        let late = if over_s > 110 { 32 } else { 0 };
        assert_eq!(total["value"], estimate(over_s * EACH_S + late), "{over_s}");
        assert_eq!(total["source"], source, "{over_s}");
        assert_eq!(total["late_parts"], u64::from(late > 0), "{over_s}");
        assert_eq!(
            (&total["to_ms"], &total["provisional"]),
            (&TO_MS.into(), &true.into())
        );
    }
    // Whole minutes, of which the newest are not closed: their seconds.
    let total = total(address, "over_s=7200").await;
    let to_ms = TO_MS / 60_000 * 60_000;
    assert_eq!(
        (&total["to_ms"], &total["from_ms"]),
        (&to_ms.into(), &(to_ms - 7_200_000).into())
    );
    assert_eq!(total["value"], estimate(7_200 * EACH_S + 32));
}

#[tokio::test]
async fn what_is_long_over_comes_from_the_store_alone() {
    for live in [true, false] {
        let (_site, address, _directory) = site(live).await;
        let at_ms = BEGIN_MS - 60_000;
        let total = total(address, &format!("over_s=60&at_ms={at_ms}")).await;
        assert_eq!(total["value"], estimate(60 * EACH_S + 32));
        for (field, expected) in [
            ("source", Value::from("store")),
            ("late_parts", 1.into()),
            ("flows_seen", (60 * 6 + 3).into()),
            ("nodes_expected", 3.into()),
            ("nodes_reported", 2.into()),
            // A node is missing.
            ("provisional", true.into()),
            ("biased", false.into()),
        ] {
            assert_eq!(total[field], expected, "{field}");
        }
    }
}

#[tokio::test]
async fn series_add_up_to_their_total_whatever_the_steps() {
    for live in [true, false] {
        let (_site, address, _directory) = site(live).await;
        for step_ms in [1_000, 10_000, 60_000, 300_000] {
            let points = (700_000 / step_ms).min(700);
            let to_ms = BEGIN_MS / 60_000 * 60_000;
            let from_ms = to_ms - points * step_ms;
            let path = format!(
                "/api/v1/streams/sport-1/windows?from_ms={from_ms}&to_ms={to_ms}&step_ms={step_ms}"
            );
            let (status, series) = get(address, &path).await;
            assert_eq!(status, 200, "{series}");
            let windows = series["windows"].as_array().expect("a list");
            let retrans = |window: &Value| window["counters"]["retrans_segs"].as_u64();
            let sum: u64 = windows.iter().filter_map(retrans).sum();
            assert_eq!(windows.len() as u64, points, "{step_ms}");
            assert_eq!(sum, points * step_ms / 1_000 * EACH_S + 32, "{step_ms}");
            assert_eq!(
                (&series["late_parts"], &series["source"]),
                (&1.into(), &"store".into())
            );
        }
    }
}

#[tokio::test]
async fn a_series_goes_on_into_memory() {
    let (_site, address, _directory) = site(true).await;
    let path = format!(
        "/api/v1/streams/sport-1/windows?from_ms={}&to_ms={TO_MS}",
        TO_MS - 60_000
    );
    let (_, series) = get(address, &path).await;
    let windows = series["windows"].as_array().expect("a list");
    assert_eq!(
        (windows.len(), &series["source"]),
        (60, &"store_and_memory".into())
    );
    for (at, window) in (0..).zip(windows) {
        assert_eq!(window["from_ms"], TO_MS - 60_000 + at * 1_000);
        assert_eq!(window["counters"]["retrans_segs"], EACH_S);
    }
}

#[tokio::test]
async fn streams_of_the_store_are_there_without_their_nodes() {
    let (_site, address, _directory) = site(false).await;
    let (_, list) = get(address, "/api/v1/streams").await;
    assert_eq!(list["streams"][0]["stream"], "sport-1");
    assert_eq!(list["streams"][0]["nodes_expected"], Value::Null);
    let path = "/api/v1/streams/no/total?metric=retrans_segs&at_ms=1700000000000";
    let (status, unknown) = get(address, path).await;
    assert_eq!((status, &unknown["error"]), (404, &"no such stream".into()));
}

#[tokio::test]
async fn what_is_kept_no_more_is_said() {
    let (_site, address, _directory) = site(true).await;
    let old_ms = BEGIN_MS - 50 * 3_600_000;
    let days_ms = BEGIN_MS - 95 * 86_400_000;
    for (query, status, part) in [
        (
            "total?metric=retrans_segs&at_ms=0".to_owned(),
            404,
            "48 hours",
        ),
        (
            format!("total?metric=retrans_segs&at_ms={old_ms}"),
            404,
            "48 hours",
        ),
        (
            format!("total?metric=retrans_segs&over_s=60&at_ms={days_ms}"),
            404,
            "90 days",
        ),
        (
            "total?metric=retrans_segs&over_s=30001".to_owned(),
            422,
            "too long",
        ),
        (
            format!("windows?from_ms={old_ms}&to_ms={}", old_ms + 9_000),
            404,
            "48 hours",
        ),
    ] {
        let path = format!("/api/v1/streams/sport-1/{query}");
        let (got, body) = get(address, &path).await;
        let error = body["error"].as_str().unwrap_or_default();
        assert!(
            got == status && error.contains(part),
            "{query}: {got} {error}"
        );
    }
}

#[tokio::test]
async fn alerts_that_are_over_come_from_the_store_with_their_evidence() {
    let (_site, address, _directory) = site(true).await;
    let episodes = async |query: &str| {
        let (status, list) = get(address, &format!("/api/v1/alerts?{query}")).await;
        assert_eq!(status, 200, "{list}");
        let alerts = list["alerts"].as_array().expect("a list");
        let of = |alert: &Value| format!("{} {}", alert["episode_id"], alert["kind"]);
        alerts.iter().map(of).collect::<Vec<_>>()
    };
    let (old, new) = (
        format!("{OLD:?} \"resolved\""),
        format!("{NEW:?} \"fired\""),
    );
    let from_ms = BEGIN_MS - 2 * 86_400_000;
    assert_eq!(episodes("").await, [""; 0], "nobody has said anything here");
    assert_eq!(
        episodes(&format!("from_ms={from_ms}")).await,
        [new.clone(), old.clone()]
    );
    assert_eq!(
        episodes(&format!("from_ms={from_ms}&limit=1")).await,
        std::slice::from_ref(&new)
    );
    assert_eq!(
        episodes(&format!("from_ms={from_ms}&state=ok")).await,
        [old]
    );
    assert_eq!(
        episodes(&format!("from_ms={from_ms}&severity=info")).await,
        [""; 0]
    );
    assert_eq!(
        episodes(&format!("from_ms={}", BEGIN_MS - 900_000)).await,
        [new]
    );

    let path = format!("/api/v1/alerts/{}/{OLD}", KEY.replace('|', "%7C"));
    let (status, episode) = get(address, &path).await;
    assert_eq!(
        (status, &episode["source"]),
        (200, &"store".into()),
        "{episode}"
    );
    assert_eq!(episode["changes"].as_array().map(Vec::len), Some(2));
    assert_eq!(episode["changes"][0]["kind"], "fired");
    assert_eq!(
        (&episode["state"], &episode["evidence_windows"]),
        (&"ok".into(), &20.into())
    );
    assert_eq!(episode["evidence"].as_array().map(Vec::len), Some(20));
    let (_, episode) = get(address, &format!("{path}?evidence=3")).await;
    let evidence = episode["evidence"].as_array().expect("a list");
    let onset_ms = BEGIN_MS - 86_400_000 - 3_000;
    // Those nearest to the onset that the first word named.
    assert_eq!(evidence.len(), 3);
    let window = &evidence[1]["window"];
    assert_eq!(window["window_start_ms"], onset_ms);
    assert_eq!(
        (&window["node"], &window["retrans_segs"]),
        (&"edge-1".into(), &32.into())
    );
    let id = format!("edge-1/{:016x}/{}", 7, window["sequence"]);
    assert_eq!(evidence[1]["id"], id.as_str());
    let (status, _) = get(address, &path.replace(OLD, "00000000000000cc")).await;
    assert_eq!(status, 404);
}
