//! How large rows are on the disk and how fast they are written: the numbers of deploy/cassandra/README.md.

use std::time::Instant;

use aggregator::merge::Presence;
use aggregator::rollup::{Begin, Options, Partition};
use aggregator::store::cassandra::{Settings, apply_schema};
use aggregator::store::{Batch, Store};

use super::events::{BEGIN_MS, DAY_MS, window};
use super::server::Server;
use super::{TOPIC, store};

const NODES: u64 = 100;
const STREAMS: u64 = 4;
const SECONDS: u64 = 63;
/// The same minute on so many days.
const DAYS: u64 = 10;
/// Of a site at the planned envelope: streams, each of them active on every node.
const SITE_STREAMS: f64 = 200.0;

/// `cargo test --release -p aggregator --test cassandra -- --ignored --nocapture size`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn size_of_rows_and_speed_of_writes() {
    let Some(mut server) = Server::plain(1) else {
        return;
    };
    let config = server.config();
    let settings = Settings::of(&config).expect("settings");
    apply_schema(&settings, 1).await.expect("applied");
    let store = store(&config);
    store.ping().await.expect("it answers");
    let whole = rows();
    let begin = Instant::now();
    for day in 0..DAYS {
        store.write(&later(&whole, day)).await.expect("written");
    }
    let (count, took) = (whole.rows() as u64 * DAYS, begin.elapsed());
    let per_s = count as f64 / took.as_secs_f64();
    println!(
        "{count} rows in {took:?}: {per_s:.0} rows/s, {} at a time",
        settings.in_flight
    );
    let bytes = server.table_bytes();
    let nodes_per_s = SITE_STREAMS * NODES as f64 / 60.0;
    for (table, rows, per_s) in [
        ("stream_second", whole.seconds.len(), SITE_STREAMS),
        ("stream_minute", whole.minutes.len(), SITE_STREAMS / 60.0),
        ("node_minute", whole.node_minutes.len(), nodes_per_s),
    ] {
        let rows = rows as u64 * DAYS;
        let each = bytes[table] as f64 / rows as f64;
        let day = per_s * DAY_MS as f64 / 1_000.0;
        let gb = each * day / 1e9;
        println!(
            "{table}: {rows} rows, {each:.0} bytes each; a site's day: {day:.0} rows, {gb:.2} GB"
        );
    }
}

/// A minute of some streams, each active on every node.
fn rows() -> Batch {
    let mut partition = Partition::new(TOPIC, 0, Begin::Log, Options { lateness_ms: 2_000 });
    let mut offset = 0;
    // A whole minute, then as much as closes it.
    for second in 20..=20 + SECONDS {
        for (stream, node) in (0..STREAMS).flat_map(|s| (0..NODES).map(move |n| (s, n))) {
            let random = (second * STREAMS + stream) * NODES + node;
            let mut one = window("sport", "edge", random);
            one.node = format!("edge-{node:02}");
            one.stream = format!("sport-{stream}");
            one.window_start_ms = BEGIN_MS + second * 1_000;
            one.sequence = second;
            partition.take(&one, offset, one.window_start_ms + 1_050);
            offset += 1;
        }
    }
    partition.take_rows(|_, _| Presence {
        expected: NODES,
        reported: NODES,
    })
}

/// The same some days later.
fn later(whole: &Batch, days: u64) -> Batch {
    let mut batch = whole.clone();
    let shift_ms = days * DAY_MS;
    for row in batch.seconds.iter_mut().chain(&mut batch.minutes) {
        row.window_start_ms += shift_ms;
        row.version_us += shift_ms * 1_000;
    }
    for row in &mut batch.node_minutes {
        row.window_start_ms += shift_ms;
        row.version_us += shift_ms * 1_000;
    }
    batch
}
