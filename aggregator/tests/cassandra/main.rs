//! A real Cassandra as the store: what it says when something is wrong, every table there and back, the same rows and answers as
//! the embedded store, and all of it over kill -9.
//!
//! One node for all of it, since it takes seconds to start. Needs Java 17 and Maven; without them the test says why it is skipped,
//! or fails if `FLOWVITALS_REQUIRE_KERNEL=1` says that everything must run.

mod events;
mod server;
mod size;

use aggregator::config::Config;
use aggregator::merge::{Presence, Quantity};
use aggregator::rollup::{Begin, Options, Partition};
use aggregator::store::cassandra::{Cassandra, Settings, apply_schema};
use aggregator::store::{
    AlertRow, Batch, Checkpoint, Embedded, EvidenceRow, Folded, NodeRow, Part, Row, Store, Sums,
};
use events::{BEGIN_MS, DAY_MS, HOUR_MS, late_log, log};
use server::Server;

const SITE: &str = "ams1";
const TOPIC: &str = "flowvitals.window.v1";

fn store(config: &Config) -> Cassandra {
    Cassandra::open(config).expect("settings")
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_over_one_node() {
    let Some(mut server) = Server::secured() else {
        return;
    };
    what_is_wrong_is_said(&server).await;
    let config = server.config();
    let settings = Settings::of(&config).expect("settings");
    for _ in 0..2 {
        apply_schema(&settings, 1).await.expect("applied");
    }
    other_tables_are_said(&server, &settings).await;
    let store = store(&config);
    store.ping().await.expect("it answers");
    older_writes_lose(&store).await;
    rows_end_by_themselves(&server).await;
    alerts_come_back(&store).await;
    let directory = tempfile::tempdir().expect("a directory");
    let embedded = Embedded::open(directory.path()).expect("a store");
    both_stores_are_the_same(&store, &embedded).await;
    kill_and_back(&mut server, &store, &embedded).await;
}

/// A ring of three with three copies takes all rows while one node is dead, and that node catches up. 1.5 GB, a minute:
/// `cargo test -p aggregator --test cassandra -- --ignored a_ring`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes 1.5 GB and a minute"]
async fn a_ring_goes_on_without_one_of_three() {
    let Some(mut server) = Server::plain(3) else {
        return;
    };
    let config = server.config();
    let settings = Settings::of(&config).expect("settings");
    apply_schema(&settings, 3).await.expect("applied");
    let store = store(&config);
    let directory = tempfile::tempdir().expect("a directory");
    let embedded = Embedded::open(directory.path()).expect("a store");
    let mut partition = Partition::new(TOPIC, 0, Begin::Log, Options { lateness_ms: 2_000 });
    for (offset, (window, append_ms)) in (0_i64..).zip(log().into_iter().chain(late_log())) {
        partition.take(&window, offset, append_ms);
        if offset % 100 == 99 {
            write_both(&mut partition, &store, &embedded).await;
        }
        if offset == 500 {
            server.kill(2);
        }
    }
    write_both(&mut partition, &store, &embedded).await;
    same_rows(&store, &embedded).await;
    server.restart(2);
    // The first one dead: a quorum is the one that was away, and the third.
    server.kill(1);
    server
        .until("a quorum without the first node", async || {
            store.ping().await.is_ok()
        })
        .await;
    same_rows(&store, &embedded).await;
}

/// Each with the words that say what to do.
async fn what_is_wrong_is_said(server: &Server) {
    let said = async |change: &dyn Fn(&mut Config)| {
        let mut config = server.config();
        change(&mut config);
        let error = store(&config).ping().await.expect_err("wrong");
        println!("{error}");
        error.to_string()
    };
    let words = said(&|_| {}).await;
    assert!(words.contains("lacks tables"), "{words}");
    assert!(words.contains("schema --config FILE --apply"), "{words}");
    let other = server.file("other", "not the password\n");
    let words = said(&|config| config.store.password_file = Some(other.clone())).await;
    assert!(words.contains("login refused"), "{words}");
    assert!(words.contains("store.password_file"), "{words}");
    let words = said(&|config| {
        config.store.username = None;
        config.store.password_file = None;
    })
    .await;
    assert!(words.contains("set store.username"), "{words}");
    let words = said(&|config| config.store.local_datacenter = "dc7".to_owned()).await;
    assert!(words.contains("there are dc1"), "{words}");
    let foreign = server.foreign_certificate();
    let words = said(&|config| config.store.tls_ca = Some(foreign.clone())).await;
    assert!(words.contains("store.tls_ca"), "{words}");
    let words = said(&|config| config.store.contact_points = vec!["127.0.0.1:1".to_owned()]).await;
    assert!(words.contains("store.contact_points"), "{words}");
}

/// Tables of an older version, and one that somebody dropped; applying the schema mends both.
async fn other_tables_are_said(server: &Server, settings: &Settings) {
    let session = server.session().await;
    for (change, expected) in [
        (
            "INSERT INTO flowvitals.schema_version (component, version) VALUES ('store', 0)",
            "tables of version 0",
        ),
        ("DROP TABLE flowvitals.alert_evidence", "alert_evidence"),
    ] {
        session.query_unpaged(change, ()).await.expect("changed");
        let error = store(&server.config()).ping().await.expect_err("wrong");
        println!("{error}");
        let words = error.to_string();
        assert!(words.contains(expected), "{words}");
        assert!(words.contains("schema --config FILE --apply"), "{words}");
        apply_schema(settings, 1).await.expect("applied");
    }
}

fn row(stream: &str, part: Part, version_us: u64) -> Row {
    let mut sums = Sums::of(&events::window(stream, "edge-1", 0));
    sums.counters.retrans_segs = version_us;
    Row {
        stream: stream.to_owned(),
        window_start_ms: BEGIN_MS,
        part,
        version_us,
        provisional: version_us % 2 == 1,
        nodes_expected: 3,
        nodes_reported: 2,
        sums,
    }
}

/// An owner that does not know yet that it is none writes what it still has.
async fn older_writes_lose(store: &Cassandra) {
    for version_us in [5, 5, 4, 6] {
        let row = row("zombie", Part::closed(1_000), version_us);
        let node_row = NodeRow {
            stream: row.stream.clone(),
            window_start_ms: BEGIN_MS,
            node: "edge-1".to_owned(),
            part: Part::closed(1_000),
            version_us,
            provisional: row.provisional,
            windows: version_us,
            flags: 8,
            counters: row.sums.counters,
        };
        let checkpoint = Checkpoint {
            topic: "t".to_owned(),
            partition: 3,
            offset: version_us.cast_signed() - 1,
            position: version_us.cast_signed(),
            watermark_ms: version_us,
            version_us,
            state: vec![u8::try_from(version_us).expect("small"); 3],
        };
        let batch = Batch {
            seconds: vec![row.clone()],
            minutes: vec![row.clone()],
            node_minutes: vec![node_row.clone()],
            checkpoints: vec![checkpoint.clone()],
        };
        store.write(&batch).await.expect("written");
        if version_us == 4 {
            continue;
        }
        let end_ms = BEGIN_MS + 1;
        assert_eq!(
            store.seconds("zombie", 0, end_ms).await,
            Ok(vec![row.clone()])
        );
        assert_eq!(store.minutes("zombie", 0, end_ms).await, Ok(vec![row]));
        assert_eq!(
            store.node_minutes("zombie", 0, end_ms).await,
            Ok(vec![node_row])
        );
        assert_eq!(store.checkpoint("t", 3).await, Ok(Some(checkpoint)));
    }
    assert_eq!(store.checkpoint("t", 4).await, Ok(None));
    let progress = store.progress("t").await.expect("read");
    assert_eq!((progress.len(), progress[0].position), (1, 6));
    assert_eq!(
        store
            .seconds("zombie", BEGIN_MS + 1, BEGIN_MS + HOUR_MS)
            .await,
        Ok(Vec::new())
    );
    assert_eq!(store.streams(BEGIN_MS).await, Ok(vec!["zombie".to_owned()]));
    assert_eq!(store.streams(BEGIN_MS + 2 * DAY_MS).await, Ok(Vec::new()));
}

async fn rows_end_by_themselves(server: &Server) {
    let session = server.session().await;
    for (table, kept_s) in [
        ("stream_second", 48 * 3_600),
        ("stream_minute", 90 * 86_400),
        ("node_minute", 7 * 86_400),
    ] {
        let query = format!("SELECT TTL(windows), retrans_segs FROM flowvitals.{table}");
        let rows = session.query_unpaged(query, ()).await.expect("read");
        let rows = rows.into_rows_result().expect("rows");
        let (left_s, retrans_segs) = rows.single_row::<(i32, i64)>().expect("one row");
        assert!(
            (kept_s - 600..=kept_s).contains(&left_s),
            "{table}: {left_s} s"
        );
        assert_eq!(retrans_segs, 6, "a column to read by eye");
    }
}

async fn alerts_come_back(store: &Cassandra) {
    let change = |days: u64, offset: i64, state: &str| AlertRow {
        key: format!("rule|{SITE}|sport"),
        episode: format!("e{}", offset / 10),
        at_ms: BEGIN_MS + days * DAY_MS,
        offset,
        state: state.to_owned(),
        value: br#"{"state":"firing","what":"2.4 % \u00b1"}"#.to_vec(),
    };
    let rows = [
        change(0, 1, "pending"),
        change(0, 2, "firing"),
        change(1, 3, "resolved"),
        change(3, 10, "firing"),
    ];
    for _ in 0..2 {
        store.write_alerts(&rows).await.expect("written");
    }
    let key = &rows[0].key;
    assert_eq!(store.alert(key, "e0").await, Ok(rows[..3].to_vec()));
    let newest = async |from_ms, to_ms, limit| {
        let found = store.alerts(from_ms, to_ms, limit).await.expect("read");
        found.iter().map(|row| row.offset).collect::<Vec<_>>()
    };
    let end_ms = BEGIN_MS + 9 * DAY_MS;
    assert_eq!(newest(0, end_ms, 10).await, [10, 3, 2, 1]);
    assert_eq!(newest(0, end_ms, 3).await, [10, 3, 2]);
    assert_eq!(newest(BEGIN_MS + 1, end_ms, 10).await, [10, 3]);
    assert_eq!(newest(0, BEGIN_MS + 1, 10).await, [2, 1]);
    let evidence = ["a/1/1", "a/1/2"].map(|id| EvidenceRow {
        key: key.clone(),
        episode: "e0".to_owned(),
        window_start_ms: BEGIN_MS,
        id: id.to_owned(),
        event: vec![0, 255, 7],
    });
    store.write_evidence(&evidence).await.expect("written");
    assert_eq!(store.evidence(key, "e0").await, Ok(evidence.to_vec()));
    assert_eq!(store.evidence(key, "e1").await, Ok(Vec::new()));
}

/// The same log through the roll-up into both: the same rows, to the last bit, and the same answers.
async fn both_stores_are_the_same(cassandra: &Cassandra, embedded: &Embedded) {
    let mut partition = Partition::new(TOPIC, 0, Begin::Log, Options { lateness_ms: 2_000 });
    for (offset, (window, append_ms)) in (0_i64..).zip(log().into_iter().chain(late_log())) {
        partition.take(&window, offset, append_ms);
        if offset % 100 == 99 {
            write_both(&mut partition, cassandra, embedded).await;
        }
    }
    write_both(&mut partition, cassandra, embedded).await;
    let counts = partition.counts();
    assert!(counts.late > 10 && counts.merged > 1_000, "{counts:?}");
    let rows = same_rows(cassandra, embedded).await;
    // Of each stream 148 seconds, 3 minutes and 12 of nodes are closed, and 12 windows late in each table.
    assert_eq!(rows, 2 * (148 + 3 + 12 + 3 * 12));
}

async fn write_both(partition: &mut Partition, cassandra: &Cassandra, embedded: &Embedded) {
    let mut batch = partition.take_rows(|_, _| Presence {
        expected: 4,
        reported: 3,
    });
    batch.checkpoints.extend(partition.checkpoint());
    for store in [cassandra as &dyn Store, embedded] {
        store.write(&batch).await.expect("written");
    }
}

/// Everything in both; how many rows that are.
async fn same_rows(cassandra: &Cassandra, embedded: &Embedded) -> usize {
    let mut count = 0;
    for stream in events::STREAMS {
        let (from_ms, to_ms) = (BEGIN_MS - DAY_MS, BEGIN_MS + DAY_MS);
        let seconds = cassandra
            .seconds(stream, from_ms, to_ms)
            .await
            .expect("read");
        let minutes = cassandra
            .minutes(stream, from_ms, to_ms)
            .await
            .expect("read");
        let nodes = cassandra
            .node_minutes(stream, from_ms, to_ms)
            .await
            .expect("read");
        assert_eq!(
            embedded.seconds(stream, from_ms, to_ms).await.as_ref(),
            Ok(&seconds)
        );
        assert_eq!(
            embedded.minutes(stream, from_ms, to_ms).await.as_ref(),
            Ok(&minutes)
        );
        assert_eq!(
            embedded.node_minutes(stream, from_ms, to_ms).await.as_ref(),
            Ok(&nodes)
        );
        assert!(
            seconds.iter().any(|row| row.part != Part::closed(1_000)),
            "late parts"
        );
        answers_of(stream, cassandra, embedded).await;
        count += seconds.len() + minutes.len() + nodes.len();
    }
    let checkpoint = cassandra.checkpoint(TOPIC, 0).await;
    assert!(matches!(checkpoint, Ok(Some(_))), "{checkpoint:?}");
    assert_eq!(embedded.checkpoint(TOPIC, 0).await, checkpoint);
    assert_eq!(
        embedded.progress(TOPIC).await,
        cassandra.progress(TOPIC).await
    );
    count
}

async fn answers_of(stream: &str, cassandra: &Cassandra, embedded: &Embedded) {
    for seconds in [1, 10, 60] {
        let span = (BEGIN_MS + 10_000, BEGIN_MS + 10_000 + seconds * 1_000);
        let mut answers = Vec::new();
        for store in [cassandra as &dyn Store, embedded] {
            let rows = store.seconds(stream, span.0, span.1).await.expect("read");
            let folded = Folded::of(&rows);
            let answer = folded.answer(Quantity::RetransRatio, span, u64::MAX, &Default::default());
            assert!(answer.value.is_some(), "{stream} {seconds} s: {answer:?}");
            let point = folded.point(span, u64::MAX, &Default::default());
            answers.push(serde_json::to_string(&(answer, point)).expect("JSON"));
        }
        assert_eq!(answers[0], answers[1]);
    }
}

async fn kill_and_back(server: &mut Server, cassandra: &Cassandra, embedded: &Embedded) {
    server.kill(1);
    let row = row("sport-1", Part::closed(1_000), 1);
    let batch = Batch {
        seconds: vec![row],
        ..Batch::default()
    };
    let down = cassandra.write(&batch).await.expect_err("it is down");
    println!("{down}");
    assert!(!down.to_string().is_empty());
    // A process that starts meanwhile is told the same, and goes on when the node is back.
    let fresh = store(&server.config());
    fresh.ping().await.expect_err("it is down");
    server.restart(1);
    server
        .until("both answer", async || {
            cassandra.ping().await.is_ok() && fresh.ping().await.is_ok()
        })
        .await;
    // Older than the row that is there: it changes nothing.
    cassandra.write(&batch).await.expect("written");
    same_rows(cassandra, embedded).await;
    same_rows(&fresh, embedded).await;
}
