//! The kernel side, attached: what user space orders and reads.

use std::{fs::File, os::fd::AsFd, path::Path, sync::atomic::Ordering};

use aya::{
    Btf as AyaBtf, Ebpf,
    maps::{Map, MapData},
    programs::{Iter, SockOps},
};
use ebpf_abi::{
    cells::{Cell, Extremes, MAX_SHARDS},
    control::{Control, Report, Slot},
    hash::Key,
    rules::{EXACT_SLOTS, ExactEntry, List, MAX_LISTS, MAX_STREAMS, PORTS, StreamEntry},
    walk::WalkRecord,
};

use super::{
    iterator,
    load::{self, KernelError},
    mapped::Mapped,
    memory::Size,
    parts::{self, Parts, link, map, program},
    sys,
};
use crate::{
    rules::KernelRules,
    stage::{Kernel, counts::Cells, streams::Order},
};

/// The socket storage in the object.
const FLOWS: &str = "FLOWS";

/// Everything of the kernel side that this process holds. Dropping it detaches, unless somebody else holds the link too.
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
    parts: Parts,
    /// What this kernel allows.
    mode: &'static str,
    /// Why the lesser mode was taken, by whoever has loaded it.
    lack: Option<KernelError>,
}

fn map_data<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a MapData, KernelError> {
    match ebpf.map(name) {
        Some(Map::Array(data) | Map::SkStorage(data)) => Ok(data),
        _ => Err(KernelError::Object(name)),
    }
}

/// Maps an array of `len` elements of `T`, which it must be.
fn array<T: Copy>(parts: &Parts, name: &'static str, len: usize) -> Result<Mapped<T>, KernelError> {
    let fd = parts.get(name)?;
    let refused = |e| KernelError::refused(name, e);
    let shape = sys::map_shape(fd).map_err(refused)?;
    let described = |name: &str, bytes: u32, entries: usize| {
        format!("{entries} values of {bytes} bytes and the name {name}")
    };
    let found = described(&shape.name, shape.value_bytes, shape.max_entries as usize);
    let expected = described(name, size_of::<T>() as u32, len);
    if found != expected {
        return Err(KernelError::Shape {
            map: name,
            found,
            expected,
        });
    }
    Mapped::new(fd, len).map_err(refused)
}

/// How large the kernel side was made.
fn size_of_parts(parts: &Parts) -> Result<Size, KernelError> {
    let entries = |name| {
        let shape = sys::map_shape(parts.get(name)?).map_err(|e| KernelError::refused(name, e))?;
        Ok::<_, KernelError>(shape.max_entries)
    };
    let (slots, cells) = (entries(map::SLOTS)?, entries(map::CELLS)?);
    let shards = cells / slots.max(1);
    // What is no product of both is found to be of a wrong shape.
    let shards = shards.clamp(1, MAX_SHARDS);
    Ok(Size { slots, shards })
}

/// An iterator program.
struct Iterator {
    program: &'static str,
    link: &'static str,
    /// What the kernel walks for it.
    target: &'static str,
    /// The map that is walked, if it is one.
    over: Option<&'static str>,
}

const WALK: Iterator = Iterator {
    program: program::WALK,
    link: link::WALK,
    target: "bpf_sk_storage_map",
    over: Some(FLOWS),
};

/// Linux before 5.11 refuses all three: the first two look a socket's storage up, the third finds the socket of a file.
const WHOLE: [Iterator; 3] = [
    Iterator {
        program: program::FOLD_OPEN,
        link: link::FOLD_OPEN,
        target: "tcp",
        over: None,
    },
    Iterator {
        program: program::PICK_UP,
        link: link::PICK_UP,
        target: "tcp",
        over: None,
    },
    Iterator {
        program: program::UNREACHED,
        link: link::UNREACHED,
        target: "task_file",
        over: None,
    },
];

/// In their place.
const LESSER: [Iterator; 2] = [
    Iterator {
        program: program::FOLD_DETACHED,
        link: link::FOLD_DETACHED,
        target: "bpf_sk_storage_map",
        over: Some(FLOWS),
    },
    Iterator {
        program: program::COUNT_OPEN,
        link: link::COUNT_OPEN,
        target: "tcp",
        over: None,
    },
];

/// Loads all iterators that this kernel takes; why it is not the whole set, if it is not.
fn load_iterators(
    ebpf: &mut Ebpf,
    btf: &AyaBtf,
    parts: &mut Parts,
) -> Result<Option<KernelError>, KernelError> {
    load_iterator(ebpf, btf, &WALK, parts)?;
    let mut load_all = |iterators: &[Iterator], parts: &mut Parts| {
        let mut each = iterators.iter();
        each.try_for_each(|iterator| load_iterator(ebpf, btf, iterator, parts))
    };
    let Err(lack) = load_all(&WHOLE, parts) else {
        return Ok(None);
    };
    for iterator in WHOLE {
        parts.remove(iterator.link);
        parts.remove(iterator.program);
    }
    match load_all(&LESSER, parts) {
        Ok(()) => Ok(Some(lack)),
        Err(_) => Err(lack),
    }
}

/// Loads an iterator program and attaches it.
fn load_iterator(
    ebpf: &mut Ebpf,
    btf: &AyaBtf,
    iterator: &Iterator,
    parts: &mut Parts,
) -> Result<(), KernelError> {
    let name = iterator.program;
    let iter: &mut Iter = ebpf
        .program_mut(name)
        .and_then(|p| p.try_into().ok())
        .ok_or(KernelError::Object(name))?;
    iter.load(iterator.target, btf)
        .map_err(|e| KernelError::refused(name, e))?;
    let fd = iter.fd().map_err(|e| KernelError::refused(name, e))?;
    let fd = fd.as_fd().try_clone_to_owned();
    let fd = fd.map_err(|e| KernelError::refused(name, e))?;
    let over = iterator.over.map(|map| map_data(ebpf, map)).transpose()?;
    let attached = sys::attach_iterator(&fd, over.map(|data| data.fd().as_fd()));
    let attached = attached.map_err(|e| KernelError::refused(name, e))?;
    parts.add(iterator.link, attached);
    parts.add(name, fd);
    Ok(())
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
        let mut parts = Parts::default();
        let lack = load_iterators(&mut ebpf, &btf, &mut parts)?;
        let sock_ops: &mut SockOps = ebpf
            .program_mut(program::PICK_AND_FOLD)
            .and_then(|p| p.try_into().ok())
            .ok_or(KernelError::Object(program::PICK_AND_FOLD))?;
        let refused = |e| KernelError::refused("the sock_ops program", e);
        sock_ops.load().map_err(refused)?;
        let fd = sock_ops.fd().map_err(refused)?.as_fd();
        let copy = |fd: std::os::fd::BorrowedFd<'_>, name| {
            let copied = fd.try_clone_to_owned();
            copied.map_err(|e| KernelError::refused(name, e))
        };
        parts.add(program::PICK_AND_FOLD, copy(fd, program::PICK_AND_FOLD)?);
        for name in parts::MAPS {
            parts.add(name, copy(map_data(&ebpf, name)?.fd().as_fd(), name)?);
        }
        let probe = Self::over(parts)?;
        Ok(Self { lack, ..probe })
    }

    /// Takes over a kernel side that another process has loaded, and attached to this cgroup. Every map must be just what this
    /// binary reads: whose version of the contract it is must be known before.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn take_over(parts: Parts, cgroup_id: Option<u64>) -> Result<Self, KernelError> {
        let attached = sys::cgroup_of_link(parts.get(link::CGROUP)?)
            .map_err(|e| KernelError::refused(link::CGROUP, e))?;
        if attached.is_none() || attached != cgroup_id {
            return Err(KernelError::Elsewhere);
        }
        Self::over(parts)
    }

    fn over(parts: Parts) -> Result<Self, KernelError> {
        let size = size_of_parts(&parts)?;
        let cells = size.slots as usize * size.shards as usize;
        Ok(Self {
            size,
            control: array(&parts, map::CONTROL, 1)?,
            report: array(&parts, map::REPORT, 1)?,
            exact: array(&parts, map::EXACT, 2 * EXACT_SLOTS)?,
            port_targets: array(&parts, map::PORT_TARGETS, 2 * PORTS)?,
            lists: array(&parts, map::LISTS, 2 * MAX_LISTS)?,
            streams: array(&parts, map::STREAMS, MAX_STREAMS)?,
            slots: array(&parts, map::SLOTS, size.slots as usize)?,
            cells: array(&parts, map::CELLS, cells)?,
            mode: load::mode(&load::kernel_release(), parts.is_lesser()),
            parts,
            lack: None,
        })
    }

    /// Starts to see connections of everything below a cgroup; nothing is done where that is so already.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn attach(&mut self, cgroup: &Path) -> Result<(), KernelError> {
        if self.parts.get(link::CGROUP).is_ok() {
            return Ok(());
        }
        let file = File::open(cgroup).map_err(|e| KernelError::refused("the cgroup", e))?;
        let attached = sys::attach_to_cgroup(self.parts.get(program::PICK_AND_FOLD)?, file)
            .map_err(|e| KernelError::refused("the attach to the cgroup", e))?;
        self.parts.add(link::CGROUP, attached);
        Ok(())
    }

    /// Stops to see anything, unless somebody else holds the link too; what was counted stays readable.
    pub fn detach(&mut self) {
        self.parts.remove(link::CGROUP);
    }

    /// All descriptors.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The kernel's id of the cells: no other kernel side of this boot has it.
    pub fn cells_id(&self) -> u32 {
        let cells = self.parts.get(map::CELLS).ok();
        let shape = cells.and_then(|cells| sys::map_shape(cells).ok());
        shape.map_or(0, |shape| shape.id)
    }

    /// How large it was made.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Number of the window that it counts for.
    pub fn window(&self) -> u32 {
        let at = std::mem::offset_of!(Control, window);
        self.control.word32(0, at).load(Ordering::SeqCst)
    }

    /// Where a stream's new flows go.
    pub fn stream(&self, stream: u32) -> StreamEntry {
        self.streams.read(stream as usize)
    }

    /// [`program_cost`] of each program, by name.
    pub fn costs(&self) -> Vec<(String, u64, u64)> {
        let cost = |name: &'static str| {
            let (run_ns, runs) = program_cost(self.parts.get(name).ok()?)?;
            Some((name.to_owned(), run_ns, runs))
        };
        parts::PROGRAMS.into_iter().filter_map(cost).collect()
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
        let result = self.run(link::WALK, &mut bytes);
        records.extend(bytes.chunks_exact(RECORD).map(|chunk| {
            // SAFETY: as many bytes as a record has, of which every pattern is one; unaligned.
            unsafe { chunk.as_ptr().cast::<WalkRecord>().read_unaligned() }
        }));
        result
    }

    /// What this kernel allows, as heartbeats say it.
    pub fn mode(&self) -> &'static str {
        self.mode
    }

    /// Whether it is in the lesser mode.
    pub fn is_lesser(&self) -> bool {
        self.parts.is_lesser()
    }

    /// Why it is in the lesser mode, if it is and was loaded by this process.
    pub fn lack(&self) -> Option<&KernelError> {
        self.lack.as_ref()
    }

    /// Folds every open flow of this network namespace now, and closes out those whose slot
    /// counts no more. Nothing is done in the lesser mode.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn fold(&self) -> std::io::Result<()> {
        if self.parts.is_lesser() {
            return Ok(());
        }
        self.run(link::FOLD_OPEN, &mut Vec::new())
    }

    /// As [`Probe::fold`], for the last time. In the lesser mode it detaches before, whoever holds the link too, so that no callback
    /// folds meanwhile; what flows do from then on is not counted.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn fold_last(&mut self) -> std::io::Result<()> {
        if !self.parts.is_lesser() {
            return self.fold();
        }
        let Some(attached) = self.parts.remove(link::CGROUP) else {
            return Ok(());
        };
        sys::detach(&attached)?;
        sys::wait_for_runs();
        self.run(link::FOLD_DETACHED, &mut Vec::new())
    }

    /// Takes in the connections of this network namespace that were open before the attach, where the kernel can; then counts those of
    /// all namespaces that nobody follows: see [`Report::flows_unreached`]. Nothing is done in the lesser mode.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn pick_up(&self) -> std::io::Result<()> {
        if self.parts.is_lesser() {
            return Ok(());
        }
        self.run(link::PICK_UP, &mut Vec::new())?;
        self.count_unreached().map(|_| ())
    }

    /// In the lesser mode, before the attach: counts what [`Probe::pick_up`] would count after it, in this network namespace.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn count_open(&self) -> std::io::Result<()> {
        if !self.parts.is_lesser() {
            return Ok(());
        }
        self.count_unreached().map(|_| ())
    }

    /// Counts the open flows of the sample that nobody follows, in all network namespaces; in the lesser mode in this one, and nobody
    /// may follow any yet.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn count_unreached(&self) -> std::io::Result<u64> {
        let at = std::mem::offset_of!(Report, flows_unreached);
        let counted = self.report.word(0, at);
        counted.store(0, Ordering::SeqCst);
        let link = match self.parts.is_lesser() {
            true => link::COUNT_OPEN,
            false => link::UNREACHED,
        };
        self.run(link, &mut Vec::new())?;
        Ok(counted.load(Ordering::SeqCst))
    }

    fn run(&self, link: &'static str, output: &mut Vec<u8>) -> std::io::Result<()> {
        let link = self.parts.get(link).map_err(std::io::Error::other)?;
        iterator::run(link, output)
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
            Order::Begin(slot, setting) => {
                for shard in 0..self.size.shards {
                    let cell = slot * self.size.shards + shard;
                    self.cells.write(cell as usize, &Cell::EMPTY);
                }
                self.slots.write(*slot as usize, setting);
            }
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
