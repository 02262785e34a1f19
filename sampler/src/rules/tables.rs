//! The tables of the kernel side, as user space writes them, and the kernel side's lookup.

use std::collections::{HashMap, HashSet};

use ebpf_abi::address::{Address, FlowTuple};
use ebpf_abi::rules::{
    Candidate, EXACT_SLOTS, ExactEntry, List, MAX_CANDIDATES, MAX_LISTS, MAX_PROBES, PORTS,
    exact_slot, matches,
};

/// One copy of every rule table, ready to be written into the maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRules {
    /// `EXACT_SLOTS` entries: lists by exact address and port.
    pub exact: Vec<ExactEntry>,
    /// `PORTS` numbers of lists: for what `exact` does not hold.
    pub ports: Vec<u64>,
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
            ports: vec![0; PORTS],
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
        let number = self
            .find_exact(flow.local, flow.local_port)
            .unwrap_or(self.ports[usize::from(flow.local_port)] as usize);
        let list = self.lists.get(number)?;
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
        self.lists
            .iter()
            .flat_map(used)
            .map(|candidate| candidate.stream)
            .collect()
    }

    fn find_exact(&self, address: Address, port: u16) -> Option<usize> {
        probes(&address, port)
            .map(|slot| &self.exact[slot])
            .take_while(|entry| entry.list != 0)
            .find(|entry| entry.address == address && entry.port == port)
            .map(|entry| usize::from(entry.list))
    }

    /// A place for an exact key, if there is one within reach of a lookup.
    pub(super) fn free_slot(&self, address: &Address, port: u16) -> Option<usize> {
        probes(address, port).find(|slot| self.exact[*slot].list == 0)
    }
}

fn probes(address: &Address, port: u16) -> impl Iterator<Item = usize> + use<> {
    let start = exact_slot(address, port);
    (0..MAX_PROBES).map(move |probe| (start + probe) & (EXACT_SLOTS - 1))
}

/// Numbers of lists: the same candidates have the same number.
#[derive(Debug, Default)]
pub(super) struct Interner {
    numbers: HashMap<Vec<Candidate>, u16>,
}

impl Interner {
    /// The number of a list of at most [`MAX_CANDIDATES`] candidates.
    pub(super) fn number(
        &mut self,
        lists: &mut Vec<List>,
        candidates: Vec<Candidate>,
    ) -> Result<u16, ListsFull> {
        if candidates.is_empty() {
            return Ok(0);
        }
        if let Some(number) = self.numbers.get(&candidates) {
            return Ok(*number);
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
        Ok(number)
    }
}
