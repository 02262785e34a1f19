//! What a group of players does: pure data.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What one request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// This many bytes, as fast as they go.
    Bytes(u64),
    /// Bytes in chunks with pauses between them: an application that is slow itself.
    Drip {
        /// All of them.
        bytes: u64,
        /// At a time.
        chunk_bytes: u64,
        /// Between two chunks.
        pause: Duration,
    },
    /// HTTP/1.1 GET; `{}` in the path becomes the number of the request modulo `modulo`.
    Http {
        /// Absolute path.
        path: String,
        /// 0: the number itself.
        modulo: u32,
    },
}

/// How the players read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All that comes, at once.
    Full,
    /// Stops once in its life after so many bytes, for so long, then goes on.
    Stop {
        /// Bytes read before the stop.
        after_bytes: u64,
        /// Length of the stop.
        pause: Duration,
    },
}

/// How a connection ends after its last response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client sends FIN, reads to the end, and closes.
    ClientFin,
    /// The client asks for the close, the server sends FIN first.
    ServerFin,
    /// The client sends FIN with the last request, and reads the response afterwards.
    HalfClose,
    /// The client resets (SO_LINGER 0) after the last response.
    ClientReset,
    /// The server resets (SO_LINGER 0) after the last response. Not with HTTP.
    ServerReset,
    /// The client resets in the middle of a response, after so many bytes in all.
    Abort {
        /// Bytes read before.
        after_bytes: u64,
    },
}

/// A group of connections of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name of the group, in the report.
    pub name: String,
    /// How many in all.
    pub connections: usize,
    /// How many at a time, 0 for no limit.
    pub concurrency: usize,
    /// Whom to connect to, in turn.
    pub servers: Vec<SocketAddr>,
    /// From where, in turn; empty: the kernel chooses.
    pub clients: Vec<IpAddr>,
    /// The connections start evenly over this time.
    pub start_spread: Duration,
    /// What is asked for.
    pub request: Request,
    /// How many times, one after the other on the same connection.
    pub requests: u32,
    /// Between the end of a response and the next request.
    pub pause: Duration,
    /// How the responses are read.
    pub reading: Reading,
    /// Kernel's receive buffer (SO_RCVBUF); set it small for a reader that stops.
    pub receive_buffer_bytes: Option<usize>,
    /// Idle time after the last response, before the end.
    pub hold: Duration,
    /// How they end.
    pub end: End,
    /// Request inside the SYN where the kernel has a cookie.
    pub fast_open: bool,
}

impl Plan {
    /// `connections` players, each of which asks one server once for 100 kB and closes.
    #[must_use]
    pub fn new(name: &str, connections: usize, servers: Vec<SocketAddr>) -> Self {
        Self {
            name: name.to_owned(),
            connections,
            concurrency: 0,
            servers,
            clients: Vec::new(),
            start_spread: Duration::ZERO,
            request: Request::Bytes(100_000),
            requests: 1,
            pause: Duration::ZERO,
            reading: Reading::Full,
            receive_buffer_bytes: None,
            hold: Duration::ZERO,
            end: End::ClientFin,
            fast_open: false,
        }
    }

    /// The same with another end.
    #[must_use]
    pub fn ending(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// The same with `requests` of `bytes` each, `pause` apart.
    #[must_use]
    pub fn asking(mut self, requests: u32, bytes: u64, pause: Duration) -> Self {
        self.requests = requests;
        self.request = Request::Bytes(bytes);
        self.pause = pause;
        self
    }

    /// The text that goes out for request number `n`, counted from 0.
    pub(crate) fn request_text(&self, n: u32) -> String {
        let last = n + 1 >= self.requests;
        match &self.request {
            Request::Bytes(bytes) => format!("GET {bytes}\n"),
            Request::Drip {
                bytes,
                chunk_bytes,
                pause,
            } => format!("DRIP {bytes} {chunk_bytes} {}\n", pause.as_millis()),
            Request::Http { path, modulo } => {
                let number = n.checked_rem(*modulo).unwrap_or(n);
                let path = path.replace("{}", &number.to_string());
                let close = if last && self.end == End::ServerFin {
                    "Connection: close\r\n"
                } else {
                    ""
                };
                format!("GET {path} HTTP/1.1\r\nHost: edge\r\n{close}\r\n")
            }
        }
    }

    /// The text that asks the server for the end, if it is asked for by text.
    pub(crate) fn end_text(&self) -> Option<&'static str> {
        match (self.end, &self.request) {
            (_, Request::Http { .. }) => None,
            (End::ServerFin, _) => Some("BYE\n"),
            (End::ServerReset, _) => Some("RST\n"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_paths_count_modulo_and_the_last_request_asks_for_the_close() {
        let plan = Plan {
            request: Request::Http {
                path: "/live/{}.ts".into(),
                modulo: 2,
            },
            requests: 4,
            ..Plan::new("hls", 1, Vec::new()).ending(End::ServerFin)
        };
        assert_eq!(
            plan.request_text(2),
            "GET /live/0.ts HTTP/1.1\r\nHost: edge\r\n\r\n"
        );
        assert_eq!(
            plan.request_text(3),
            "GET /live/1.ts HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n"
        );
    }
}
