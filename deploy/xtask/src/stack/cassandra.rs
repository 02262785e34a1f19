//! `cassandra up` and `cassandra down`: a node or ring below target/cassandra/dev that outlives the command.

use std::fs;

use aggregator::config::Config;
use aggregator::store::cassandra::{Settings, apply_schema};
use anyhow::{Context, Result};
use lab::cassandra::{self, Cassandra, Options};

use crate::cli;
use crate::progress;

/// The port for clients; the example configuration uses it.
const CQL_PORT: u16 = 9042;

/// Starts the server and makes the tables, or ends it.
pub fn run(command: cli::Cassandra) -> Result<()> {
    match command {
        cli::Cassandra::Up { nodes } => up(nodes.into()),
        cli::Cassandra::Down => down(),
    }
}

fn up(nodes: usize) -> Result<()> {
    println!("starting {nodes} node(s) (the first time their jars are fetched, 67 MB)");
    let options = Options {
        nodes,
        cql_port: Some(CQL_PORT),
        folder: Some(cassandra::work_folder().join("dev")),
        ..Options::default()
    };
    let server = progress::during("waiting for CQL", || Cassandra::start(&options, None))?;
    let points = server.contact_points();
    let copies = u8::try_from(nodes.min(3))?;
    progress::during("making the tables", || make_tables(&points, copies))?;
    server.leave_running();
    println!("  tables of deploy/cassandra/schema.cql, copies: {copies}");
    println!("contact_points = {points:?}");
    Ok(())
}

/// The tables in the keyspace that an empty `[store]` names.
fn make_tables(points: &[String], copies: u8) -> Result<()> {
    let mut config = Config::default();
    config.store.contact_points = points.to_vec();
    let settings = Settings::of(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(apply_schema(&settings, copies))?)
}

fn down() -> Result<()> {
    let folder = cassandra::work_folder().join("dev");
    let ended = progress::during("writing what is in memory", || cassandra::stop_in(&folder));
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    println!("{ended} node(s) ended");
    Ok(())
}
