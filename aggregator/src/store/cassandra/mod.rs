//! A Cassandra cluster as the store, by the driver `scylla`.
//!
//! ```text
//! settings ─► connect ─► statements ─► write, read ─► columns
//!                └► schema                └► words
//! ```
//!
//! Made without asking anybody: the first call connects, and every further one tries again until that works, so that a store that
//! is down holds up nobody's start. All statements are prepared, may be repeated, go to the nodes that hold the partition in
//! `local_datacenter`, and need a quorum there. Every row is written with its version as the time of writing, so that the greater
//! version stands. Limits: [`Settings::in_flight`] statements of a call under way, 10 s for each; spans reach back 1,000 hours
//! or 400 days from their end, longer than rows are kept.

mod alerts;
mod columns;
mod connect;
mod read;
mod schema;
mod settings;
mod statements;
mod words;
mod write;

use tokio::sync::OnceCell;

pub use schema::{Placement, statements as schema_statements};
pub use settings::Settings;

use super::row::{NodeRow, Row};
use super::{AlertRow, Batch, Checkpoint, EvidenceRow, Future, Progress, Store, StoreError};
use crate::config::{Config, ConfigError};
use connect::Connected;

/// Rows of one site in a Cassandra cluster.
#[derive(Debug)]
pub struct Cassandra {
    settings: Settings,
    site: String,
    connected: OnceCell<Connected>,
}

impl Cassandra {
    /// The store that is configured; its files are read, and nobody is asked yet.
    ///
    /// # Errors
    /// As [`Settings::of`].
    pub fn open(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self::new(Settings::of(config)?, &config.site))
    }

    /// The store of a site; nobody is asked yet.
    #[must_use]
    pub fn new(settings: Settings, site: impl Into<String>) -> Self {
        Self {
            settings,
            site: site.into(),
            connected: OnceCell::new(),
        }
    }

    async fn connected(&self) -> Result<&Connected, StoreError> {
        let connect = || Connected::new(&self.settings, &self.site);
        self.connected.get_or_try_init(connect).await
    }
}

/// Makes the keyspace and the tables that are missing, in so many copies; what is there stays.
///
/// # Errors
/// If the cluster cannot be reached or says no, in words.
pub async fn apply_schema(settings: &Settings, copies: u8) -> Result<(), StoreError> {
    let session = connect::session(settings).await?;
    schema::apply(&session, &settings.placement(copies)).await
}

impl Store for Cassandra {
    fn name(&self) -> String {
        let points = self.settings.contact_points.join(", ");
        format!("cassandra {points}, keyspace {}", self.settings.keyspace)
    }

    fn write<'a>(&'a self, batch: &'a Batch) -> Future<'a, ()> {
        Box::pin(async move { self.connected().await?.write(batch).await })
    }

    fn seconds<'a>(&'a self, stream: &'a str, from_ms: u64, to_ms: u64) -> Future<'a, Vec<Row>> {
        Box::pin(async move {
            self.connected()
                .await?
                .seconds(stream, from_ms, to_ms)
                .await
        })
    }

    fn minutes<'a>(&'a self, stream: &'a str, from_ms: u64, to_ms: u64) -> Future<'a, Vec<Row>> {
        Box::pin(async move {
            self.connected()
                .await?
                .minutes(stream, from_ms, to_ms)
                .await
        })
    }

    fn node_minutes<'a>(
        &'a self,
        stream: &'a str,
        from_ms: u64,
        to_ms: u64,
    ) -> Future<'a, Vec<NodeRow>> {
        Box::pin(async move {
            let connected = self.connected().await?;
            connected.node_minutes(stream, from_ms, to_ms).await
        })
    }

    fn streams(&self, since_ms: u64) -> Future<'_, Vec<String>> {
        Box::pin(async move { self.connected().await?.streams(since_ms).await })
    }

    fn checkpoint<'a>(&'a self, topic: &'a str, partition: i32) -> Future<'a, Option<Checkpoint>> {
        Box::pin(async move { self.connected().await?.checkpoint(topic, partition).await })
    }

    fn progress<'a>(&'a self, topic: &'a str) -> Future<'a, Vec<Progress>> {
        Box::pin(async move { self.connected().await?.progress(topic).await })
    }

    fn write_alerts<'a>(&'a self, rows: &'a [AlertRow]) -> Future<'a, ()> {
        Box::pin(async move { self.connected().await?.write_alerts(rows).await })
    }

    fn write_evidence<'a>(&'a self, rows: &'a [EvidenceRow]) -> Future<'a, ()> {
        Box::pin(async move { self.connected().await?.write_evidence(rows).await })
    }

    fn alert<'a>(&'a self, key: &'a str, episode: &'a str) -> Future<'a, Vec<AlertRow>> {
        Box::pin(async move { self.connected().await?.alert(key, episode).await })
    }

    fn alerts(&self, from_ms: u64, to_ms: u64, limit: usize) -> Future<'_, Vec<AlertRow>> {
        Box::pin(async move { self.connected().await?.alerts(from_ms, to_ms, limit).await })
    }

    fn evidence<'a>(&'a self, key: &'a str, episode: &'a str) -> Future<'a, Vec<EvidenceRow>> {
        Box::pin(async move { self.connected().await?.evidence(key, episode).await })
    }

    fn ping(&self) -> Future<'_, ()> {
        Box::pin(async move {
            let connected = self.connected().await?;
            schema::check(&connected.session, &self.settings.keyspace).await
        })
    }
}
