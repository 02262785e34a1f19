//! The real HTTP interface over a site of two nodes that report every second, with a store, for programs that try it: `cargo xtask api`.
//!
//! Says on standard output where it answers, and ends when its standard input does.

#[path = "../tests/fixture/site.rs"]
mod fixture;
#[path = "../tests/fixture/stored.rs"]
mod stored;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aggregator::api;
use aggregator::daemon::Site;
use aggregator::merge::LiveOptions;
use aggregator::store::Embedded;
use tokio::net::TcpListener;

/// Who listens is not to wait for the end.
const LISTENED: Duration = Duration::from_millis(20);
/// So much is in the store.
const STORED_MS: u64 = 1_200_000;
/// Seconds of history at the start.
const HISTORY_S: u64 = 60;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let site = Site::new("ams1", LiveOptions::default()).listened(LISTENED);
    let folder = tempfile::tempdir()?;
    let store = Embedded::open(folder.path()).map_err(std::io::Error::other)?;
    let now_ms = now_s() * 1_000;
    stored::fill(&store, now_ms - STORED_MS..now_ms, now_ms - STORED_MS / 2).await;
    stored::fill_alerts(&store, now_ms).await;
    let site = Arc::new(site.with_store(Some(Arc::new(store))));
    site.note_window_partitions(1);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // Whoever reads the address finds the history.
    let next_s = play(&site, now_s() - HISTORY_S);
    tokio::spawn(report(Arc::clone(&site), next_s));
    println!("http://{address}");
    std::io::stdout().flush()?;
    api::serve(listener, site, async {
        let input = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        // Whatever ends it, ends us.
        let _ = tokio::task::spawn_blocking(input).await;
    })
    .await
}

/// Plays the nodes in real time.
async fn report(site: Arc<Site>, mut next_s: u64) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        next_s = play(&site, next_s);
    }
}

/// Plays all whole seconds from this one on; the one that comes next.
fn play(site: &Site, from_s: u64) -> u64 {
    let next_s = now_s().max(from_s);
    for second in from_s..next_s {
        fixture::play(site, second * 1_000);
    }
    next_s
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
