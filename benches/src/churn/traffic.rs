//! Connections that come and go. They are made in slices, each with players and an edge of its own, so that the accounts which both
//! keep of every connection do not pile up here; a slice ends while the next ones run.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::clock;
use lab::network::Network;
use lab::traffic::client::Client;
use lab::traffic::plan::{End, Plan};
use lab::traffic::server::{Listen, Server};

/// New connections a second.
pub const RATE_PER_S: usize = 1_200;
/// A slice starts its connections in this time.
const SLICE: Duration = Duration::from_secs(20);
/// Slices at a time: the last connections of one take their time.
const LANES: usize = 3;
/// Streams, each with a port for each lane.
const STREAMS: u16 = 20;
const FIRST_PORT: u16 = 20_000;
/// Name of the stream that comes and goes.
pub const GUEST: &str = "guest";
const GUEST_PORT: u16 = 30_000;
/// Players of a slice that stay some time, and those on the stream that comes and goes.
const LONG: usize = 50;
const GUESTS: usize = 20;
const LONG_REQUESTS: u32 = 30;
const LONG_PAUSE: Duration = Duration::from_millis(500);
/// So long after its last connection began a slice is ended by force: an end that has missed the other one's RST waits for ever.
const REST: Duration = Duration::from_secs(20);
/// How every connection but the long ones ends, one group each: what it asks for, bytes.
const ENDS: [(&str, End, u64); 6] = [
    ("client-fin", End::ClientFin, 10_000),
    ("server-fin", End::ServerFin, 1_000),
    ("half-close", End::HalfClose, 30_000),
    ("client-reset", End::ClientReset, 10_000),
    ("server-reset", End::ServerReset, 3_000),
    ("abort", End::Abort { after_bytes: 5_000 }, 20_000),
];

/// The edge's addresses.
#[derive(Clone, Copy)]
pub struct Site {
    server: IpAddr,
}

impl Site {
    /// At this address.
    pub fn new(server: IpAddr) -> Self {
        Self { server }
    }

    /// The streams of a configuration.
    pub fn streams(&self, has_guest: bool) -> String {
        let mut text = String::new();
        let mut stream = |name: &str, addresses: Vec<String>| {
            // Writing to a String cannot fail.
            let _ = write!(text, "[[stream]]\nname = {name:?}\nlocal = {addresses:?}\n");
        };
        for n in 0..STREAMS {
            let addresses = (0..LANES).map(|lane| self.address(lane, n).to_string());
            stream(&format!("sport-{n}"), addresses.collect());
        }
        if has_guest {
            let addresses = (0..LANES).map(|lane| self.guest(lane).to_string());
            stream(GUEST, addresses.collect());
        }
        text
    }

    fn address(&self, lane: usize, stream: u16) -> SocketAddr {
        SocketAddr::new(self.server, FIRST_PORT + 100 * lane as u16 + stream)
    }

    fn guest(&self, lane: usize) -> SocketAddr {
        SocketAddr::new(self.server, GUEST_PORT + lane as u16)
    }

    fn servers(&self, lane: usize) -> Vec<SocketAddr> {
        (0..STREAMS)
            .map(|stream| self.address(lane, stream))
            .collect()
    }
}

/// Slices, one after the other and a little beside each other.
pub struct Traffic<'a> {
    network: &'a Network,
    site: Site,
    begin: Instant,
    begun: u32,
    lanes: [Option<Slice>; LANES],
    /// Connections of slices that are over, guests left out.
    done: usize,
}

impl<'a> Traffic<'a> {
    /// Begins; the first slice comes with the first [`Self::go_on`].
    pub fn start(network: &'a Network, site: &Site) -> Self {
        Self {
            network,
            site: *site,
            begin: clock::now(),
            begun: 0,
            lanes: [const { None }; LANES],
            done: 0,
        }
    }

    /// Starts the slice that is due.
    pub fn go_on(&mut self) -> Result<()> {
        if self.begin.elapsed() < SLICE * self.begun {
            return Ok(());
        }
        let lane = self.begun as usize % LANES;
        if let Some(slice) = self.lanes[lane].take() {
            self.done += slice.wait()?;
        }
        self.lanes[lane] = Some(Slice::start(self.network, &self.site, lane)?);
        self.begun += 1;
        Ok(())
    }

    /// Connections begun so far.
    pub fn connections(&self) -> usize {
        let running = self.lanes.iter().flatten();
        self.done + running.map(|slice| slice.players.launched()).sum::<usize>()
    }

    /// Waits for all slices; the connections that streams which stay must have counted.
    pub fn stop(self) -> Result<usize> {
        let running = self.lanes.into_iter().flatten();
        running
            .map(Slice::wait)
            .try_fold(self.done, |all, one| Ok(all + one?))
    }
}

/// Some thousand connections.
struct Slice {
    begin: Instant,
    players: Client,
    edge: Server,
    guests: SocketAddr,
}

impl Slice {
    fn start(network: &Network, site: &Site, lane: usize) -> Result<Self> {
        let (servers, guests) = (site.servers(lane), site.guest(lane));
        let listens = servers.iter().chain([&guests]);
        let listens: Vec<_> = listens.copied().map(Listen::new).collect();
        let edge = Server::start(network.server(), &listens)?;
        let clients = network.clients_v4();
        let each = RATE_PER_S * SLICE.as_secs() as usize / ENDS.len();
        let plan = |name: &str, connections, servers: &[SocketAddr]| Plan {
            clients: clients.clone(),
            start_spread: SLICE,
            ..Plan::new(name, connections, servers.to_vec())
        };
        let short = ENDS.map(|(name, end, bytes)| {
            plan(name, each, &servers)
                .asking(1, bytes, Duration::ZERO)
                .ending(end)
        });
        let long = [
            plan("long", LONG, &servers).asking(LONG_REQUESTS, 10_000, LONG_PAUSE),
            plan("guests", GUESTS, &[guests]).asking(LONG_REQUESTS, 10_000, LONG_PAUSE),
        ];
        let plans: Vec<_> = short.into_iter().chain(long).collect();
        let players = Client::start(network.client(), &plans)?;
        Ok(Self {
            begin: clock::now(),
            players,
            edge,
            guests,
        })
    }

    /// Until every connection is over; how many the edge has accepted, guests left out.
    fn wait(self) -> Result<usize> {
        let left = (SLICE + REST).saturating_sub(self.begin.elapsed());
        clock::wait_until(left, || self.players.is_finished());
        self.players.stop()?;
        let flows = self.edge.stop()?;
        Ok(flows
            .iter()
            .filter(|flow| flow.server != self.guests)
            .count())
    }
}
