//! Real Cassandra nodes: start, a killed node that comes back with every acknowledged row, a ring
//! that goes on without one of three.
//!
//! Needs Java 17 and Maven; without them the tests say why they are skipped, or fail if
//! `FLOWVITALS_REQUIRE_KERNEL=1` says that everything must run. The ring takes 1.5 GB and half a
//! minute: `cargo test -p lab --test cassandra -- --ignored`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use lab::cassandra::{Cassandra, Options, PASSWORD, USER};
use lab::clock;
use lab::server::ServerError;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::Consistency;

fn start(options: &Options) -> Option<Cassandra> {
    match Cassandra::start(options, None) {
        Ok(cassandra) => Some(cassandra),
        Err(ServerError::Command(error))
            if std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_none() =>
        {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("no node: {error}"),
    }
}

async fn session(cassandra: &Cassandra) -> Session {
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .request_timeout(Some(Duration::from_secs(10)))
        .build();
    SessionBuilder::new()
        .known_nodes(cassandra.contact_points())
        .user(USER, PASSWORD)
        .default_execution_profile_handle(profile.into_handle())
        .build()
        .await
        .unwrap()
}

async fn make_table(session: &Session, copies: usize) {
    let keyspace = format!(
        "CREATE KEYSPACE t WITH replication = {{'class': 'NetworkTopologyStrategy', 'dc1': {copies}}}"
    );
    session.query_unpaged(keyspace, ()).await.unwrap();
    let table = "CREATE TABLE t.t (id int PRIMARY KEY, value int)";
    session.query_unpaged(table, ()).await.unwrap();
}

/// Writes 0, 1, 2, … one after another until it is told to end; how many were acknowledged.
async fn write(session: Arc<Session>, count: Arc<AtomicI32>, end: Arc<AtomicBool>) -> Vec<i32> {
    let insert = "INSERT INTO t.t (id, value) VALUES (?, ?)";
    let insert = session.prepare(insert).await.unwrap();
    let mut acknowledged = Vec::new();
    while !end.load(Ordering::Relaxed) {
        let id = count.fetch_add(1, Ordering::Relaxed);
        if session.execute_unpaged(&insert, (id, id)).await.is_ok() {
            acknowledged.push(id);
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    acknowledged
}

async fn stored(session: &Session) -> Vec<i32> {
    let answer = session.query_unpaged("SELECT id FROM t.t", ()).await;
    let rows = answer.unwrap().into_rows_result().unwrap();
    rows.rows::<(i32,)>()
        .unwrap()
        .map(|id| id.unwrap().0)
        .collect()
}

/// Kills node `victim` while eight writers write, and goes on for 200 rows if `writes_go_on`;
/// what was acknowledged.
fn kill_while_writing(
    cassandra: &mut Cassandra,
    runtime: &tokio::runtime::Runtime,
    session: &Arc<Session>,
    victim: usize,
    writes_go_on: bool,
) -> Vec<i32> {
    let (count, end) = (
        Arc::new(AtomicI32::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let writers: Vec<_> = (0..8)
        .map(|_| {
            runtime.spawn(write(
                Arc::clone(session),
                Arc::clone(&count),
                Arc::clone(&end),
            ))
        })
        .collect();
    let reached = |wanted: i32| {
        clock::wait_until(Duration::from_secs(60), || {
            count.load(Ordering::Relaxed) > wanted
        })
    };
    assert!(reached(2_000), "no writes");
    cassandra.kill(victim);
    let at_the_kill = count.load(Ordering::Relaxed);
    assert!(reached(at_the_kill + if writes_go_on { 200 } else { 8 }));
    end.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        let mut all = Vec::new();
        for writer in writers {
            all.extend(writer.await.unwrap());
        }
        if writes_go_on {
            assert!(all.iter().filter(|id| **id > at_the_kill).count() > 100);
        }
        all
    })
}

#[test]
fn a_killed_node_comes_back_with_every_acknowledged_row() {
    let options = Options {
        login: true,
        ..Options::default()
    };
    let Some(mut cassandra) = start(&options) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let first = Arc::new(runtime.block_on(session(&cassandra)));
    runtime.block_on(make_table(&first, 1));
    let acknowledged = kill_while_writing(&mut cassandra, &runtime, &first, 1, false);
    cassandra.restart(1, None).unwrap();
    let stored = runtime.block_on(async { stored(&session(&cassandra).await).await });
    let lost = acknowledged
        .iter()
        .filter(|id| !stored.contains(id))
        .count();
    println!(
        "{} acknowledged, {} stored",
        acknowledged.len(),
        stored.len()
    );
    assert_eq!(lost, 0, "of {}", acknowledged.len());
    cassandra.stop();
}

#[test]
#[ignore = "three nodes take 1.5 GB and half a minute"]
fn a_ring_goes_on_without_one_of_three() {
    let options = Options {
        nodes: 3,
        ..Options::default()
    };
    let Some(mut cassandra) = start(&options) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let session = Arc::new(runtime.block_on(session(&cassandra)));
    runtime.block_on(make_table(&session, 3));
    let acknowledged = kill_while_writing(&mut cassandra, &runtime, &session, 2, true);
    let stored = runtime.block_on(stored(&session));
    let lost = acknowledged
        .iter()
        .filter(|id| !stored.contains(id))
        .count();
    println!(
        "{} acknowledged, {} stored",
        acknowledged.len(),
        stored.len()
    );
    assert_eq!(lost, 0, "of {}", acknowledged.len());
    cassandra.restart(2, None).unwrap();
}
