//! A node of many streams without a kernel side: the window stage, and cells that have the shards of a large node and are written
//! here. In memory; every stream has flows with data in every window.

use std::cell::RefCell;

use ebpf_abi::{
    cells::{Cell, Extremes},
    offsets::RTT_FROM_CALLBACK,
    walk::{IN_FLIGHT, WalkRecord},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sampler::{
    config::RTT_SLOW_US,
    kernel::memory::Size,
    stage::{
        Kernel, Output, Stage,
        clock::Now,
        counts::Cells,
        heartbeat::Outside,
        streams::{Order, Wanted},
        window::Identity,
    },
};
use sampler_event::Event;

const CPUS: u32 = 128;
/// Flows of a stream.
pub const FLOWS: u64 = 50;
/// RTT samples that each has in a window.
const SAMPLES: usize = 10;
const PULSED_STREAMS: u32 = 10;
const MAX_FLOWS: u32 = 65_536;
/// Length of a window.
pub const WINDOW_MS: u64 = 1_000;

/// Cells as the kernel side has them, written by the bench.
struct Memory {
    size: Size,
    cells: RefCell<Vec<Cell>>,
}

impl Memory {
    fn new(streams: u32) -> Self {
        let size = Size::new(streams, CPUS);
        let cells = vec![Cell::EMPTY; size.cells() as usize];
        Self {
            size,
            cells: RefCell::new(cells),
        }
    }

    fn shards(&self, slot: u32) -> std::ops::Range<usize> {
        let first = (slot * self.size.shards) as usize;
        first..first + self.size.shards as usize
    }

    /// A window's traffic of a stream, spread over its shards.
    fn play(&self, slot: u32, random: &mut StdRng) {
        let mut cells = self.cells.borrow_mut();
        let shards = &mut cells[self.shards(slot)];
        for flow in 0..FLOWS {
            let at = random.random_range(0..shards.len());
            let cell = &mut shards[at];
            let segments = random.random_range(50..800);
            cell.counters.bytes_sent += segments * 1_448;
            cell.counters.bytes_acked += segments * 1_448;
            let group = &mut cell.groups[flow as usize % 16];
            group.data_segs_out += segments;
            group.retrans_segs += flow % 3;
            group.busy_jiffies += 100;
            group.rtt_count += SAMPLES as u64;
            // About 30 ms, spread over two octaves.
            let middle = random.random_range(250..310);
            for _ in 0..SAMPLES {
                cell.rtt[middle + random.random_range(0..8)] += 1;
                cell.counters.rtt_sum_us += 30_000;
            }
        }
    }
}

impl Cells for Memory {
    fn add_words(&self, slot: u32, from: usize, sum: &mut [u64]) {
        for cell in &self.cells.borrow()[self.shards(slot)] {
            // SAFETY: a cell is nothing but words, of which `sum` covers some (checked here).
            let words = unsafe {
                std::slice::from_raw_parts(
                    std::ptr::from_ref(cell).cast::<u64>(),
                    size_of::<Cell>() / 8,
                )
            };
            for (word, sum) in words[from..from + sum.len()].iter().zip(&mut *sum) {
                *sum = sum.wrapping_add(*word);
            }
        }
    }

    fn extremes(&self, slot: u32, window: u32) -> Extremes {
        let cells = self.cells.borrow();
        let of = |cell: &Cell| cell.extremes[window as usize & 1];
        let shards = cells[self.shards(slot)].iter().map(of);
        shards.fold(Extremes::NONE, |all, one| Extremes {
            rtt_min_us: all.rtt_min_us.min(one.rtt_min_us),
            rtt_max_us: all.rtt_max_us.max(one.rtt_max_us),
            stall_longest_us: all.stall_longest_us.max(one.stall_longest_us),
            reserved: 0,
        })
    }
}

impl Kernel for Memory {
    fn begin_window(&self, number: u32) {
        for cell in self.cells.borrow_mut().iter_mut() {
            cell.extremes[number as usize & 1] = Extremes::NONE;
        }
    }

    fn obey(&self, _: &Order) {}

    fn flows_open(&self) -> u64 {
        u64::from(MAX_FLOWS / 2)
    }

    fn ended_unseen(&self, _: u64) {}
}

fn wanted(stream: u32) -> Wanted {
    Wanted {
        name: format!("sport-{stream}"),
        rate: 0.1,
        pulse_ms: if stream < PULSED_STREAMS { 100 } else { 0 },
        rtt_slow_us: RTT_SLOW_US,
        labels: Default::default(),
    }
}

/// What a walk finds: flows that wait for nothing but acknowledgements.
fn walked(streams: u32) -> Vec<WalkRecord> {
    let record = |id: u64| WalkRecord {
        id,
        now_us: 1_000_000,
        delivered_us: 990_000,
        limit_us: 200_000,
        slot: (id / FLOWS) as u16,
        group: (id % 16) as u8,
        state: IN_FLIGHT,
        ..WalkRecord::default()
    };
    (0..u64::from(streams) * FLOWS).map(record).collect()
}

/// Stage and cells.
pub struct Playing {
    memory: Memory,
    stage: Stage,
    random: StdRng,
    streams: u32,
    walked: Vec<WalkRecord>,
}

impl Playing {
    /// A node of so many streams.
    pub fn new(streams: u32) -> Self {
        let memory = Memory::new(streams);
        let identity = Identity {
            node: "edge-07.ams1".into(),
            site: "ams1".into(),
            instance: 1,
            previous_instance: 0,
            sampling_key_id: 1,
            rtt_source: RTT_FROM_CALLBACK,
            hz: 250,
        };
        let mut stage = Stage::new(
            identity,
            memory.size.slots,
            WINDOW_MS as u32,
            at(0),
            &memory,
        );
        let wants: Vec<_> = (0..streams).map(wanted).collect();
        stage.apply(&wants, WINDOW_MS as u32, at(0), &memory);
        for slot in 0..streams {
            let first = memory.shards(slot).start;
            memory.cells.borrow_mut()[first].counters.flows_sampled = FLOWS;
        }
        Self {
            memory,
            stage,
            random: StdRng::seed_from_u64(1),
            streams,
            walked: walked(streams),
        }
    }

    /// A window's traffic of all streams.
    pub fn play(&mut self) {
        for slot in 0..self.streams {
            self.memory.play(slot, &mut self.random);
        }
    }

    /// Closes the pulses in the middle of a window, by its number from 1.
    pub fn close_pulses(&mut self, window: u64) -> Vec<Event> {
        let now = at(window * WINDOW_MS - WINDOW_MS / 2);
        self.stage.close_pulses(now, &self.memory)
    }

    /// Takes in a walk.
    pub fn observe_walk(&mut self) {
        self.stage.observe(&self.walked, WINDOW_MS as u32);
    }

    /// Whether the state is asked for after every window.
    pub fn set_books(&mut self, with: bool) {
        self.stage.with_books = with;
    }

    /// Closes a window, by its number from 1.
    pub fn close(&mut self, window: u64, outside: &Outside) -> Output {
        let now = at(window * WINDOW_MS);
        self.stage
            .close_window(now, &self.memory, MAX_FLOWS, false, outside)
    }

    /// The stage.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// What its cells take.
    pub fn cells_bytes(&self) -> usize {
        size_of_val(self.memory.cells.borrow().as_slice())
    }
}

fn at(ms: u64) -> Now {
    Now {
        monotonic_us: ms * 1_000,
        wall_ms: 1_795_000_000_000 + ms,
    }
}
