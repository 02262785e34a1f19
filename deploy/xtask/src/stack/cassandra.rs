//! `cassandra up` and `cassandra down`: a node or ring below target/cassandra/dev that outlives the command.

use std::fs;

use anyhow::{Context, Result};
use lab::cassandra::{self, Cassandra, Options};

use crate::cli;
use crate::progress;

/// The port for clients; the example configuration uses it.
const CQL_PORT: u16 = 9042;

/// Starts the server, or ends it.
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
    let points: Vec<_> = server
        .contact_points()
        .iter()
        .map(|point| format!("\"{point}\""))
        .collect();
    server.leave_running();
    println!("contact_points = [{}]", points.join(", "));
    Ok(())
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
