//! The real HTTP interface over a site of two nodes that report every second, for programs that try it: `cargo xtask api`.
//!
//! Says on standard output where it answers, and ends when its standard input does.

#[path = "../tests/fixture/site.rs"]
mod fixture;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aggregator::api;
use aggregator::daemon::Site;
use aggregator::merge::LiveOptions;
use tokio::net::TcpListener;

/// Seconds of history at the start.
const HISTORY_S: u64 = 60;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let site = Arc::new(Site::new("ams1", LiveOptions::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(report(Arc::clone(&site)));
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
async fn report(site: Arc<Site>) {
    let mut next_s = now_s() - HISTORY_S;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        while next_s < now_s() {
            fixture::play(&site, next_s * 1_000);
            next_s += 1;
        }
    }
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
