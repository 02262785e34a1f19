//! From rules to the kernel's tables.
//!
//! A single address with a few ports becomes keys of the exact table; everything else expands
//! onto ports. A key's list holds every rule that can match there, in order, without those that
//! an earlier one hides. A key that finds no slot within reach is handled as a prefix, so no
//! configuration fails for the luck of the hash.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ebpf_abi::address::Address;
use ebpf_abi::rules::{Candidate, ExactEntry, HAS_MARK, MAX_CANDIDATES, MAX_LISTS};
use ipnet::IpNet;

use super::RuleSet;
use super::tables::{Interner, KernelRules, ListsFull};
use crate::config::overlap::cgroup_covers;
use crate::config::pattern::{net_contains, net_covers};
use crate::config::{LocalPattern, StreamConfig};

/// A single address with more ports than this expands onto ports instead of exact keys.
const MAX_EXACT_PORTS: u32 = 128;

/// Why rules do not fit into the kernel's tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More conditions can apply to one local end than a lookup tries.
    #[error(
        "{count} conditions (a stream's prefixes count each) can apply to a flow to {local}, \
         from streams {}; the kernel side tries {MAX_CANDIDATES}",
        .streams.join(", ")
    )]
    TooManyCandidates {
        /// The address and port.
        local: String,
        /// The first stream that no longer fits, by index.
        stream: usize,
        /// How many conditions there are.
        count: usize,
        /// The names of their streams.
        streams: Vec<String>,
    },
    /// There are more different combinations of rules than the kernel side holds.
    #[error(
        "more than {} different combinations of rules on addresses and ports",
        MAX_LISTS - 1
    )]
    TooManyLists {
        /// The first stream that no longer fits, by index.
        stream: usize,
    },
}

/// One condition, before it is written in the kernel's form.
#[derive(Clone, Copy)]
struct Rule<'a> {
    local: Option<IpNet>,
    remote: Option<IpNet>,
    stream: usize,
    config: &'a StreamConfig,
}

impl Rule<'_> {
    /// Whether this rule takes every flow that the other would take.
    fn hides(&self, other: &Self) -> bool {
        let cgroup = match (&self.config.cgroup, &other.config.cgroup) {
            (None, _) => true,
            (Some(outer), Some(inner)) => cgroup_covers(outer, inner),
            (Some(_), None) => false,
        };
        let mark = self.config.mark.is_none() || self.config.mark == other.config.mark;
        cgroup
            && mark
            && net_covers(self.local, other.local)
            && net_covers(self.remote, other.remote)
    }
}

/// The part of a compilation that does not change.
struct Compiler<'a, S, C> {
    streams: &'a [StreamConfig],
    stream_ids: S,
    cgroup_ids: C,
    interner: Interner,
    tables: KernelRules,
}

impl<'a> RuleSet<'a> {
    /// The kernel's form of the rules.
    ///
    /// `stream_ids` gives the place of a stream (by index) in the kernel's stream table;
    /// `cgroup_ids` the id of a cgroup path, none if it is not there: its rules then match
    /// nothing and are left out until it comes.
    pub fn compile(
        &self,
        stream_ids: impl Fn(usize) -> u32,
        cgroup_ids: impl Fn(&str) -> Option<u64>,
    ) -> Result<KernelRules, CompileError> {
        let mut compiler = Compiler {
            streams: self.streams,
            stream_ids,
            cgroup_ids,
            interner: Interner::default(),
            tables: KernelRules::empty(),
        };
        let displaced = compiler.exact()?;
        compiler.ports(&displaced)?;
        Ok(compiler.tables)
    }
}

/// The exact keys of a pattern, if it is one for the exact table.
fn exact_keys(pattern: &LocalPattern) -> Option<impl Iterator<Item = (IpAddr, u16)> + use<>> {
    let address = pattern.single_address()?;
    let ports = pattern.ports;
    (ports.count() <= MAX_EXACT_PORTS)
        .then(|| (ports.first..=ports.last).map(move |port| (address, port)))
}

impl<'a, S: Fn(usize) -> u32, C: Fn(&str) -> Option<u64>> Compiler<'a, S, C> {
    /// Fills the exact table; returns the keys that found no slot.
    fn exact(&mut self) -> Result<BTreeSet<(u16, IpAddr)>, CompileError> {
        // The first stream of a key is the one to blame when there is no room for it.
        let mut keys: BTreeMap<(IpAddr, u16), usize> = BTreeMap::new();
        for (at, stream) in self.streams.iter().enumerate() {
            for key in stream.local.iter().filter_map(exact_keys).flatten() {
                keys.entry(key).or_insert(at);
            }
        }
        let mut displaced = BTreeSet::new();
        for ((ip, port), first) in keys {
            let rules = self.rules(|pattern| {
                // The key says the address: the rule need not, and more lists are the same.
                let matches = pattern.ports.contains(port) && net_contains(pattern.net, ip);
                matches.then_some(None)
            });
            let list = self.list(rules, first, || {
                std::net::SocketAddr::new(ip, port).to_string()
            })?;
            let address = Address::from(ip);
            match self.tables.free_slot(&address, port) {
                _ if list == 0 => {} // only absent cgroups: no rule matches, here as on the port
                Some(slot) => {
                    self.tables.exact[slot] = ExactEntry {
                        address,
                        port,
                        list,
                        reserved: 0,
                    };
                }
                None => drop(displaced.insert((port, ip))),
            }
        }
        Ok(displaced)
    }

    /// Fills the port table, one range of ports with the same rules at a time.
    fn ports(&mut self, displaced: &BTreeSet<(u16, IpAddr)>) -> Result<(), CompileError> {
        let mut edges: BTreeSet<u32> = displaced
            .iter()
            .flat_map(|(port, _)| [u32::from(*port), u32::from(*port) + 1])
            .collect();
        for pattern in self.streams.iter().flat_map(|stream| &stream.local) {
            if exact_keys(pattern).is_none() {
                edges.extend([
                    u32::from(pattern.ports.first),
                    u32::from(pattern.ports.last) + 1,
                ]);
            }
        }
        let edges: Vec<u32> = edges.into_iter().collect();
        for range in edges.windows(2) {
            // The last edge can be 65536, but only as an end.
            let Ok(port) = u16::try_from(range[0]) else {
                continue;
            };
            let rules = self.rules(|pattern| {
                let here = match exact_keys(pattern) {
                    None => true,
                    Some(_) => pattern
                        .single_address()
                        .is_some_and(|address| displaced.contains(&(port, address))),
                };
                (here && pattern.ports.contains(port)).then_some(pattern.net)
            });
            let first = rules.first().map_or(0, |rule| rule.stream);
            let list = self.list(rules, first, || format!("port {port}"))?;
            self.tables.ports[range[0] as usize..range[1] as usize].fill(u64::from(list));
        }
        Ok(())
    }

    /// The rules that apply in one place, in order, without hidden ones. `local` says whether a
    /// pattern applies there, and what is left to be said about the address.
    fn rules(&self, local: impl Fn(&LocalPattern) -> Option<Option<IpNet>>) -> Vec<Rule<'a>> {
        let mut rules: Vec<Rule<'a>> = Vec::new();
        for (at, stream) in self.streams.iter().enumerate() {
            let present = |path: &String| (self.cgroup_ids)(path).is_some();
            if !stream.cgroup.as_ref().is_none_or(present) {
                continue;
            }
            let mut nets: Vec<_> = stream.local.iter().filter_map(&local).collect();
            // Wide ones first, so that they hide the narrow ones of the same stream.
            nets.sort_by_key(|net| net.map_or(0, |net| u32::from(net.prefix_len()) + 1));
            for net in nets {
                for remote in remotes(stream) {
                    let rule = Rule {
                        local: net,
                        remote,
                        stream: at,
                        config: stream,
                    };
                    if !rules.iter().any(|earlier| earlier.hides(&rule)) {
                        rules.push(rule);
                    }
                }
            }
        }
        rules
    }

    fn list(
        &mut self,
        rules: Vec<Rule<'a>>,
        first: usize,
        local: impl FnOnce() -> String,
    ) -> Result<u16, CompileError> {
        if let Some(over) = rules.get(MAX_CANDIDATES) {
            let mut streams: Vec<_> = rules.iter().map(|rule| rule.config.name.clone()).collect();
            streams.dedup();
            return Err(CompileError::TooManyCandidates {
                local: local(),
                stream: over.stream,
                count: rules.len(),
                streams,
            });
        }
        let candidates = rules.iter().map(|rule| self.candidate(rule)).collect();
        self.interner
            .number(&mut self.tables.lists, candidates)
            .map_err(|ListsFull| CompileError::TooManyLists { stream: first })
    }

    fn candidate(&self, rule: &Rule<'_>) -> Candidate {
        let (local, local_mask) = masked(rule.local);
        let (remote, remote_mask) = masked(rule.remote);
        let cgroup = rule.config.cgroup.as_deref();
        Candidate {
            local,
            local_mask,
            remote,
            remote_mask,
            cgroup_id: cgroup.and_then(|path| (self.cgroup_ids)(path)).unwrap_or(0),
            mark: rule.config.mark.unwrap_or(0),
            flags: if rule.config.mark.is_some() {
                HAS_MARK
            } else {
                0
            },
            stream: (self.stream_ids)(rule.stream),
            reserved: 0,
        }
    }
}

fn remotes(stream: &StreamConfig) -> Vec<Option<IpNet>> {
    match stream.remote.as_slice() {
        [] => vec![None],
        nets => nets.iter().copied().map(Some).collect(),
    }
}

/// A network as 16 bytes and a mask; IPv4 lies in `::ffff:0:0/96`.
fn masked(net: Option<IpNet>) -> (Address, Address) {
    match net {
        None => (Address::default(), Address::default()),
        Some(net @ IpNet::V4(_)) => (
            net.network().into(),
            Address::mask(96 + u32::from(net.prefix_len())),
        ),
        Some(net @ IpNet::V6(_)) => (
            net.network().into(),
            Address::mask(u32::from(net.prefix_len())),
        ),
    }
}
