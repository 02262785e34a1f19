//! The statements, prepared once per session.

use scylla::client::session::Session;
use scylla::errors::PrepareError;
use scylla::statement::prepared::PreparedStatement;

use super::columns::{counter_names, shown_names, sums_names};

/// Key columns of each table, in the order in which they are bound.
pub(super) const SECOND_KEY: [&str; 5] = ["site", "stream", "hour", "window_start_ms", "part"];
/// As [`SECOND_KEY`].
pub(super) const MINUTE_KEY: [&str; 6] = [
    "stream",
    "day",
    "site_bucket",
    "window_start_ms",
    "site",
    "part",
];
/// As [`SECOND_KEY`].
pub(super) const NODE_KEY: [&str; 6] = ["site", "stream", "day", "window_start_ms", "node", "part"];
/// Before the sums of a row.
const HEAD: [&str; 3] = ["nodes_expected", "nodes_reported", "provisional"];
const ALERT: [&str; 6] = [
    "alert_key",
    "episode",
    "at_ms",
    "change_offset",
    "state",
    "value",
];
const ALERT_BY_DAY: [&str; 2] = ["site", "day"];
const EVIDENCE: [&str; 5] = [
    "alert_key",
    "episode",
    "window_start_ms",
    "event_id",
    "event",
];
const CHECKPOINT_KEY: [&str; 3] = ["site", "topic", "topic_partition"];
const CHECKPOINT: [&str; 4] = ["resume_offset", "position_offset", "watermark_ms", "state"];

/// All of them.
pub(super) struct Statements {
    pub(super) insert_second: PreparedStatement,
    pub(super) insert_minute: PreparedStatement,
    pub(super) insert_node_minute: PreparedStatement,
    pub(super) insert_last_day: PreparedStatement,
    pub(super) insert_checkpoint: PreparedStatement,
    pub(super) insert_alert: PreparedStatement,
    pub(super) insert_alert_by_day: PreparedStatement,
    pub(super) insert_evidence: PreparedStatement,
    pub(super) seconds: PreparedStatement,
    pub(super) minutes: PreparedStatement,
    pub(super) node_minutes: PreparedStatement,
    pub(super) streams: PreparedStatement,
    pub(super) checkpoint: PreparedStatement,
    pub(super) progress: PreparedStatement,
    pub(super) alert: PreparedStatement,
    pub(super) alerts: PreparedStatement,
    pub(super) evidence: PreparedStatement,
}

impl Statements {
    /// Prepares them on the nodes.
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, PrepareError> {
        let prepare = async |text: String| {
            let mut statement = session.prepare(text).await?;
            // Every write is an upsert with its own time of writing: it may come again.
            statement.set_is_idempotent(true);
            Ok::<_, PrepareError>(statement)
        };
        let insert = async |table: &str, names: &[&str]| {
            let marks = vec!["?"; names.len()].join(", ");
            let names = names.join(", ");
            prepare(format!(
                "INSERT INTO {keyspace}.{table} ({names}) VALUES ({marks}) USING TIMESTAMP ?"
            ))
            .await
        };
        let select = async |names: &str, table: &str, rest: &str| {
            prepare(format!(
                "SELECT {names} FROM {keyspace}.{table} WHERE {rest}"
            ))
            .await
        };
        let shown: Vec<_> = shown_names().collect();
        let sums = [&HEAD[..], &sums_names()].concat();
        let written = [&sums[..], &shown].concat();
        let counters = [&["provisional"][..], &counter_names()].concat();
        let row = format!(
            "window_start_ms, part, WRITETIME(windows), {}",
            sums.join(", ")
        );
        let node_row = format!(
            "window_start_ms, node, part, WRITETIME(windows), {}",
            counters.join(", ")
        );
        let whole_checkpoint = [&CHECKPOINT_KEY[..], &CHECKPOINT].concat();
        const SPAN: &str = "window_start_ms >= ? AND window_start_ms < ?";
        const EPISODE: &str = "alert_key = ? AND episode = ?";
        Ok(Self {
            insert_second: insert("stream_second", &[&SECOND_KEY[..], &written].concat()).await?,
            insert_minute: insert("stream_minute", &[&MINUTE_KEY[..], &written].concat()).await?,
            insert_node_minute: insert("node_minute", &[&NODE_KEY[..], &counters].concat()).await?,
            insert_last_day: insert("stream_last_day", &["site", "stream", "day"]).await?,
            insert_checkpoint: insert("checkpoint", &whole_checkpoint).await?,
            insert_alert: insert("alert_history", &ALERT).await?,
            insert_alert_by_day: insert(
                "alert_history_by_day",
                &[&ALERT_BY_DAY[..], &ALERT].concat(),
            )
            .await?,
            insert_evidence: insert("alert_evidence", &EVIDENCE).await?,
            seconds: select(
                &row,
                "stream_second",
                &format!("site = ? AND stream = ? AND hour = ? AND {SPAN}"),
            )
            .await?,
            // Filtering stays inside one partition, which few sites share.
            minutes: select(
                &row,
                "stream_minute",
                &format!(
                    "stream = ? AND day = ? AND site_bucket = ? AND {SPAN} AND site = ? ALLOW FILTERING"
                ),
            )
            .await?,
            node_minutes: select(
                &node_row,
                "node_minute",
                &format!("site = ? AND stream = ? AND day = ? AND {SPAN}"),
            )
            .await?,
            streams: select("stream, day", "stream_last_day", "site = ?").await?,
            checkpoint: select(
                &format!("{}, WRITETIME(state)", CHECKPOINT.join(", ")),
                "checkpoint",
                "site = ? AND topic = ? AND topic_partition = ?",
            )
            .await?,
            progress: select(
                "topic_partition, position_offset, watermark_ms",
                "checkpoint",
                "site = ? AND topic = ?",
            )
            .await?,
            alert: select(&ALERT.join(", "), "alert_history", EPISODE).await?,
            alerts: select(
                &ALERT.join(", "),
                "alert_history_by_day",
                "site = ? AND day = ? AND at_ms >= ? AND at_ms < ? LIMIT ?",
            )
            .await?,
            evidence: select(&EVIDENCE.join(", "), "alert_evidence", EPISODE).await?,
        })
    }
}
