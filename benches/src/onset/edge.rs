//! A site in two namespaces: players, two nodes, Kafka, the aggregator, Alertmanager, the pager.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::alertmanager::webhook::{Notification, Webhook};
use lab::alertmanager::{self, Alertmanager};
use lab::clock;
use lab::clock::unix_ms_of;
use lab::filter::{Selector, Towards};
use lab::kafka::Cluster;
use lab::network::{Network, Options};
use lab::traffic::client::Client;
use lab::traffic::plan::Plan;
use lab::traffic::server::{Listen, Server};

use super::listen::{Heard, Listener, Paged};
use crate::daemons::Daemon;
use crate::setup;
use crate::site::broker_in;

/// Flows of a stream on one node.
pub const FLOWS: usize = 60;
/// What each of them carries.
pub const MBIT_PER_S: f64 = 2.0;
/// A player's segments come so far apart.
const SEGMENT: Duration = Duration::from_secs(2);
const NODES: usize = 2;
const FIRST_PORT: u16 = 8_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A stream and the loss that is usual on its way.
pub struct Stream {
    pub name: &'static str,
    pub loss: f64,
}

/// Everything that runs; taken away in the order of the fields.
pub struct Edge {
    players: Client,
    listener: Listener,
    _aggregator: Daemon,
    _samplers: Vec<Daemon>,
    pager: Webhook,
    _alertmanager: Alertmanager,
    _cluster: Cluster,
    _server: Server,
    network: Network,
    _folder: tempfile::TempDir,
}

/// Ports of a stream: one for each node.
fn ports(stream: usize) -> std::ops::RangeInclusive<u16> {
    let first = FIRST_PORT + 10 * stream as u16;
    first..=first + NODES as u16 - 1
}

impl Edge {
    /// Starts everything and waits until all players play.
    pub fn start(streams: &[Stream], above: f64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut network = Network::new(Options::default())?;
        for (index, stream) in streams.iter().enumerate() {
            set_loss(&mut network, index, stream.loss)?;
        }
        let cluster = broker_in(network.server())?;
        // A process and a socket live where they were made.
        let (pager, alertmanager) = network.server().run_in(|| -> Result<_> {
            let pager = Webhook::start()?;
            let options = alertmanager::Options {
                receivers: Some(pager.url()),
                ..Default::default()
            };
            let alertmanager = Alertmanager::start(&options)?;
            Ok((pager, alertmanager))
        })??;
        let servers = |node: usize| {
            let ports = (0..streams.len()).map(move |stream| ports(stream).start() + node as u16);
            let address = network.server_v4();
            ports
                .map(move |port| SocketAddr::new(address, port))
                .collect::<Vec<_>>()
        };
        let all: Vec<_> = (0..NODES).flat_map(servers).collect();
        let listens: Vec<_> = all.iter().copied().map(Listen::new).collect();
        let server = Server::start(network.server(), &listens)?;
        let samplers = (0..NODES)
            .map(|node| {
                let file = folder.path().join(format!("sampler-{node}.toml"));
                fs::write(
                    &file,
                    sampler_config(
                        node,
                        streams,
                        &servers(node),
                        folder.path(),
                        &cluster.broker_list(),
                    )?,
                )?;
                Daemon::start(network.server(), "flowvitals-sampler", &file, "attached at")
            })
            .collect::<Result<Vec<_>>>()?;
        let file = folder.path().join("aggregator.toml");
        fs::write(
            &file,
            aggregator_config(
                &cluster.broker_list(),
                &alertmanager.url(),
                above,
                folder.path(),
            ),
        )?;
        let aggregator = Daemon::start(
            network.server(),
            "flowvitals-aggregator",
            &file,
            "answering on",
        )?;
        let record = std::env::var_os("FLOWVITALS_RECORD");
        let listener = Listener::start(
            network.server(),
            &cluster.brokers(),
            record.as_deref().map(Path::new),
        )?;
        let bytes = (MBIT_PER_S * 1e6 / 8.0 * SEGMENT.as_secs_f64()) as u64;
        let mut plan = Plan::new("live", FLOWS * all.len(), all).asking(u32::MAX, bytes, SEGMENT);
        plan.start_spread = SEGMENT;
        let players = setup::players(&network, plan)?;
        let wanted = FLOWS * NODES * streams.len();
        ensure!(
            clock::wait_until(PATIENCE, || server.open() >= wanted),
            "only {} of {wanted} flows came",
            server.open()
        );
        Ok(Self {
            players,
            listener,
            _aggregator: aggregator,
            _samplers: samplers,
            pager,
            _alertmanager: alertmanager,
            _cluster: cluster,
            _server: server,
            network,
            _folder: folder,
        })
    }

    /// Sets the loss on a stream's way, at both nodes.
    pub fn set_loss(&mut self, stream: usize, probability: f64) -> Result<()> {
        set_loss(&mut self.network, stream, probability)
    }

    /// What was heard so far.
    pub fn heard(&self) -> Heard {
        let mut heard = self.listener.heard();
        heard.paged = pages(&self.pager.notifications());
        heard
    }

    /// Ends the players, then everything else.
    pub fn stop(self) -> Result<()> {
        self.players.stop()?;
        Ok(())
    }
}

fn set_loss(network: &mut Network, stream: usize, probability: f64) -> Result<()> {
    let selector = Selector {
        server_ports: Some(ports(stream)),
        ..Selector::default()
    };
    Ok(network.set_loss(Towards::Client, &selector, probability)?)
}

fn sampler_config(
    node: usize,
    streams: &[Stream],
    servers: &[SocketAddr],
    folder: &Path,
    brokers: &[String],
) -> Result<String> {
    let mut text = format!(
        "node = \"edge-{node}\"\nsite = \"bench\"\n[sampling]\nrate = 1.0\nalone = false\n[state]\ndirectory = {:?}\n[kafka]\nbrokers = {brokers:?}\n\
         [metrics]\nlisten = \"127.0.0.1:{}\"\n[limits]\naction = \"log\"\n",
        folder.join(format!("state-{node}")),
        9_740 + 10 * node
    );
    for (stream, server) in streams.iter().zip(servers) {
        write!(
            text,
            "[[stream]]\nname = \"{}\"\nlocal = [\"{server}\"]\npulse_ms = 100\n",
            stream.name
        )?;
    }
    Ok(text)
}

fn aggregator_config(brokers: &[String], alertmanager: &str, above: f64, folder: &Path) -> String {
    format!(
        "site = \"bench\"\nroles = [\"alert\"]\n[kafka]\nbrokers = {brokers:?}\n[store]\nkind = \"none\"\ndirectory = {:?}\n\
         [alertmanager]\nurls = [\"{alertmanager}\"]\n\
         [[alert]]\nname = \"retransmissions\"\nstreams = [\"sport-*\"]\nmetric = \"retrans_ratio\"\nover_s = 10\nabove = {above}\n\
         clear_below = {}\nhold_s = 0\nclear_for_s = 5\n",
        folder.join("store"),
        above * 0.9
    )
}

/// The notifications that page; others are only shown.
fn pages(notifications: &[Notification]) -> Vec<Paged> {
    let pages = notifications.iter().filter(|one| one.receiver == "page");
    pages
        .flat_map(|one| {
            one.labels("stream").into_iter().map(|stream| Paged {
                at_ms: unix_ms_of(one.wall),
                stream: stream.to_owned(),
                firing: one.is_firing(),
            })
        })
        .collect()
}
