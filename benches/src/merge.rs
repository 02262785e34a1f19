//! The merge, without Kafka: from a record's bytes to the sums of its stream, on one core; and what the sums take in memory.
//! A site of the design's size: 100 nodes with 200 streams of 100 sampled flows each, 20,000 windows a second.

use std::fs;
use std::time::Duration;

use aggregator::input::{Key, Raw, Sequences, Taken, Topic, decode};
use aggregator::merge::{Live, LiveOptions};
use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use sampler_event::{Event, Message, StreamWindow};

use crate::fixture;
use crate::statistics::Samples;

const NODES: usize = 100;
const STREAMS: usize = 200;
/// Sampled flows of a stream on a node.
const FLOWS: u32 = 100;
/// Seconds of the site that are merged, and as many rounds of each measurement.
const SECONDS: usize = 21;
/// So many are kept: most rounds find memory that older ones left, as in a daemon that has run for a while.
const HELD: usize = 6;
const BEGIN_MS: u64 = 1_795_000_000_000;
const WINDOW_MS: u64 = 1_000;

/// One second of the site, as it comes out of Kafka.
struct Second {
    append_ms: u64,
    /// Stream and bytes of each window.
    records: Vec<(String, Vec<u8>)>,
}

impl Second {
    /// Windows of all nodes; `shapes` gives each stream its histograms and counts.
    fn new(number: usize, shapes: &mut [StreamWindow]) -> Self {
        let start_ms = BEGIN_MS + number as u64 * WINDOW_MS;
        let mut records = Vec::with_capacity(NODES * STREAMS);
        for node in 0..NODES {
            for shape in &mut *shapes {
                shape.node = format!("edge-{node:03}.ams1");
                shape.instance = 0x9e37_79b9 + node as u64;
                shape.sequence = number as u64;
                shape.window_start_ms = start_ms;
                records.push((shape.stream.clone(), shape.encode_to_vec()));
            }
        }
        Self {
            append_ms: start_ms + WINDOW_MS + 50,
            records,
        }
    }

    fn decode(&self, (stream, payload): &(String, Vec<u8>)) -> Result<Event> {
        let raw = Raw {
            topic: Topic::Window,
            partition: 0,
            offset: 0,
            append_ms: self.append_ms,
            key: Some(stream.as_bytes()),
            schema: Some(Topic::Window.schema().as_bytes()),
            payload: Some(payload),
        };
        Ok(decode(&raw)?)
    }
}

/// Prints the tables.
pub fn run() -> Result<()> {
    let mut shapes: Vec<_> = (0..STREAMS).map(shape).collect();
    let (mut decoding, mut all) = (Samples::default(), Samples::default());
    let mut known = Sequences::default();
    let mut live = Live::new(LiveOptions {
        horizon_ms: HELD as u64 * WINDOW_MS,
        ..LiveOptions::default()
    });
    let (mut bytes, mut held_bytes, before_bytes) = (0, 0, resident_bytes()?);
    for number in 0..SECONDS {
        let second = Second::new(number, &mut shapes);
        bytes += second.records.iter().map(|(_, b)| b.len()).sum::<usize>();
        let begin = cpu()?;
        for record in &second.records {
            drop(second.decode(record)?);
        }
        decoding.push(ns_each(begin)?);
        let begin = cpu()?;
        for record in &second.records {
            take(second.decode(record)?, &second, &mut known, &mut live)?;
        }
        live.expire();
        all.push(ns_each(begin)?);
        if number + 1 == HELD {
            drop(second);
            held_bytes = resident_bytes()?.saturating_sub(before_bytes);
        }
    }
    let windows = (NODES * STREAMS * SECONDS) as f64;
    println!(
        "{NODES} nodes, {STREAMS} streams, {SECONDS} s: {windows} windows of {:.0} bytes; CPU time of one thread",
        bytes as f64 / windows
    );
    println!("{:<36} {:>10} {:>12}", "", "ns each", "windows/s");
    for (name, samples) in [
        ("decode and check", &decoding),
        ("… dedupe and merge", &all),
    ] {
        println!(
            "{name:<36} {:>10.0} {:>12.0}",
            samples.median(),
            1e9 / samples.median()
        );
    }
    let sums: usize = live.streams().map(|(_, sums)| sums).sum();
    ensure!(sums == STREAMS * HELD, "{sums} sums");
    let each = held_bytes as f64 / (NODES * STREAMS * HELD) as f64;
    let horizon_s = LiveOptions::default().horizon_ms / 1_000;
    println!(
        "memory: {each:.0} bytes per (node, stream, window); a horizon of {horizon_s} s of this site takes {:.1} GB",
        each * (NODES * STREAMS) as f64 * horizon_s as f64 / 1e9
    );
    Ok(())
}

fn shape(stream: usize) -> StreamWindow {
    StreamWindow {
        stream: format!("sport-{stream}"),
        window_ms: WINDOW_MS as u32,
        ..fixture::window(stream as u64, FLOWS, fixture::REGION)
    }
}

fn take(event: Event, second: &Second, known: &mut Sequences, live: &mut Live) -> Result<()> {
    let Event::Window(window) = &event else {
        anyhow::bail!("not a window");
    };
    let taken = known.take(Key::from(&event), window.sequence, second.append_ms);
    ensure!(taken == Taken::New, "{window:?} is not new");
    live.add(window, second.append_ms);
    Ok(())
}

/// Processor time of this thread.
fn cpu() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn ns_each(begin: Duration) -> Result<f64> {
    let took = cpu()?.saturating_sub(begin);
    Ok(took.as_nanos() as f64 / (NODES * STREAMS) as f64)
}

/// Memory of this process that is in use.
fn resident_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages = text.split(' ').nth(1).context("two numbers")?;
    Ok(pages.parse::<u64>()? * 4096)
}
