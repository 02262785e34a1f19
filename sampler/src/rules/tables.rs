//! The tables of the kernel side, as user space writes them, and the kernel side's lookup.

use std::collections::{HashMap, HashSet};

use ebpf_abi::address::{Address, FlowTuple};
use ebpf_abi::rules::{
    Candidate, EXACT_SLOTS, ExactEntry, List, MAX_CANDIDATES, MAX_LISTS, MAX_PROBES, PORTS, Target,
    exact_slot, matches,
};

/// One copy of every rule table, ready to be written into the maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRules {
    /// `EXACT_SLOTS` entries: by exact address and port.
    pub exact: Vec<ExactEntry>,
    /// `PORTS` targets: for what `exact` does not hold.
    pub ports: Vec<Target>,
    /// At most `MAX_LISTS` lists; the first is "no rule".
    pub lists: Vec<List>,
}

/// There is no room for another list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListsFull;

impl KernelRules {
    /// Tables that match nothing.
    pub fn empty() -> Self {
        Self {
            exact: vec![ExactEntry::default(); EXACT_SLOTS],
            ports: vec![Target::NONE; PORTS],
            lists: vec![List::default()],
        }
    }

    /// The stream of a flow: the same steps as in the kernel, on the same tables.
    pub fn lookup(
        &self,
        flow: &FlowTuple,
        mark: u32,
        in_cgroup: impl Fn(u64) -> bool,
    ) -> Option<u32> {
        let target = self
            .find_exact(flow.local, flow.local_port)
            .unwrap_or(self.ports[usize::from(flow.local_port)]);
        if let Some(stream) = target.as_stream() {
            return Some(stream);
        }
        let list = self.lists.get(target.0 as usize)?;
        list.candidates[..list.len as usize]
            .iter()
            .find(|candidate| {
                matches(candidate, flow, mark)
                    && (candidate.cgroup_id == 0 || in_cgroup(candidate.cgroup_id))
            })
            .map(|candidate| candidate.stream)
    }

    /// Ids of the streams that some flow can reach.
    pub fn streams(&self) -> HashSet<u32> {
        let used = |list: &List| list.candidates[..list.len as usize].to_vec();
        let listed = self
            .lists
            .iter()
            .flat_map(used)
            .map(|candidate| candidate.stream);
        let exact = self.exact.iter().map(|entry| entry.target);
        let targets = exact.chain(self.ports.iter().copied());
        listed
            .chain(targets.filter_map(Target::as_stream))
            .collect()
    }

    fn find_exact(&self, address: Address, port: u16) -> Option<Target> {
        probes(&address, port)
            .map(|slot| &self.exact[slot])
            .take_while(|entry| entry.target != Target::NONE)
            .find(|entry| entry.address == address && entry.port == port)
            .map(|entry| entry.target)
    }

    /// A place for an exact key, if there is one within reach of a lookup.
    pub(super) fn free_slot(&self, address: &Address, port: u16) -> Option<usize> {
        probes(address, port).find(|slot| self.exact[*slot].target == Target::NONE)
    }
}

fn probes(address: &Address, port: u16) -> impl Iterator<Item = usize> + use<> {
    let start = exact_slot(address, port);
    (0..MAX_PROBES).map(move |probe| (start + probe) & (EXACT_SLOTS - 1))
}

/// Targets of candidates: the same ones have the same list, a plain one has none.
#[derive(Debug, Default)]
pub(super) struct Interner {
    numbers: HashMap<Vec<Candidate>, u16>,
}

impl Interner {
    /// Where at most [`MAX_CANDIDATES`] candidates are found, without any that a plain one hides.
    pub(super) fn target(
        &mut self,
        lists: &mut Vec<List>,
        candidates: Vec<Candidate>,
    ) -> Result<Target, ListsFull> {
        let Some(first) = candidates.first() else {
            return Ok(Target::NONE);
        };
        if first.is_plain() {
            return Ok(Target::stream(first.stream));
        }
        if let Some(number) = self.numbers.get(&candidates) {
            return Ok(Target::list(*number));
        }
        let number = u16::try_from(lists.len())
            .ok()
            .filter(|_| lists.len() < MAX_LISTS)
            .ok_or(ListsFull)?;
        let mut list = List {
            len: candidates.len() as u32,
            ..List::default()
        };
        debug_assert!(candidates.len() <= MAX_CANDIDATES);
        list.candidates[..candidates.len()].copy_from_slice(&candidates);
        lists.push(list);
        self.numbers.insert(candidates, number);
        Ok(Target::list(number))
    }
}
