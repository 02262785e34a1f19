//! The built daemon over a real Cassandra: it says what is missing, writes what was produced, answers as with the embedded store,
//! and catches up after the node was killed. One node for all of it, since it takes seconds to start.

use std::process::{Command, Output};

use aggregator::config::Config;
use aggregator::store::cassandra::Cassandra;
use lab::cassandra as node;
use lab::server::ServerError;

use crate::broker_with_topics;
use crate::daemon::Daemon;
use crate::produced::{Site, is_whole};
use crate::store::settle;
use crate::writer::{Writer, now_ms};

/// A node; none where it cannot be started and need not be.
fn start_node() -> Option<node::Cassandra> {
    match node::Cassandra::start(&node::Options::default(), None) {
        Ok(node) => Some(node),
        Err(ServerError::Command(error))
            if std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_none() =>
        {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("no node: {error}"),
    }
}

/// Runs a command of the program with a daemon's configuration.
fn command(daemon: &Daemon, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flowvitals-aggregator"))
        .arg(arguments[0])
        .arg("--config")
        .arg(daemon.config())
        .args(&arguments[1..])
        .output()
        .expect("the program")
}

/// Holds what a daemon's Cassandra has against what was produced.
fn compare(daemon: &Daemon, site: &Site) {
    let config = Config::load(&daemon.config()).expect("a configuration");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Cassandra::open(&config).expect("settings");
        is_whole(&store, &site.truth).await;
    });
}

#[test]
fn everything_over_one_node() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let Some(node) = start_node() else { return };
    let section = format!(
        "[store]\nkind = \"cassandra\"\ncontact_points = {:?}\n",
        node.contact_points()
    );
    let daemon = Daemon::start_as(&brokers, "roles = [\"store\"]\n", &section);
    without_tables(&daemon);
    let mut site = Site::new(3);
    let writer = Writer::new(&brokers);
    let start_ms = now_ms() / 60_000 * 60_000 - 3 * 3_600_000;
    for second in 0..200 {
        site.second(&writer, start_ms + second * 1_000);
    }
    site.end(&writer);
    settle(&daemon, site.windows());
    compare(&daemon, &site);
    daemon.stop();
}

/// It waits and says for what, as `check` does; with the tables it begins.
fn without_tables(daemon: &Daemon) {
    daemon.wait_for("it says what is missing", || {
        let health = daemon.get("/healthz").unwrap_or_default();
        health.contains("lacks tables") && health.contains("schema --config FILE --apply")
    });
    let check = command(daemon, &["check"]);
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(said.contains("warning: cassandra: "), "{said}");
    assert!(said.contains("lacks tables"), "{said}");
    let applied = command(daemon, &["schema", "--apply"]);
    assert!(applied.status.success(), "{applied:?}");
    let check = command(daemon, &["check"]);
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("answers, and has its tables"), "{said}");
    daemon.wait_for("it begins", || {
        daemon.metric("flowvitals_store_active") == 1.0
    });
}
