//! Which stream a new flow belongs to.
//!
//! In: the streams of a configuration. Out: [`RuleSet::classify`], which says it in the plainest
//! way, and [`RuleSet::compile`], the tables in which the kernel side finds the same answer with
//! one or two lookups. Pure; cgroup ids are asked from the caller. First match in order wins.

mod compile;
mod tables;

use std::net::SocketAddr;

use ebpf_abi::address::FlowTuple;

use crate::config::StreamConfig;
use crate::config::overlap::cgroup_covers;
use crate::config::pattern::canonical;

pub use compile::CompileError;
pub use tables::KernelRules;

/// A new flow, as far as rules can see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFlow<'a> {
    /// Our end.
    pub local: SocketAddr,
    /// The client's end.
    pub remote: SocketAddr,
    /// The listener's cgroup; none: not known, or none of those in the rules.
    pub cgroup: Option<&'a str>,
    /// `SO_MARK` at establishment.
    pub mark: u32,
}

impl NewFlow<'_> {
    /// Its addresses and ports as the kernel side holds them.
    pub fn tuple(&self) -> FlowTuple {
        tuple(self.local, self.remote)
    }
}

/// A pair of addresses and ports as the kernel side holds them.
pub fn tuple(local: SocketAddr, remote: SocketAddr) -> FlowTuple {
    FlowTuple {
        local: local.ip().into(),
        remote: remote.ip().into(),
        local_port: local.port(),
        remote_port: remote.port(),
    }
}

/// Why a stream does not take a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// Our address and port are in no entry of `local`.
    Local,
    /// The client is in no prefix of `remote`.
    Remote,
    /// The listener is in another cgroup.
    Cgroup,
    /// The mark is another one.
    Mark,
}

/// The rules of all streams, in the order in which they are tried.
#[derive(Debug, Clone, Copy)]
pub struct RuleSet<'a> {
    streams: &'a [StreamConfig],
}

impl<'a> RuleSet<'a> {
    /// The rules of these streams.
    pub fn new(streams: &'a [StreamConfig]) -> Self {
        Self { streams }
    }

    /// Index of the stream that takes a flow.
    pub fn classify(&self, flow: &NewFlow<'_>) -> Option<usize> {
        self.streams
            .iter()
            .position(|stream| mismatch(stream, flow).is_none())
    }
}

/// Why a stream's rule does not match a flow; none: it does.
pub fn mismatch(stream: &StreamConfig, flow: &NewFlow<'_>) -> Option<Mismatch> {
    if !stream
        .local
        .iter()
        .any(|pattern| pattern.contains(flow.local))
    {
        return Some(Mismatch::Local);
    }
    if !stream.takes_client(canonical(flow.remote.ip())) {
        return Some(Mismatch::Remote);
    }
    let in_cgroup = match (&stream.cgroup, flow.cgroup) {
        (None, _) => true,
        (Some(rule), Some(flow)) => cgroup_covers(rule, flow),
        (Some(_), None) => false,
    };
    if !in_cgroup {
        return Some(Mismatch::Cgroup);
    }
    match stream.mark {
        Some(mark) if mark != flow.mark => Some(Mismatch::Mark),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
