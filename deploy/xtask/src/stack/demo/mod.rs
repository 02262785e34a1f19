//! `cargo xtask demo`: an edge with three live streams on a lossy network, watched for two minutes.
//!
//! Everything lives in two network namespaces: nginx, Kafka, the sampler, the aggregator, Alertmanager and the consumer in the
//! server's, the players in the client's. Everything ends with this process, also at Ctrl-C.

mod alerts;
mod bare;
mod centre;
mod edge;
mod last_ten;
mod play;
mod sampler;
mod stored;
mod streams;
mod summary;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::clock;
use lab::counters::{self, TcpCounters};
use lab::kafka::{self, Access, Cluster, topics};
use lab::network::{Network, Options};
use lab::traffic::client::Client;

use crate::cli::Demo;
use crate::consumer::Consumer;
use crate::interrupt;
use alerts::Alerts;
use bare::KernelCounters;
use centre::Centre;
use edge::Edge;
use last_ten::KernelSeconds;
use sampler::{Sampler, Start};
use table::{Table, Windows};

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
    match Sampler::start(&network, folder.path(), &cluster.broker_list())? {
        Start::Attached(sampler) => {
            println!("starting the aggregator, and an Alertmanager with a pager behind it");
            let centre = Centre::start(
                &network,
                folder.path(),
                &cluster.broker_list(),
                options.cassandra,
            )?;
            let consumer = Consumer::start(
                network.server(),
                &Access::plain(&brokers),
                "flowvitals-demo",
            )?;
            watch(options, &mut network, sampler, &consumer, &centre)?;
        }
        Start::Impossible(reason) => {
            println!(
                "\nno eBPF program can be loaded here: {reason}\n\
                 So there are no windows; the demo goes on with what the kernel counts by itself: one number for all\n\
                 streams, no RTT, no stalls. `flowvitals-sampler doctor` says what is missing."
            );
            watch_kernel(&mut network)?;
        }
    }
    drop(edge);
    cluster.stop();
    Ok(())
}

/// Starts the players and says who they are.
fn audience(network: &Network) -> Result<Client> {
    let players = Client::start(network.client(), &streams::players(network))?;
    for stream in &streams::ALL {
        println!("  {}", stream.description());
    }
    Ok(players)
}

/// The minute without windows.
fn watch_kernel(network: &mut Network) -> Result<()> {
    let before = TcpCounters::read(network.server())?;
    let players = audience(network)?;
    let mut screen = KernelCounters::new(network)?;
    play::acts(network, &mut screen)?;
    println!("\nthe players go");
    players.stop()?;
    summary::print_kernel(&TcpCounters::read(network.server())?.since(&before));
    Ok(())
}

/// The play itself, and the account at its end.
fn watch(
    options: Demo,
    network: &mut Network,
    sampler: Sampler,
    consumer: &Consumer,
    centre: &Centre,
) -> Result<()> {
    let before = TcpCounters::read(network.server())?;
    let players = audience(network)?;
    let mut windows = Windows {
        consumer,
        table: Table::default(),
        centre,
        alerts: Alerts::default(),
        kernel: KernelSeconds::default(),
    };
    play::acts(network, &mut windows)?;
    if options.keep && !interrupt::came() {
        println!(
            "everything stays up until Ctrl-C, in this network namespace: ip netns exec {} bash\n\
             configuration and logs: {}",
            network.server().name(),
            sampler.folder().display()
        );
        play::until_interrupt(network, &mut windows)?;
    }
    println!("\nthe players go; the sampler folds what is open and ends");
    let flows = players.stop()?;
    let ports: Vec<u16> = streams::ALL.iter().map(|stream| stream.port).collect();
    counters::wait_closed(network.server(), &ports, Duration::from_secs(20))?;
    sampler.stop()?;
    let mut table = windows.table;
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
