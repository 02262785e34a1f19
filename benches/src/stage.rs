//! The window stage and what follows it on the same thread: cells read, events made and encoded.
//! In memory; the cells have the shards of a large node. Input: streams that all have flows with
//! data. At most one window a second has to be closed, and ten sets of pulses.

use std::{cell::RefCell, hint::black_box, time::Instant};

use anyhow::Result;
use ebpf_abi::{
    cells::{Cell, Extremes},
    offsets::RTT_FROM_CALLBACK,
    walk::{IN_FLIGHT, WalkRecord},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sampler::{
    config::RTT_SLOW_US,
    kernel::memory::Size,
    sink::Record,
    stage::{
        Kernel, Stage,
        clock::Now,
        counts::Cells,
        heartbeat::Outside,
        streams::{Order, Wanted},
        window::Identity,
    },
};

use crate::statistics::Samples;

const CPUS: u32 = 128;
const WINDOWS: u64 = 200;
/// Flows of a stream, and RTT samples that each has in a window.
const FLOWS: u64 = 50;
const SAMPLES: usize = 10;
const PULSED_STREAMS: u32 = 10;
const MAX_FLOWS: u32 = 65_536;

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

/// Prints the table.
pub fn run() -> Result<()> {
    println!(
        "{FLOWS} flows a stream, all with data; us per window or pulse, medians of {WINDOWS}\n{:>8} {:>10} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10}",
        "streams", "cells MB", "walk", "close", "encode", "all", "per stream", "pulses"
    );
    for streams in [1, 200] {
        measure(streams);
    }
    Ok(())
}

fn measure(streams: u32) {
    let memory = Memory::new(streams);
    let mut random = StdRng::seed_from_u64(1);
    let identity = Identity {
        node: "edge-07.ams1".into(),
        site: "ams1".into(),
        instance: 1,
        previous_instance: 0,
        sampling_key_id: 1,
        rtt_source: RTT_FROM_CALLBACK,
        hz: 250,
    };
    let at = |ms: u64| Now {
        monotonic_us: ms * 1_000,
        wall_ms: 1_795_000_000_000 + ms,
    };
    let mut stage = Stage::new(identity, memory.size.slots, 1_000, at(0), &memory);
    let wants: Vec<_> = (0..streams).map(wanted).collect();
    stage.apply(&wants, 1_000, at(0), &memory);
    for slot in 0..streams {
        let first = memory.shards(slot).start;
        memory.cells.borrow_mut()[first].counters.flows_sampled = FLOWS;
    }
    let records = walked(streams);
    let outside = Outside::default();
    let us = |begin: Instant| begin.elapsed().as_nanos() as f64 / 1e3;
    let [mut walk, mut close, mut encode, mut all, mut pulses] =
        std::array::from_fn::<_, 5, _>(|_| Samples::default());
    for window in 1..=WINDOWS {
        (0..streams).for_each(|slot| memory.play(slot, &mut random));
        let begin = Instant::now();
        for event in stage.close_pulses(at(window * 1_000 - 500), &memory) {
            black_box(Record::of(&event));
        }
        pulses.push(us(begin));
        let begin = Instant::now();
        stage.observe(&records, 1_000);
        walk.push(us(begin));
        let closing = Instant::now();
        let output = stage.close_window(at(window * 1_000), &memory, MAX_FLOWS, false, &outside);
        close.push(us(closing));
        let encoding = Instant::now();
        for event in &output.events {
            black_box(Record::of(event));
        }
        encode.push(us(encoding));
        all.push(us(begin));
    }
    println!(
        "{streams:>8} {:>10.1} {:>10.1} {:>12.1} {:>10.1} {:>10.1} {:>10.2} {:>10.1}",
        size_of_val(memory.cells.borrow().as_slice()) as f64 / 1e6,
        walk.median(),
        close.median(),
        encode.median(),
        all.median(),
        all.median() / f64::from(streams),
        pulses.median()
    );
}
