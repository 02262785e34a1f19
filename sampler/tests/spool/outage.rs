//! The broker goes away and comes back.

use std::time::Duration;

use lab::clock::unix_ms;
use lab::environment::setting;
use sampler::sink::{Drained, SinkState};

use super::harness::*;

const STREAMS: usize = 200;
/// A window of a second takes so long here.
const EDGE: Duration = Duration::from_millis(50);

/// Time is compressed 20 times: 60 edges away are a minute of 200 streams, 600 are ten.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_away_gets_every_window_and_the_live_ones_first() {
    let Some(mut cluster) = cluster(1).await else {
        return;
    };
    let away = setting("FLOWVITALS_AWAY_EDGES", 60);
    let place = tempfile::tempdir().expect("a directory");
    let mut node = Plan::new(cluster.broker_list(), STREAMS).start(place.path());
    node.spooled_edges(5, EDGE).await;
    node.all_through().await;
    let rss_before = rss_mib();

    cluster.kill(1);
    node.spooled_edges(away, EDGE).await;
    until("the word about the broker", || {
        matches!(node.ledger.state(), SinkState::Degraded(_))
    })
    .await;
    let (totals, status) = (node.ledger.totals(), node.spool.status());
    println!(
        "{away} edges of {STREAMS} streams while the broker is away: {} events in memory, {} on disk only, {} bytes, RSS {} MiB more",
        totals.waiting,
        totals.spooled,
        status.bytes,
        rss_mib().saturating_sub(rss_before)
    );
    assert!(totals.spooled > 0, "a backlog");
    assert_eq!(totals.dropped + totals.unspooled, 0);
    assert_eq!(
        status.pending, totals.spooled,
        "the disk's books are the ledger's"
    );
    node.check_laws();

    cluster.restart(1, None).expect("back");
    let back_ms = unix_ms();
    while node.ledger.totals().spooled > 0 {
        node.spooled_edges(1, Duration::from_millis(500)).await;
    }
    node.all_through().await;
    let all_ms = unix_ms();
    until("an empty spool", || node.spool.status().records == 0).await;
    let (produced, replayed) = (node.next * STREAMS as u64, node.ledger.totals().replayed);
    let slowest = node.slowest_push;
    let (left, ledger) = node.stop().await;
    assert_eq!(left, Drained::default());

    let arrived = arrivals(&cluster, TOPIC, 12);
    let found = once(&arrived);
    let live_after = arrived
        .iter()
        .filter(|a| a.window.emitted_ms >= back_ms && !a.is_replayed());
    let latest_ms = live_after.map(|a| a.append_ms.saturating_sub(a.window.emitted_ms));
    // The first live window to arrive says how long it took to find the broker.
    let first_ms = arrived
        .iter()
        .filter(|a| a.append_ms >= back_ms && a.window.emitted_ms >= back_ms - 1000);
    println!(
        "of {produced} windows {} arrived, {} twice, {replayed} replayed; live ones after the broker was back: the latest {} ms \
         after it was made, the first {} ms after it was back; all through after {:.1} s; the window stage waited {slowest:?} at most",
        found.events,
        found.doubles,
        latest_ms.max().unwrap_or_default(),
        first_ms
            .map(|a| a.append_ms - back_ms)
            .min()
            .unwrap_or_default(),
        (all_ms - back_ms) as f64 / 1e3,
    );
    assert_eq!(found.events, produced, "every window, once");
    for (stream, sequences) in &found.sequences {
        assert!(
            sequences.iter().copied().eq(0..produced / STREAMS as u64),
            "{stream:?}"
        );
    }
    let flagged = arrived.iter().filter(|a| a.is_replayed()).count() as u64;
    assert!(flagged > 0 && flagged <= replayed);
    assert_eq!(ledger.totals().dropped, 0);
    let files = std::fs::read_dir(place.path()).expect("read");
    let segments = files.filter(|file| {
        let name = file.as_ref().expect("a file").file_name();
        name.to_string_lossy().ends_with(".seg")
    });
    assert_eq!(segments.count(), 0, "nothing is left on the disk");
}

/// One may die and nothing stops; with two no write is confirmed any more.
#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_brokers_die_and_come_back() {
    let Some(mut cluster) = cluster(3).await else {
        return;
    };
    let streams = 20;
    let place = tempfile::tempdir().expect("a directory");
    let mut node = Plan::new(cluster.broker_list(), streams).start(place.path());
    node.spooled_edges(20, EDGE).await;
    node.all_through().await;

    cluster.kill(1);
    node.spooled_edges(40, EDGE).await;
    node.all_through().await;
    println!(
        "one of three away: {} renewals",
        node.ledger.totals().renewals
    );

    cluster.kill(2);
    // More than memory holds.
    node.spooled_edges(400, EDGE / 10).await;
    until("the word about the brokers", || {
        matches!(node.ledger.state(), SinkState::Degraded(_))
    })
    .await;
    let totals = node.ledger.totals();
    println!(
        "two of three away: {} events in memory, {} on disk only",
        totals.waiting, totals.spooled
    );
    assert!(totals.spooled > 0, "a backlog");
    node.check_laws();

    for id in [1, 2] {
        cluster.restart(id, None).expect("back");
    }
    node.spooled_edges(20, EDGE).await;
    node.all_through().await;
    until("an empty spool", || node.spool.status().records == 0).await;
    let produced = node.next * streams as u64;
    let (left, ledger) = node.stop().await;
    assert_eq!(left, Drained::default());
    let found = once(&arrivals(&cluster, TOPIC, 12));
    println!(
        "of {produced} windows {} arrived, {} twice; {} producers broke",
        found.events,
        found.doubles,
        ledger.totals().renewals
    );
    assert_eq!(found.events, produced);
    assert_eq!(
        (ledger.totals().dropped, ledger.totals().dead_letter),
        (0, 0)
    );
}

/// A stop without a broker, and a start with one.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_life_sends_what_the_last_one_could_not() {
    let Some(cluster) = cluster(1).await else {
        return;
    };
    let place = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(vec!["127.0.0.1:1".to_owned()], 3);
    plan.properties.insert(
        "socket.connection.setup.timeout.ms".to_owned(),
        "1000".to_owned(),
    );
    let mut first = plan.start(place.path());
    first.spooled_edges(40, Duration::from_millis(1)).await;
    until("all on the disk", || first.spool.status().records == 160).await;
    let instance = first.instance;
    first.abandon(place.path()).await;

    plan.brokers = cluster.broker_list();
    let second = plan.start(place.path());
    assert_eq!((second.found.records, second.found.torn_bytes), (160, 0));
    second.all_through().await;
    let totals = second.ledger.totals();
    assert_eq!((totals.earlier.found, totals.earlier.delivered), (160, 160));
    assert_eq!((totals.produced, totals.delivered), (0, 0));
    assert_eq!(second.stop().await.0, Drained::default());
    let arrived = arrivals(&cluster, TOPIC, 12);
    assert!(arrived.iter().all(Arrival::is_replayed));
    let found = once(&arrived);
    assert_eq!((found.events, found.doubles), (120, 0));
    for ((of, stream), sequences) in found.sequences {
        assert_eq!(
            of, instance,
            "{stream}: the identity of the life that made it"
        );
        assert!(sequences.into_iter().eq(0..40));
    }
}

/// The promise of idempotence breaks while events are on their way.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_producer_is_replaced_and_sends_all_again() {
    let Some(cluster) = cluster(1).await else {
        return;
    };
    let place = tempfile::tempdir().expect("a directory");
    let mut node = Plan::new(cluster.broker_list(), 20).start(place.path());
    node.spooled_edges(10, Duration::from_millis(10)).await;
    for round in 0..10 {
        if round == 5 {
            node.breaker.fire();
        }
        node.spooled_edges(10, Duration::from_millis(5)).await;
    }
    node.all_through().await;
    until("an empty spool", || node.spool.status().records == 0).await;
    assert_eq!(node.ledger.totals().renewals, 1);
    assert_eq!(node.stop().await.0, Drained::default());
    let found = once(&arrivals(&cluster, TOPIC, 12));
    println!(
        "fatal error forced: {} windows arrived of 2200, {} of them twice",
        found.events, found.doubles
    );
    assert_eq!(found.events, 2200);
}
