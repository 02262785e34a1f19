//! The spool: how fast it takes, how fast a full one is looked through at start, and what it adds to the processor time of the daemon
//! at 200 streams and a window a second, in turn with the same pipeline without a spool. Needs no BPF: the cells are written here.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::time::{ClockId, clock_gettime};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use sampler::sink::{
    Capacity, KafkaSettings, KafkaSink, Ledger, Outlet, Record, Topics, spooled_queue,
};
use sampler::spool::{Batch, Spool, SpoolId, SpoolSettings};
use sampler::stage::heartbeat::Outside;
use sampler_event::Message;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::playing::{Playing, WINDOW_MS};
use crate::process::Process;
use crate::site::broker;
use crate::statistics::Samples;

const STREAMS: u32 = 200;
/// Window edges of the first table, each with an event per stream and a heartbeat.
const EDGES: u64 = 1_000;
const FULL_BYTES: u64 = 256 << 20;
/// Seconds of a turn, and turns with and without a spool.
const TURN: u64 = 10;
const ROUNDS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints the tables.
pub fn run() -> Result<()> {
    // As the daemon has it.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut node = Node::new();
    throughput(&runtime, &mut node)?;
    recovery(&runtime, &mut node)?;
    // It takes Java and Maven, which not every machine has that can be measured.
    match broker() {
        Ok(cluster) => share(&runtime, &mut node, &cluster.broker_list()),
        Err(error) => {
            println!("share of the daemon's time: not measured: {error:#}");
            Ok(())
        }
    }
}

/// The window stage with 200 streams.
struct Node {
    playing: Playing,
    window: u64,
}

/// What it gives away at an edge.
struct Edge {
    records: Vec<Record>,
    state: Vec<u8>,
    end_ms: u64,
}

impl Node {
    fn new() -> Self {
        Self {
            playing: Playing::new(STREAMS),
            window: 0,
        }
    }

    fn play(&mut self) {
        self.playing.play();
    }

    /// Closes the window, with the stage's state if it is wanted.
    fn close(&mut self, with_state: bool) -> Edge {
        self.window += 1;
        self.playing.set_books(with_state);
        let output = self.playing.close(self.window, &Outside::default());
        let state = with_state.then(|| self.playing.stage().state().encode_to_vec());
        Edge {
            records: output.events.iter().map(Record::of).collect(),
            state: state.unwrap_or_default(),
            end_ms: output.closed.window_start_ms + WINDOW_MS,
        }
    }
}

/// On the disk of the build, not in a temporary file system of memory.
fn folder() -> Result<TempDir> {
    let program = std::env::current_exe()?;
    let beside = program.parent().context("a program has a folder")?;
    Ok(tempfile::tempdir_in(beside)?)
}

/// A spool, and how many events an earlier one left there.
fn start(folder: &Path, ledger: &Arc<Ledger>) -> Result<(Spool, u64)> {
    let settings = SpoolSettings {
        directory: folder.to_path_buf(),
        max_bytes: FULL_BYTES,
        fsync: Duration::from_secs(1),
        instance: 1,
        resume: false,
        faults: None,
    };
    let (spool, found, _) = Spool::start(settings, Arc::clone(ledger))?;
    Ok((spool, found.records))
}

/// Writes an edge; the place of its first record and their number.
fn append(runtime: &Runtime, spool: &Spool, edge: &Edge) -> Result<(SpoolId, u32)> {
    let mut batch = Batch::default();
    for record in &edge.records {
        ensure!(batch.push(record), "a record that is not spooled");
    }
    let events = batch.len() as u32;
    let reference = spool.reference(edge.end_ms, 0, edge.state.clone());
    let (_ticket, answer) = spool.append(batch, Some(reference));
    let first = runtime.block_on(answer)?;
    Ok((first.map_err(anyhow::Error::msg)?, events))
}

/// Edges one after the other: written with their references, confirmed, taken away; fsync in the background.
fn throughput(runtime: &Runtime, node: &mut Node) -> Result<()> {
    let folder = folder()?;
    let (spool, _) = start(folder.path(), &Arc::default())?;
    node.play();
    let edge = node.close(true);
    let bytes: usize = edge.records.iter().map(|record| record.payload.len()).sum();
    let (begin, mut events) = (Instant::now(), 0);
    for _ in 0..EDGES {
        let (first, count) = append(runtime, &spool, &edge)?;
        let places = (first.index..first.index + count).map(|index| SpoolId { index, ..first });
        spool.done(places);
        events += u64::from(count);
    }
    // Answered after everything before it.
    runtime.block_on(spool.next(1))?;
    let took_s = begin.elapsed().as_secs_f64();
    runtime.block_on(spool.stop());
    println!(
        "{events} events of {:.0} bytes, a reference of {} bytes for each {}: written and confirmed {:.0} events/s",
        bytes as f64 / edge.records.len() as f64,
        edge.state.len(),
        edge.records.len(),
        events as f64 / took_s
    );
    Ok(())
}

/// A full spool is looked through by a new life: with its files in memory, and from the disk.
fn recovery(runtime: &Runtime, node: &mut Node) -> Result<()> {
    let folder = folder()?;
    let (spool, _) = start(folder.path(), &Arc::default())?;
    node.play();
    let edge = node.close(false);
    while spool.status().bytes < FULL_BYTES - (4 << 20) {
        for _ in 0..20 {
            append(runtime, &spool, &edge)?;
        }
        // The status follows the commands.
        runtime.block_on(spool.next(0))?;
    }
    runtime.block_on(spool.stop());
    drop(spool);
    for (name, cold) in [("in memory", false), ("from the disk", true)] {
        wait_for_lock(folder.path())?;
        if cold {
            forget_pages(folder.path())?;
        }
        let begin = Instant::now();
        let (spool, events) = start(folder.path(), &Arc::default())?;
        println!(
            "start with {:.0} MiB, {events} events, {name}: {:.2} s",
            spool.status().bytes as f64 / f64::from(1 << 20),
            begin.elapsed().as_secs_f64()
        );
        runtime.block_on(spool.stop());
    }
    Ok(())
}

/// The thread of a spool that has stopped gives its directory back a moment later.
fn wait_for_lock(folder: &Path) -> Result<()> {
    let lock = File::open(folder.join("lock"))?;
    let begin = Instant::now();
    while lock.try_lock().is_err() {
        ensure!(begin.elapsed() < PATIENCE, "the directory stays locked");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Has the kernel forget what it holds of the files.
fn forget_pages(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    Ok(())
}

/// The pipeline from the cells to a broker, with and without a spool.
fn share(runtime: &Runtime, node: &mut Node, brokers: &[String]) -> Result<()> {
    let mut random = StdRng::seed_from_u64(1);
    let mut costs = [Samples::default(), Samples::default()];
    let mut threads = BTreeMap::new();
    let mut order = [false, true];
    for _ in 0..ROUNDS {
        order.shuffle(&mut random);
        for spooled in order {
            let (cost, by_thread) = runtime.block_on(turn(node, brokers, spooled))?;
            costs[usize::from(spooled)].push(cost.as_secs_f64() * 1e3 / TURN as f64);
            for (name, cost) in by_thread {
                let both: &mut [Samples; 2] = threads.entry(name).or_default();
                both[usize::from(spooled)].push(cost.as_secs_f64() * 1e3 / TURN as f64);
            }
        }
    }
    println!(
        "{ROUNDS} interleaved rounds of {TURN} s each, {STREAMS} streams: processor time of stage, encoding, sink and spool"
    );
    println!("{:<16} {:>14} {:>19}", "", "ms per second", "quartiles");
    for (name, cost) in ["without a spool", "with a spool"].iter().zip(&costs) {
        println!(
            "{name:<16} {:>14.2} {:>9.2} {:>9.2}",
            cost.median(),
            cost.quantile(0.25),
            cost.quantile(0.75)
        );
    }
    print_threads(&threads);
    let [off, on] = &costs;
    let shares: Samples = std::iter::zip(on.values(), off.values())
        .map(|(on, off)| (on - off) / on * 100.0)
        .collect();
    let (low, high) = shares.median_interval();
    println!(
        "share of the spool: {:.1} % [{low:.1}, {high:.1}], {:.2} % of a core",
        shares.median(),
        (on.median() - off.median()) / 10.0
    );
    Ok(())
}

/// Where it goes.
fn print_threads(threads: &BTreeMap<String, [Samples; 2]>) {
    println!("{:<16} {:>14} {:>19}", "by thread", "without", "with");
    for (name, [off, on]) in threads {
        let shown = |samples: &Samples| match samples.values() {
            [] => "-".to_owned(),
            _ => format!("{:.2}", samples.median()),
        };
        println!("{name:<16} {:>14} {:>19}", shown(off), shown(on));
    }
}

/// Processor time of a turn, without what it took to write the cells, and that of each thread.
async fn turn(
    node: &mut Node,
    brokers: &[String],
    spooled: bool,
) -> Result<(Duration, BTreeMap<String, Duration>)> {
    let folder = folder()?;
    let ledger = Arc::new(Ledger::default());
    let (capacity, spool) = match spooled {
        true => (Capacity::SPOOLED, Some(start(folder.path(), &ledger)?.0)),
        false => (Capacity::DEFAULT, None),
    };
    let (sender, receiver) = spooled_queue(capacity, Arc::clone(&ledger), spool.clone());
    let mut sink = KafkaSink::new(settings(brokers), Arc::clone(&ledger))?;
    let outlet = match &spool {
        Some(spool) => {
            sink = sink.with_spool(spool.clone(), 1_000);
            Outlet::spooled(sender, Arc::clone(&ledger), spool.clone())
        }
        None => Outlet::direct(sender, Arc::clone(&ledger)),
    };
    let sink = tokio::spawn(sink.run(receiver));
    let mut seconds = tokio::time::interval(Duration::from_millis(WINDOW_MS));
    let mut playing = Duration::ZERO;
    let mut begin = Duration::ZERO;
    let here = Process::new(std::process::id());
    let mut before_threads = BTreeMap::new();
    // The first two seconds connect and warm up.
    for second in 0..TURN + 2 {
        seconds.tick().await;
        if second == 2 {
            (begin, playing) = (cpu()?, Duration::ZERO);
            before_threads = here.threads()?;
        }
        let before = clock(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        node.play();
        playing += clock(ClockId::CLOCK_THREAD_CPUTIME_ID)? - before;
        let edge = node.close(outlet.wants_state());
        let state = outlet.wants_state().then_some(edge.state);
        outlet.edge(edge.records, edge.end_ms, state);
    }
    seconds.tick().await;
    let took = cpu()? - begin;
    let mut by_thread = here.threads()?;
    for (name, ran) in &mut by_thread {
        let before = before_threads.get(name).copied();
        *ran = ran.saturating_sub(before.unwrap_or_default());
    }
    drop(outlet);
    let left = sink.await?;
    ensure!(left == Default::default(), "events are left: {left:?}");
    if let Some(spool) = spool {
        spool.stop().await;
    }
    let took = took.checked_sub(playing);
    Ok((took.context("a clock that goes back")?, by_thread))
}

fn settings(brokers: &[String]) -> KafkaSettings {
    KafkaSettings {
        brokers: brokers.to_vec(),
        topics: Topics::with_window(service::topics::WINDOW),
        node: "edge-07".to_owned(),
        properties: Default::default(),
        password_file: None,
        flush_timeout: PATIENCE,
    }
}

/// Of all threads.
fn cpu() -> Result<Duration> {
    clock(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn clock(id: ClockId) -> Result<Duration> {
    Ok(clock_gettime(id)?.into())
}
