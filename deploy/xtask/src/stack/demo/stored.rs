//! What Cassandra holds of a span: the SELECT to paste, and its rows.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::cassandra::Cassandra;
use lab::clock;
use lab::network::Network;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;

use super::last_ten::SPAN_S;
use super::streams::ALL;

/// A partition of the table is an hour.
const HOUR_MS: u64 = 3_600_000;
/// Until every window of the span is in a row that is not written again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Begin of the window, its part, sampled flows that were active, retransmitted and sent segments, whether more may come.
type Row = (i64, String, i64, i64, i64, bool);

/// Prints the rows of the first stream in the span that ends at `end_s`, Unix s.
pub fn print(cassandra: &Cassandra, network: &Network, end_s: u64) -> Result<()> {
    let stream = &ALL[0];
    let statement = select(stream.name, (end_s - SPAN_S) * 1_000, end_s * 1_000);
    let point = cassandra.contact_points().swap_remove(0);
    let rows = network.server().run_in(|| -> Result<Vec<Row>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let session = runtime.block_on(SessionBuilder::new().known_node(point).build())?;
        let mut rows = Vec::new();
        clock::wait_until(PATIENCE, || {
            rows = runtime
                .block_on(read(&session, &statement))
                .unwrap_or_default();
            rows.len() >= SPAN_S as usize && rows.iter().all(|row| !row.5)
        });
        Ok(rows)
    })??;
    println!(
        "   the same of {} in the store, for cqlsh:\n   {statement}",
        stream.name
    );
    println!("     window_start_ms | part | flows_active | retrans_segs | data_segs_out");
    for (start_ms, part, flows, retrans, data, _) in &rows {
        println!("     {start_ms:>15} | {part:>4} | {flows:>12} | {retrans:>12} | {data:>13}");
    }
    let sampled: i64 = rows.iter().map(|row| row.3).sum();
    println!(
        "     {sampled} on sampled flows, {:.0} on all at rate {}",
        sampled as f64 / stream.rate,
        stream.rate
    );
    Ok(())
}

async fn read(session: &Session, statement: &str) -> Result<Vec<Row>> {
    let answer = session.query_unpaged(statement, ()).await?;
    let answer = answer.into_rows_result().context("no rows")?;
    Ok(answer.rows::<Row>()?.collect::<Result<_, _>>()?)
}

fn select(stream: &str, from_ms: u64, to_ms: u64) -> String {
    let hour = |at_ms: u64| at_ms / HOUR_MS * HOUR_MS;
    let hours = match (hour(from_ms), hour(to_ms - 1)) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}, {last}"),
    };
    format!(
        "SELECT window_start_ms, part, flows_active, retrans_segs, data_segs_out, provisional FROM flowvitals.stream_second \
         WHERE site = 'demo' AND stream = '{stream}' AND hour IN ({hours}) \
         AND window_start_ms >= {from_ms} AND window_start_ms < {to_ms};"
    )
}
