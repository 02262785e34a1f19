//! The kernel side, attached: what user space orders and reads.

use std::{fs::File, os::fd::AsFd, path::Path, sync::atomic::Ordering};

use aya::{
    Btf as AyaBtf, Ebpf,
    maps::{Map, MapData},
    programs::{CgroupAttachMode, Iter, SockOps, sock_ops::SockOpsLinkId},
};
use ebpf_abi::{
    cells::{Cell, Extremes},
    control::{Control, Report, Slot},
    hash::Key,
    rules::{EXACT_SLOTS, ExactEntry, List, MAX_LISTS, MAX_STREAMS, PORTS, StreamEntry},
    walk::WalkRecord,
};

use super::{
    iterator::Iterator,
    load::{self, KernelError},
    mapped::Mapped,
    memory::Size,
};
use crate::{
    rules::KernelRules,
    stage::{Kernel, counts::Cells, streams::Order},
};

/// Names of programs and maps in the object.
mod name {
    pub const PICK_AND_FOLD: &str = "flowvitals";
    pub const WALK: &str = "walk";
    pub const FOLD_OPEN: &str = "fold_open";
    pub const FLOWS: &str = "FLOWS";
}

/// Everything of the kernel side that this process holds. Dropping it detaches.
pub struct Probe {
    size: Size,
    control: Mapped<Control>,
    report: Mapped<Report>,
    exact: Mapped<ExactEntry>,
    port_targets: Mapped<u64>,
    lists: Mapped<List>,
    streams: Mapped<StreamEntry>,
    slots: Mapped<Slot>,
    cells: Mapped<Cell>,
    walk: Iterator,
    fold: Iterator,
    link: Option<SockOpsLinkId>,
    ebpf: Ebpf,
}

fn map<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a MapData, KernelError> {
    match ebpf.map(name) {
        Some(Map::Array(data) | Map::SkStorage(data)) => Ok(data),
        _ => Err(KernelError::Object(name)),
    }
}

fn mapped<T: Copy>(ebpf: &Ebpf, name: &'static str, len: usize) -> Result<Mapped<T>, KernelError> {
    Mapped::new(map(ebpf, name)?.fd(), len).map_err(|e| KernelError::refused(name, e))
}

fn iterator(
    ebpf: &mut Ebpf,
    btf: &AyaBtf,
    program: &'static str,
    target: &str,
    over: Option<&'static str>,
) -> Result<Iterator, KernelError> {
    let iter: &mut Iter = ebpf
        .program_mut(program)
        .and_then(|p| p.try_into().ok())
        .ok_or(KernelError::Object(program))?;
    iter.load(target, btf)
        .map_err(|e| KernelError::refused(program, e))?;
    let fd = iter.fd().map_err(|e| KernelError::refused(program, e))?;
    let fd = fd
        .try_clone()
        .map_err(|e| KernelError::refused(program, e))?;
    let over = over.map(|name| map(ebpf, name)).transpose()?;
    Iterator::attach(fd.as_fd(), over.map(|data| data.fd().as_fd()))
        .map_err(|e| KernelError::refused(program, e))
}

fn sock_ops(ebpf: &mut Ebpf) -> Result<&mut SockOps, KernelError> {
    ebpf.program_mut(name::PICK_AND_FOLD)
        .and_then(|p| p.try_into().ok())
        .ok_or(KernelError::Object(name::PICK_AND_FOLD))
}

/// Run time in ns and runs of a program since it was loaded; zeros unless the kernel measures
/// programs (`kernel.bpf_stats_enabled`).
pub fn program_cost(program: impl AsFd) -> Option<(u64, u64)> {
    use std::os::fd::AsRawFd as _;
    let fd = program.as_fd().as_raw_fd();
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let number = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key))?;
        line.trim_start_matches(':').trim().parse::<u64>().ok()
    };
    Some((number("run_time_ns")?, number("run_cnt")?))
}

impl Probe {
    /// Loads everything. Nothing runs before [`Probe::attach`].
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn load(size: Size) -> Result<Self, KernelError> {
        let (mut ebpf, btf) = load::load(size)?;
        let walk = iterator(
            &mut ebpf,
            &btf,
            name::WALK,
            "bpf_sk_storage_map",
            Some(name::FLOWS),
        )?;
        let fold = iterator(&mut ebpf, &btf, name::FOLD_OPEN, "tcp", None)?;
        sock_ops(&mut ebpf)?
            .load()
            .map_err(|e| KernelError::refused("the sock_ops program", e))?;
        let cells = size.slots as usize * size.shards as usize;
        Ok(Self {
            size,
            control: mapped(&ebpf, "CONTROL", 1)?,
            report: mapped(&ebpf, "REPORT", 1)?,
            exact: mapped(&ebpf, "EXACT", 2 * EXACT_SLOTS)?,
            port_targets: mapped(&ebpf, "PORT_TARGETS", 2 * PORTS)?,
            lists: mapped(&ebpf, "LISTS", 2 * MAX_LISTS)?,
            streams: mapped(&ebpf, "STREAMS", MAX_STREAMS)?,
            slots: mapped(&ebpf, "SLOTS", size.slots as usize)?,
            cells: mapped(&ebpf, "CELLS", cells)?,
            walk,
            fold,
            link: None,
            ebpf,
        })
    }

    /// Starts to see connections of everything below a cgroup.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn attach(&mut self, cgroup: &Path) -> Result<(), KernelError> {
        let file = File::open(cgroup).map_err(|e| KernelError::refused("the cgroup", e))?;
        // With links (kernel 5.7 and later) `Single` still lets others attach beside us.
        let link = sock_ops(&mut self.ebpf)?
            .attach(file, CgroupAttachMode::Single)
            .map_err(|e| KernelError::refused("the attach to the cgroup", e))?;
        self.link = Some(link);
        Ok(())
    }

    /// Stops to see anything; what was counted stays readable.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn detach(&mut self) -> Result<(), KernelError> {
        let Some(link) = self.link.take() else {
            return Ok(());
        };
        sock_ops(&mut self.ebpf)?
            .detach(link)
            .map_err(|e| KernelError::refused("the detach", e))
    }

    /// How large it was made.
    pub fn size(&self) -> Size {
        self.size
    }

    /// [`program_cost`] of each program, by name.
    pub fn costs(&self) -> Vec<(String, u64, u64)> {
        let cost = |(name, program): (&'_ str, &aya::programs::Program)| {
            let (run_ns, runs) = program_cost(program.fd().ok()?)?;
            Some((name.to_owned(), run_ns, runs))
        };
        self.ebpf.programs().filter_map(cost).collect()
    }

    /// Sets the sampling key; only before the attach, or the same flows change sides.
    pub fn set_key(&self, key: Key) {
        let mut control = self.control.read(0);
        control.key = key;
        self.control.write(0, &control);
    }

    /// Bounds the flows that are followed at a time.
    pub fn set_max_sampled_flows(&self, flows: u32) {
        let at = std::mem::offset_of!(Control, max_sampled_flows);
        self.control.word32(0, at).store(flows, Ordering::SeqCst);
    }

    /// In a dry run the population is counted and no flow is admitted.
    pub fn set_dry_run(&self, dry_run: bool) {
        let at = std::mem::offset_of!(Control, dry_run);
        self.control
            .word32(0, at)
            .store(dry_run.into(), Ordering::SeqCst);
    }

    /// Replaces all rules at once: the idle copy is written, then used.
    pub fn set_rules(&self, rules: &KernelRules) {
        let at = std::mem::offset_of!(Control, rules);
        let word = self.control.word32(0, at);
        let copy = 1 - (word.load(Ordering::SeqCst) as usize & 1);
        for (slot, entry) in rules.exact.iter().enumerate() {
            self.exact.write(copy * EXACT_SLOTS + slot, entry);
        }
        for (port, target) in rules.ports.iter().enumerate() {
            self.port_targets
                .write(copy * PORTS + port, &u64::from(target.0));
        }
        for (number, list) in rules.lists.iter().enumerate() {
            self.lists.write(copy * MAX_LISTS + number, list);
        }
        word.store(copy as u32, Ordering::SeqCst);
    }

    /// What the kernel side says of itself.
    pub fn report(&self) -> Report {
        self.report.read(0)
    }

    /// Gauges of every sampled flow, now.
    ///
    /// # Errors
    /// What the kernel answers; `records` then holds what came before.
    pub fn walk(&self, records: &mut Vec<WalkRecord>) -> std::io::Result<()> {
        const RECORD: usize = size_of::<WalkRecord>();
        let mut bytes = Vec::with_capacity(records.capacity() * RECORD);
        let result = self.walk.run(&mut bytes);
        records.extend(bytes.chunks_exact(RECORD).map(|chunk| {
            // SAFETY: as many bytes as a record has, of which every pattern is one; unaligned.
            unsafe { chunk.as_ptr().cast::<WalkRecord>().read_unaligned() }
        }));
        result
    }

    /// Folds every open flow of this network namespace now, and closes out those whose slot
    /// counts no more.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn fold(&self) -> std::io::Result<()> {
        self.fold.run(&mut Vec::new())
    }
}

impl Cells for Probe {
    fn add_words(&self, slot: u32, from: usize, sum: &mut [u64]) {
        for shard in 0..self.size.shards {
            self.cells
                .add_words((slot * self.size.shards + shard) as usize, from, sum);
        }
    }

    fn extremes(&self, slot: u32, window: u32) -> Extremes {
        let at =
            std::mem::offset_of!(Cell, extremes) + (window as usize & 1) * size_of::<Extremes>();
        let mut all = Extremes::NONE;
        for shard in 0..self.size.shards {
            let cell = (slot * self.size.shards + shard) as usize;
            let read = |field: usize| self.cells.word32(cell, at + field).load(Ordering::Relaxed);
            all.rtt_min_us = all
                .rtt_min_us
                .min(read(std::mem::offset_of!(Extremes, rtt_min_us)));
            all.rtt_max_us = all
                .rtt_max_us
                .max(read(std::mem::offset_of!(Extremes, rtt_max_us)));
            let longest = read(std::mem::offset_of!(Extremes, stall_longest_us));
            all.stall_longest_us = all.stall_longest_us.max(longest);
        }
        all
    }
}

impl Kernel for Probe {
    /// `number` is of another parity than the one before.
    fn begin_window(&self, number: u32) {
        for cell in 0..self.cells.len() {
            let extremes = std::mem::offset_of!(Cell, extremes)
                + (number as usize & 1) * size_of::<Extremes>();
            let store = |field: usize, value| {
                self.cells
                    .word32(cell, extremes + field)
                    .store(value, Ordering::Relaxed);
            };
            store(std::mem::offset_of!(Extremes, rtt_min_us), u32::MAX);
            store(std::mem::offset_of!(Extremes, rtt_max_us), 0);
            store(std::mem::offset_of!(Extremes, stall_longest_us), 0);
        }
        let at = std::mem::offset_of!(Control, window);
        self.control.word32(0, at).store(number, Ordering::SeqCst);
    }

    fn obey(&self, order: &Order) {
        match order {
            Order::Slot(slot, setting) => self.slots.write(*slot as usize, setting),
            Order::Stream(stream, entry) => self.streams.write(*stream as usize, entry),
        }
    }

    fn flows_open(&self) -> u64 {
        self.report().flows_open
    }

    fn ended_unseen(&self, flows: u64) {
        let at = std::mem::offset_of!(Report, flows_open);
        self.report.word(0, at).fetch_sub(flows, Ordering::SeqCst);
    }
}
