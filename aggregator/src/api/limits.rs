//! What the interface spends on those who ask, and what is counted when it is not enough.
//!
//! Input: connections and requests. Output: whether they are served. Whoever is turned away is told so where that is possible, and
//! counted always. Units: in the names; times are [`Duration`]s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use service::metrics::{Family, Kind, Sample, Value};

/// Longest path and query, bytes: the longest right one has less than 400.
pub const MAX_URI_BYTES: usize = 4 * 1024;
/// Largest head of a request, bytes.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Headers of a request.
pub const MAX_HEADERS: usize = 64;
/// Largest body of a request, bytes: nothing takes one, but some clients send an empty object.
pub const MAX_BODY_BYTES: u64 = 4 * 1024;

/// How much at once, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once; more are closed with 503.
    pub connections: usize,
    /// Requests that are being answered at once; more are answered with 503. `/healthz` is not among them.
    pub requests: usize,
    /// For the TLS handshake, and from one request's end to the end of the next one's head.
    pub head: Duration,
    /// From a request's head to the answer's head.
    pub answer: Duration,
    /// A client that takes nothing for so long is cut off.
    pub stalled: Duration,
    /// From the begin of the stop to the end of all connections.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            requests: 32,
            head: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            stalled: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        }
    }
}

/// Who was turned away since the start.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Refusal::ALL.len()]);

/// Why one was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many connections.
    Connections,
    /// Too many requests at once.
    Requests,
    /// The answer took too long.
    Slow,
    /// The token was missing or wrong.
    Token,
    /// Too much was sent.
    Size,
    /// No TLS connection came about.
    Handshake,
    /// No whole head of a request came in time, be it the first or the next.
    Idle,
    /// What came was no request.
    Malformed,
}

impl Refusal {
    /// All of them, with their names.
    const ALL: [(Self, &'static str); 8] = [
        (Self::Connections, "connections"),
        (Self::Requests, "requests"),
        (Self::Slow, "slow"),
        (Self::Token, "token"),
        (Self::Size, "size"),
        (Self::Handshake, "handshake"),
        (Self::Idle, "idle"),
        (Self::Malformed, "malformed"),
    ];
}

impl Refusals {
    /// One more.
    pub fn count(&self, why: Refusal) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many.
    pub fn of(&self, why: Refusal) -> u64 {
        self.0[why as usize].load(Ordering::Relaxed)
    }

    /// For the exposition.
    pub fn family(&self) -> Family {
        let samples = Refusal::ALL.map(|(why, name)| Sample {
            labels: vec![("reason", name.to_owned())],
            value: Value::Number(self.of(why) as f64),
        });
        Family {
            name: "flowvitals_aggregator_http_refused_total",
            help: "Connections and requests turned away, by reason.",
            kind: Kind::Counter,
            samples: samples.to_vec(),
        }
    }
}
