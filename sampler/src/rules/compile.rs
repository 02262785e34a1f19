//! From rules to the kernel's tables.
//!
//! A single address with a few ports becomes keys of the exact table; everything else expands
//! onto ports. A key's list holds every rule that can match there, in order, without those that
//! an earlier one hides. A key that finds no slot within reach is handled as a prefix, so no
//! configuration fails for the luck of the hash.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use ebpf_abi::address::Address;
use ebpf_abi::rules::{
    Candidate, EXACT_SLOTS, ExactEntry, HAS_MARK, MAX_CANDIDATES, MAX_LISTS, Target,
};
use ipnet::IpNet;

use super::RuleSet;
use super::tables::{Interner, KernelRules, ListsFull};
use crate::config::overlap::cgroup_covers;
use crate::config::pattern::{net_contains, net_covers};
use crate::config::{LocalPattern, PortRange, StreamConfig};

/// A single address with more ports than this expands onto ports instead of exact keys.
const MAX_RANGE_PORTS: u32 = 128;
/// Ranges of ports take no more of the exact table than this; single ports may fill it.
const MAX_RANGE_KEYS: u32 = EXACT_SLOTS as u32 / 2;

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
        /// The last stream of the first combination that no longer fits, by index.
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

/// What a place's list is made of: a stream, and what it says about our address there.
type Applying = (usize, Option<IpNet>);

/// A compilation on its way.
struct Compiler<'a, S, C> {
    streams: &'a [StreamConfig],
    stream_ids: S,
    cgroup_ids: C,
    /// Exact keys, and the streams whose patterns they come from.
    keys: BTreeMap<(IpAddr, u16), Vec<usize>>,
    /// All other patterns, with their streams.
    general: Vec<(usize, LocalPattern)>,
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
        let (keys, general) = split(self.streams);
        let mut compiler = Compiler {
            streams: self.streams,
            stream_ids,
            cgroup_ids,
            keys,
            general,
            interner: Interner::default(),
            tables: KernelRules::empty(),
        };
        compiler.fill_exact()?;
        compiler.fill_ports()?;
        Ok(compiler.tables)
    }
}

/// Exact keys and general patterns.
#[expect(
    clippy::type_complexity,
    reason = "the two fields of Compiler that it fills"
)]
fn split(
    streams: &[StreamConfig],
) -> (
    BTreeMap<(IpAddr, u16), Vec<usize>>,
    Vec<(usize, LocalPattern)>,
) {
    let exact = exact_patterns(streams);
    let mut keys: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    let mut general = Vec::new();
    for (at, stream) in streams.iter().enumerate() {
        for pattern in &stream.local {
            match pattern.single_address() {
                Some(address) if exact.contains(pattern) => {
                    for port in pattern.ports.first..=pattern.ports.last {
                        keys.entry((address, port)).or_default().push(at);
                    }
                }
                _ => general.push((at, *pattern)),
            }
        }
    }
    (keys, general)
}

/// The patterns whose keys belong in the exact table.
fn exact_patterns(streams: &[StreamConfig]) -> HashSet<LocalPattern> {
    let mut range_keys = 0;
    let mut single_keys = 0;
    let mut exact = HashSet::new();
    for pattern in streams.iter().flat_map(|stream| &stream.local) {
        if pattern.single_address().is_none() || exact.contains(pattern) {
            continue;
        }
        let ports = pattern.ports.count();
        let (keys, most) = match ports {
            1 => (&mut single_keys, EXACT_SLOTS as u32),
            _ => (&mut range_keys, MAX_RANGE_KEYS),
        };
        if ports <= MAX_RANGE_PORTS && *keys + ports <= most {
            *keys += ports;
            exact.insert(*pattern);
        }
    }
    exact
}

impl<'a, S: Fn(usize) -> u32, C: Fn(&str) -> Option<u64>> Compiler<'a, S, C> {
    /// Fills the exact table; keys that find no slot become general patterns.
    fn fill_exact(&mut self) -> Result<(), CompileError> {
        let mut displaced = Vec::new();
        for ((ip, port), own) in std::mem::take(&mut self.keys) {
            // The key says the address: the rules need not, and more lists are the same.
            let general = self.general.iter().filter(|(_, pattern)| {
                pattern.ports.contains(port) && net_contains(pattern.net, ip)
            });
            let streams = own.iter().copied().chain(general.map(|(at, _)| *at));
            let rules = self.rules(streams.map(|at| (at, None)).collect());
            let target = self.target(rules, || SocketAddr::new(ip, port).to_string())?;
            let address = Address::from(ip);
            match self.tables.free_slot(&address, port) {
                _ if target == Target::NONE => {} // only absent cgroups: no rule matches, here as on the port
                Some(slot) => {
                    self.tables.exact[slot] = ExactEntry {
                        address,
                        port,
                        reserved: 0,
                        target,
                    };
                }
                None => {
                    let ports = PortRange {
                        first: port,
                        last: port,
                    };
                    let pattern = LocalPattern {
                        net: Some(IpNet::from(ip)),
                        ports,
                    };
                    displaced.extend(own.iter().map(|at| (*at, pattern)));
                }
            }
        }
        self.general.append(&mut displaced);
        Ok(())
    }

    /// Fills the port table, one range of ports with the same rules at a time.
    fn fill_ports(&mut self) -> Result<(), CompileError> {
        let edges: BTreeSet<u32> = self
            .general
            .iter()
            .flat_map(|(_, pattern)| [u32::from(pattern.ports.first), pattern.ports.end()])
            .collect();
        let edges: Vec<u32> = edges.into_iter().collect();
        for range in edges.windows(2) {
            // The last edge can be 65536, but only as an end.
            let Ok(port) = u16::try_from(range[0]) else {
                continue;
            };
            let here = self
                .general
                .iter()
                .filter(|(_, pattern)| pattern.ports.contains(port));
            let rules = self.rules(here.map(|(at, pattern)| (*at, pattern.net)).collect());
            let target = self.target(rules, || format!("port {port}"))?;
            self.tables.ports[range[0] as usize..range[1] as usize].fill(target);
        }
        Ok(())
    }

    /// The rules that apply in one place, in order, without hidden ones.
    fn rules(&self, mut applying: Vec<Applying>) -> Vec<Rule<'a>> {
        let mut rules: Vec<Rule<'a>> = Vec::new();
        // Of one stream wide ones first, so that they hide its narrow ones.
        applying.sort_by_key(|(at, net)| (*at, net.map_or(0, |net| net.prefix_len() + 1)));
        applying.dedup();
        for (at, local) in applying {
            let stream = &self.streams[at];
            let present = |path: &String| (self.cgroup_ids)(path).is_some();
            if !stream.cgroup.as_ref().is_none_or(present) {
                continue;
            }
            for remote in remotes(stream) {
                let rule = Rule {
                    local,
                    remote,
                    stream: at,
                    config: stream,
                };
                if !rules.iter().any(|earlier| earlier.hides(&rule)) {
                    rules.push(rule);
                }
            }
        }
        rules
    }

    fn target(
        &mut self,
        rules: Vec<Rule<'a>>,
        local: impl FnOnce() -> String,
    ) -> Result<Target, CompileError> {
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
        let last = rules.last().map_or(0, |rule| rule.stream);
        let candidates = rules.iter().map(|rule| self.candidate(rule)).collect();
        self.interner
            .target(&mut self.tables.lists, candidates)
            .map_err(|ListsFull| CompileError::TooManyLists { stream: last })
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
