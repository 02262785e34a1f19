use sampler_event::StreamWindow;

use super::*;
use crate::store::testing::BEGIN_MS;
use crate::store::{Part, Sums};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

fn row(stream: &str, start_ms: u64, part: Part, version_us: u64) -> Row {
    let window = StreamWindow {
        retrans_segs: version_us,
        ..StreamWindow::default()
    };
    Row {
        stream: stream.to_owned(),
        window_start_ms: start_ms,
        part,
        version_us,
        provisional: false,
        nodes_expected: 3,
        nodes_reported: 2,
        sums: Sums::of(&window),
    }
}

fn late(sequence: u64) -> Part {
    Part::Late {
        node: "edge-1".to_owned(),
        instance: 0xab,
        sequence,
    }
}

fn seconds(rows: Vec<Row>) -> Batch {
    Batch {
        seconds: rows,
        ..Batch::default()
    }
}

struct Opened {
    store: Embedded,
    directory: tempfile::TempDir,
}

impl Opened {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self {
            store: Embedded::open(directory.path()).expect("a store"),
            directory,
        }
    }

    /// Closes it and opens it again.
    fn again(self) -> Self {
        let Self { store, directory } = self;
        drop(store);
        Self {
            store: Embedded::open(directory.path()).expect("a store"),
            directory,
        }
    }
}

#[tokio::test]
async fn rows_come_by_stream_and_span_also_after_a_restart() {
    let opened = Opened::new();
    let closed = Part::closed(1_000);
    let rows = [
        row("sport", BEGIN_MS, closed.clone(), 5),
        row("sport", BEGIN_MS, late(9), 6),
        row("sport", BEGIN_MS + 1_000, Part::closed(5_000), 7),
        row("sport", BEGIN_MS + HOUR_MS, closed.clone(), 8),
        row("sport2", BEGIN_MS, closed.clone(), 9),
    ];
    let batch = seconds(rows.to_vec());
    opened.store.write(&batch).await.expect("written");
    opened.store.write(&batch).await.expect("again");
    let Opened { store, directory } = opened.again();
    let read = |from_ms, to_ms| {
        let store = store.clone();
        async move { store.seconds("sport", from_ms, to_ms).await.expect("read") }
    };
    assert_eq!(read(0, BEGIN_MS).await, []);
    assert_eq!(read(BEGIN_MS, BEGIN_MS + 1_000).await, rows[..2]);
    assert_eq!(read(BEGIN_MS, BEGIN_MS + HOUR_MS + 1).await, rows[..4]);
    assert_eq!(read(BEGIN_MS + 1, BEGIN_MS + HOUR_MS).await, rows[2..3]);
    let streams = store.streams(BEGIN_MS).await.expect("read");
    assert_eq!(streams, ["sport", "sport2"]);
    assert_eq!(store.streams(BEGIN_MS + 2 * DAY_MS).await, Ok(Vec::new()));
    assert!(store.bytes().is_some_and(|bytes| bytes > 0));
    drop(directory);
}

#[tokio::test]
async fn an_older_write_takes_no_newer_ones_place() {
    let Opened { store, directory } = Opened::new();
    let write = |version_us| {
        let store = store.clone();
        async move {
            let checkpoint = Checkpoint {
                topic: "t".to_owned(),
                partition: 3,
                position: version_us as i64,
                version_us,
                ..Checkpoint::default()
            };
            let batch = Batch {
                checkpoints: vec![checkpoint],
                ..seconds(vec![row("s", BEGIN_MS, Part::closed(1_000), version_us)])
            };
            store.write(&batch).await.expect("written");
            let rows = store.seconds("s", BEGIN_MS, BEGIN_MS + 1).await;
            let checkpoint = store.checkpoint("t", 3).await.expect("read");
            (
                rows.expect("read")[0].version_us,
                checkpoint.expect("there").position,
            )
        }
    };
    assert_eq!(write(5).await, (5, 5));
    assert_eq!(write(4).await, (5, 5));
    assert_eq!(write(6).await, (6, 6));
    assert_eq!(store.checkpoint("t", 4).await, Ok(None));
    let progress = store.progress("t").await.expect("read");
    assert_eq!((progress.len(), progress[0].partition), (1, 3));
    assert_eq!(store.progress("other").await, Ok(Vec::new()));
    drop(directory);
}

#[tokio::test]
async fn what_is_too_old_is_swept() {
    let Opened { store, directory } = Opened::new();
    let closed = Part::closed(1_000);
    let now_ms = BEGIN_MS + 100 * DAY_MS;
    let begin_ms = BEGIN_MS - 10 * DAY_MS;
    let old = |kept_ms: u64| now_ms - kept_ms - 2 * DAY_MS;
    let alert = |at_ms, offset| AlertRow {
        key: "rule|ams1|sport".to_owned(),
        episode: format!("e{offset}"),
        at_ms,
        offset,
        state: "firing".to_owned(),
        value: b"{}".to_vec(),
    };
    let evidence = |window_start_ms, episode: &str| EvidenceRow {
        key: "rule|ams1|sport".to_owned(),
        episode: episode.to_owned(),
        window_start_ms,
        id: "edge-1/00000000000000ab/7".to_owned(),
        event: vec![1, 2, 3],
    };
    let batch = Batch {
        seconds: vec![
            row("s", old(SECONDS_KEPT_MS), closed.clone(), 1),
            row("s", now_ms - SECONDS_KEPT_MS, closed.clone(), 1),
        ],
        minutes: vec![
            row("s", old(MINUTES_KEPT_MS), closed.clone(), 1),
            row("s", now_ms - MINUTES_KEPT_MS, closed, 1),
        ],
        ..Batch::default()
    };
    store.write(&batch).await.expect("written");
    let alerts = [alert(old(ALERTS_KEPT_MS), 1), alert(now_ms, 2)];
    store.write_alerts(&alerts).await.expect("written");
    let kept = evidence(now_ms, "e2");
    let rows = [evidence(old(ALERTS_KEPT_MS), "e1"), kept.clone()];
    store.write_evidence(&rows).await.expect("written");
    assert_eq!(
        store.alerts(0, u64::MAX, 9).await,
        Ok(vec![alerts[1].clone(), alerts[0].clone()])
    );
    assert_eq!(
        store.alerts(0, u64::MAX, 1).await,
        Ok(vec![alerts[1].clone()])
    );
    assert_eq!(store.sweep(now_ms).await, Ok(4));
    assert_eq!(store.sweep(now_ms).await, Ok(0));
    assert_eq!(
        store
            .seconds("s", begin_ms, now_ms + 1)
            .await
            .map(|rows| rows.len()),
        Ok(1)
    );
    assert_eq!(
        store
            .minutes("s", begin_ms, now_ms + 1)
            .await
            .map(|rows| rows.len()),
        Ok(1)
    );
    assert_eq!(store.alert(&alerts[0].key, "e1").await, Ok(Vec::new()));
    assert_eq!(
        store.alert(&alerts[1].key, "e2").await,
        Ok(vec![alerts[1].clone()])
    );
    assert_eq!(store.evidence(&kept.key, "e1").await, Ok(Vec::new()));
    assert_eq!(store.evidence(&kept.key, "e2").await, Ok(vec![kept]));
    drop(directory);
}

#[tokio::test]
async fn one_process_has_it() {
    let Opened { store, directory } = Opened::new();
    assert!(matches!(
        Embedded::open(directory.path()),
        Err(StoreError::Held(_))
    ));
    drop(store);
    let store = Embedded::open(directory.path()).expect("free again");
    store.ping().await.expect("it answers");
}
