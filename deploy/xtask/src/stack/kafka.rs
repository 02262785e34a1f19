//! `kafka up` and `kafka down`: a cluster below target/kafka/dev that outlives the command.

use std::fs;

use anyhow::{Context, Result};
use lab::kafka::{self, Cluster, Options, topics};

use crate::cli::Kafka;

/// The first broker's port; the example configurations use it.
const FIRST_PORT: u16 = 19_092;

/// Starts the cluster and applies the declared topics, or ends it.
pub fn run(command: Kafka) -> Result<()> {
    match command {
        Kafka::Up { brokers } => up(brokers.into()),
        Kafka::Down => down(),
    }
}

fn up(nodes: usize) -> Result<()> {
    println!("starting {nodes} broker(s) (the first time their jars are fetched, 45 MB)");
    let options = Options {
        nodes,
        first_port: Some(FIRST_PORT),
        folder: Some(kafka::work_folder().join("dev")),
    };
    let cluster = Cluster::start(&options, None)?;
    let brokers = cluster.brokers();
    for (name, outcome) in topics::apply(&brokers, &topics::read(&kafka::declared_topics())?)? {
        println!("  {name}: {outcome:?}");
    }
    cluster.leave_running();
    println!("bootstrap.servers={brokers}");
    Ok(())
}

fn down() -> Result<()> {
    let folder = kafka::work_folder().join("dev");
    let ended = kafka::stop_in(&folder);
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    println!("{ended} broker(s) ended");
    Ok(())
}
