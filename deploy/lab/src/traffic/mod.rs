//! Many TCP connections at once, counted on both ends.
//!
//! A [`server::Server`] in one namespace answers requests on many ports; a [`client::Client`] in
//! the other follows [`plan::Plan`]s: how many connections, what they ask for, how they read and
//! how they end. Each is one thread with epoll. [`report::Report`] sets both ends' counts side by
//! side, to be compared with what the kernel counted. Bytes are those handed to and taken from the
//! kernel; times are wall-clock durations.
//!
//! The request protocol is lines: `GET n` is answered by n bytes, `DRIP n chunk pause_ms` by n
//! bytes in chunks with pauses, after `BYE` the server closes first, after `RST` it resets.

pub mod client;
mod connection;
pub mod plan;
mod reply;
pub mod report;
pub mod server;
mod socket;

use std::io;

use crate::counters::{self, CountersError};
use crate::netns::NetnsError;
use crate::network::Network;

/// Traffic that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A port cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No epoll, no thread, or a wait that failed.
    #[error("cannot run the event loop: {0}")]
    Loop(#[from] io::Error),
    /// The kernel's table of sockets cannot be read.
    #[error(transparent)]
    Counters(#[from] CountersError),
    /// A plan without a server to connect to.
    #[error("plan {0} names no server")]
    NoServer(String),
    /// A thread panicked; it has said why.
    #[error("the traffic thread panicked")]
    Panicked,
}

/// Serves on `listens`, carries out `plans` to their end, and counts.
///
/// # Errors
/// When one of both ends cannot start.
pub fn run(
    network: &Network,
    listens: &[server::Listen],
    plans: &[plan::Plan],
) -> Result<report::Report, TrafficError> {
    let server = server::Server::start(network.server(), listens)?;
    let client = client::Client::start(network.client(), plans)?;
    let clients = client.wait()?;
    // The last closes are on their way; with loss they may need a few retransmits, and only then
    // are the kernel's counters final. What is open after that shows in the report as open.
    let patience = std::time::Duration::from_secs(60);
    let _ = server.idle_within(patience);
    let ports: Vec<u16> = listens.iter().map(|l| l.address.port()).collect();
    counters::wait_closed(network.server(), &ports, patience)?;
    let servers = server.stop()?;
    Ok(report::Report::new(plans, clients, servers))
}
