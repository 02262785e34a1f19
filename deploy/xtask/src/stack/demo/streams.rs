//! The three live streams: their ports, players and segments.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use lab::network::Network;
use lab::traffic::plan::{Plan, Request};

/// A live stream of the demo.
pub struct Stream {
    pub name: &'static str,
    pub port: u16,
    pub players: usize,
    /// Share of its flows that is sampled.
    pub rate: f64,
    pub segment_bytes: usize,
    /// Time between two segments of one player.
    pub segment: Duration,
}

/// One big stream where one in ten is enough, two small ones where every flow counts.
pub const ALL: [Stream; 3] = [
    Stream {
        name: "sport-1",
        port: 8081,
        players: 1_200,
        rate: 0.1,
        segment_bytes: 60_000,
        segment: Duration::from_secs(4),
    },
    Stream {
        name: "news",
        port: 8082,
        players: 120,
        rate: 1.0,
        segment_bytes: 60_000,
        segment: Duration::from_secs(4),
    },
    Stream {
        name: "kids",
        port: 8083,
        players: 80,
        rate: 1.0,
        segment_bytes: 60_000,
        segment: Duration::from_secs(2),
    },
];

/// Segments that lie on the edge; players ask for them in turn, as a live playlist names them.
pub const SEGMENTS: u32 = 6;

impl Stream {
    pub fn description(&self) -> String {
        format!(
            "{:<8} port {}: {} players, a segment of {} kB every {} s each, sampled at rate {}",
            self.name,
            self.port,
            self.players,
            self.segment_bytes / 1_000,
            self.segment.as_secs(),
            self.rate
        )
    }
}

/// The players: live viewers who stay until the demo ends, half of them over IPv6.
pub fn players(network: &Network) -> Vec<Plan> {
    ALL.iter()
        .map(|stream| Plan {
            start_spread: stream.segment,
            request: Request::Http {
                path: "/segment-{}.ts".to_owned(),
                modulo: SEGMENTS,
            },
            requests: u32::MAX,
            pause: stream.segment,
            ..Plan::new(
                stream.name,
                stream.players,
                vec![
                    SocketAddr::new(network.server_v4(), stream.port),
                    SocketAddr::new(network.server_v6(), stream.port),
                ],
            )
        })
        .collect()
}

/// The sampler's configuration.
pub fn config(network: &Network, folder: &Path, brokers: &[String]) -> String {
    let mut text = format!(
        "node = \"edge-demo\"\nsite = \"demo\"\n\
         [kafka]\nbrokers = {brokers:?}\n\
         [state]\ndirectory = {state:?}\n\
         [metrics]\nlisten = \"{METRICS}\"\n\
         # The demo shows the rates that it states, whatever else this machine is doing.\n\
         [limits]\naction = \"log\"\n",
        state = folder.join("state"),
    );
    for stream in &ALL {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[[stream]]\nname = \"{}\"\nlocal = [\"{}\", \"{}\"]\nrate = {:?}\npulse_ms = 100\n",
            stream.name,
            SocketAddr::new(network.server_v4(), stream.port),
            SocketAddr::new(network.server_v6(), stream.port),
            stream.rate,
        );
    }
    text
}

/// Where the sampler's /healthz is, in the edge's namespace.
pub const METRICS: &str = "127.0.0.1:9740";
