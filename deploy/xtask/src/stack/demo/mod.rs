//! `cargo xtask demo`: an edge with three live streams on a lossy network, watched for a minute.
//!
//! Everything lives in two network namespaces: nginx, Kafka, the sampler and the consumer in the
//! server's, the players in the client's. Everything ends with this process, also at Ctrl-C.

mod consumer;
mod edge;
mod interrupt;
mod play;
mod sampler;
mod streams;
mod summary;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::clock;
use lab::counters::{self, TcpCounters};
use lab::kafka::{self, Cluster, topics};
use lab::network::{Network, Options};
use lab::traffic::client::Client;

use crate::cli::Demo;
use consumer::Consumer;
use edge::Edge;
use sampler::Sampler;
use table::Table;

/// Runs the demo; `Err` holds what could not be done, in one sentence.
pub fn run(options: Demo) -> Result<()> {
    interrupt::watch()?;
    let folder = Folder::new()?;
    let mut network = Network::new(Options {
        client_addresses: 4,
        ..Options::default()
    })?;
    println!("starting Kafka in the edge's namespace");
    let cluster =
        Cluster::start(&kafka::Options::default(), Some(network.server())).context("no Kafka")?;
    let brokers = cluster.brokers();
    network.server().run_in(|| -> Result<()> {
        let declared = topics::read(&kafka::declared_topics())?;
        topics::apply(&brokers, &declared)?;
        Ok(())
    })??;
    println!("starting nginx with {} live streams", streams::ALL.len());
    let edge = Edge::start(&network, folder.path())?;
    println!("starting the sampler: its program goes to the root cgroup of this kernel");
    let sampler = Sampler::start(&network, folder.path(), &cluster.broker_list())?;
    let consumer = Consumer::start(network.server(), &brokers)?;
    watch(options, &mut network, sampler, &consumer)?;
    drop(consumer);
    drop(edge);
    cluster.stop();
    Ok(())
}

/// The minute itself, and the account at its end.
fn watch(
    options: Demo,
    network: &mut Network,
    sampler: Sampler,
    consumer: &Consumer,
) -> Result<()> {
    let before = TcpCounters::read(network.server())?;
    let players = Client::start(network.client(), &streams::players(network))?;
    for stream in &streams::ALL {
        println!("  {}", stream.description());
    }
    let mut table = Table::default();
    play::acts(network, consumer, &mut table)?;
    if options.keep && !interrupt::came() {
        println!(
            "everything stays up until Ctrl-C; config and log of the sampler: {}",
            sampler.folder().display()
        );
        play::until_interrupt(consumer, &mut table);
    }
    println!("\nthe players go; the sampler folds what is open and ends");
    let flows = players.stop()?;
    let ports: Vec<u16> = streams::ALL.iter().map(|stream| stream.port).collect();
    counters::wait_closed(network.server(), &ports, Duration::from_secs(20))?;
    sampler.stop()?;
    clock::wait_until(Duration::from_secs(10), || {
        for event in consumer.drain(Duration::from_millis(200)) {
            table.take(event, false);
        }
        table.has_ended()
    });
    let seen = TcpCounters::read(network.server())?.since(&before);
    summary::print(&table, &seen, &flows);
    Ok(())
}

/// A folder below target/ that goes with the demo.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = kafka::work_folder().with_file_name(format!("demo-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed lies below target/.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
