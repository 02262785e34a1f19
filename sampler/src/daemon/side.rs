//! The kernel side, or none: after it was taken off, or where it was never attached, heartbeats go on without it.

use std::{collections::BTreeSet, io, os::fd::BorrowedFd, path::Path};

use ebpf_abi::{cells::Extremes, control::Report, walk::WalkRecord};

use super::keep;
use crate::{
    kernel::{load::KernelError, parts::link, probe::Probe},
    metrics::ProgramCost,
    rules::KernelRules,
    stage::{Kernel, counts::Cells, streams::Order},
};

/// The kernel side.
pub(super) struct Side {
    probe: Option<Probe>,
    /// Names under which the service manager keeps its parts.
    stored: BTreeSet<String>,
}

impl Side {
    /// None.
    pub(super) fn none() -> Self {
        Self {
            probe: None,
            stored: BTreeSet::new(),
        }
    }

    /// This one.
    pub(super) fn of(probe: Probe, stored: BTreeSet<String>) -> Self {
        Self {
            probe: Some(probe),
            stored,
        }
    }

    /// It, if there is one.
    pub(super) fn probe(&self) -> Option<&Probe> {
        self.probe.as_ref()
    }

    /// Starts to see connections.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub(super) fn attach(&mut self, cgroup: &Path) -> Result<(), KernelError> {
        self.probe.as_mut().map_or(Ok(()), |p| p.attach(cgroup))
    }

    /// Has the service manager keep it.
    pub(super) fn hand_over(&mut self) {
        if let Some(probe) = &self.probe {
            keep::hand_over(probe);
            self.stored = keep::names_of(probe);
        }
    }

    /// Stops to see anything, unless the service manager keeps it.
    pub(super) fn leave(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.detach();
        }
    }

    /// Takes it out of the kernel whoever holds it too: programs, links and maps.
    pub(super) fn take_off(&mut self) {
        let Some(probe) = self.probe.take() else {
            return;
        };
        let attached: Option<BorrowedFd<'_>> = probe.parts().get(link::CGROUP).ok();
        keep::give_up(&self.stored, attached);
        self.stored.clear();
    }

    /// Takes in the connections that were open before the attach.
    pub(super) fn pick_up(&self) -> io::Result<()> {
        self.probe.as_ref().map_or(Ok(()), Probe::pick_up)
    }

    /// What it says of itself.
    pub(super) fn report(&self) -> Report {
        self.probe.as_ref().map(Probe::report).unwrap_or_default()
    }

    /// Counts the connections that are open before the attach, where that cannot be done after it.
    pub(super) fn count_open(&self) -> io::Result<()> {
        self.probe.as_ref().map_or(Ok(()), Probe::count_open)
    }

    /// What this kernel allows.
    pub(super) fn mode(&self) -> Option<&'static str> {
        self.probe.as_ref().map(Probe::mode)
    }

    /// Whether open flows are folded by their callbacks alone.
    pub(super) fn is_lesser(&self) -> bool {
        self.probe.as_ref().is_some_and(Probe::is_lesser)
    }

    /// Why it is less than it could be.
    pub(super) fn lack(&self) -> Option<&KernelError> {
        self.probe.as_ref().and_then(Probe::lack)
    }

    pub(super) fn fold(&self) -> io::Result<()> {
        self.probe.as_ref().map_or(Ok(()), Probe::fold)
    }

    /// For the last time of this daemon. Where that takes a detach and the service manager keeps the kernel side, nothing is done: the
    /// callbacks go on for the next daemon, and nothing is lost if there is one.
    pub(super) fn fold_at_stop(&mut self) -> io::Result<()> {
        match self.stored.is_empty() {
            true => self.fold_last(),
            false => self.fold(),
        }
    }

    /// For the last time of this kernel side.
    pub(super) fn fold_last(&mut self) -> io::Result<()> {
        self.probe.as_mut().map_or(Ok(()), Probe::fold_last)
    }

    /// `false`: there is nothing to walk.
    pub(super) fn walk(&self, records: &mut Vec<WalkRecord>) -> io::Result<bool> {
        match &self.probe {
            Some(probe) => probe.walk(records).map(|()| true),
            None => Ok(false),
        }
    }

    pub(super) fn set_rules(&self, rules: &KernelRules) {
        if let Some(probe) = &self.probe {
            probe.set_rules(rules);
        }
    }

    pub(super) fn set_max_sampled_flows(&self, flows: u32) {
        if let Some(probe) = &self.probe {
            probe.set_max_sampled_flows(flows);
        }
    }

    /// Bytes of it, with so many flows.
    pub(super) fn memory_bytes(&self, flows: u32) -> u64 {
        let probe = self.probe.as_ref();
        probe.map_or(0, |p| p.size().memory(flows).total_bytes())
    }

    /// Cost of the programs so far, if the kernel measures it.
    pub(super) fn costs(&self) -> Vec<ProgramCost> {
        let cost = |(name, run_ns, runs)| ProgramCost { name, run_ns, runs };
        let costs = self.probe.as_ref().map(Probe::costs);
        costs.into_iter().flatten().map(cost).collect()
    }
}

impl Cells for Side {
    fn add_words(&self, slot: u32, from: usize, sum: &mut [u64]) {
        if let Some(probe) = &self.probe {
            probe.add_words(slot, from, sum);
        }
    }

    fn extremes(&self, slot: u32, window: u32) -> Extremes {
        let probe = self.probe.as_ref();
        probe.map_or(Extremes::NONE, |p| p.extremes(slot, window))
    }
}

impl Kernel for Side {
    fn begin_window(&self, number: u32) {
        if let Some(probe) = &self.probe {
            probe.begin_window(number);
        }
    }

    fn obey(&self, order: &Order) {
        if let Some(probe) = &self.probe {
            probe.obey(order);
        }
    }

    fn flows_open(&self) -> u64 {
        self.probe.as_ref().map_or(0, Kernel::flows_open)
    }

    fn ended_unseen(&self, flows: u64) {
        if let Some(probe) = &self.probe {
            probe.ended_unseen(flows);
        }
    }
}
