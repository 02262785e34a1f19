//! The built daemon at the planned size of a node: 200 streams, ten of them with pulses, and 10,000
//! sampled flows that are open and play. Budgets: RSS of 40 MiB beside the mapped cells; kernel
//! memory of 64 MiB for 200 streams on 128 CPUs.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{
    clock,
    network::{Network, Options},
    traffic::{
        plan::Plan,
        server::{Listen, Server},
    },
};
use sampler::kernel::memory::{KernelMemory, Size};

use crate::daemons::Daemon;
use crate::process::{MIB, Process};
use crate::setup;
use crate::site::broker_in;

const STREAMS: u16 = 200;
const PULSED_STREAMS: u16 = 10;
const FIRST_PORT: u16 = 20_000;
const FLOWS: usize = 10_000;
/// Every flow fetches this much, at random moments about so far apart.
const SEGMENT_BYTES: u64 = 20_000;
const PAUSE: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);

fn start(network: &Network, folder: &Path, brokers: &[String]) -> Result<Daemon> {
    let file = folder.join("sampler.toml");
    fs::write(&file, config(network, folder, brokers)?)?;
    Daemon::start(network.server(), "flowvitals-sampler", &file, "attached at")
}

fn servers(network: &Network) -> Vec<SocketAddr> {
    let ports = FIRST_PORT..FIRST_PORT + STREAMS;
    ports
        .map(|port| SocketAddr::new(network.server_v4(), port))
        .collect()
}

fn config(network: &Network, folder: &Path, brokers: &[String]) -> Result<String> {
    let mut text = format!(
        "node = \"edge-07\"\n[sampling]\nrate = 1.0\n[state]\ndirectory = \"{}\"\n[kafka]\nbrokers = {brokers:?}\n\
         [limits]\naction = \"log\"\n",
        folder.join("state").display()
    );
    for (n, server) in servers(network).iter().enumerate() {
        let pulse_ms = if n < PULSED_STREAMS.into() { 100 } else { 0 };
        write!(
            text,
            "[[stream]]\nname = \"sport-{n}\"\nlocal = [\"{server}\"]\npulse_ms = {pulse_ms}\n"
        )?;
    }
    Ok(text)
}

/// Prints the tables.
pub fn run() -> Result<()> {
    let network = Network::new(Options::default())?;
    println!(
        "{STREAMS} streams, {PULSED_STREAMS} with pulses of 100 ms; {} s each",
        MEASURED.as_secs()
    );
    println!(
        "{:<28} {:>11} {:>9} {:>9} {:>12} {:>14} {:>10} {:>17}",
        "",
        "% of a core",
        "spool %",
        "RSS MiB",
        "mapped maps",
        "RSS less maps",
        "anonymous",
        "maps' memory MiB"
    );
    measure("JSON lines", &network, &[])?;
    // It takes Java and Maven, which not every machine has that can be measured.
    match broker_in(network.server()) {
        Ok(cluster) => measure("Kafka", &network, &cluster.broker_list())?,
        Err(error) => println!("Kafka: not measured: {error:#}"),
    }
    let here = std::thread::available_parallelism()?.get() as u32;
    for cpus in [here, 128] {
        print_memory(cpus);
    }
    Ok(())
}

/// The daemon by itself, then with all flows.
fn measure(sink: &str, network: &Network, brokers: &[String]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let daemon = start(network, folder.path(), brokers)?;
    print_use(&format!("{sink}, no flow"), &daemon)?;
    let servers = servers(network);
    let listens: Vec<_> = servers.iter().copied().map(Listen::new).collect();
    let edge = Server::start(network.server(), &listens)?;
    let mut plan = Plan::new("open", FLOWS, servers).asking(100, SEGMENT_BYTES, PAUSE);
    plan.start_spread = PAUSE;
    let players = setup::players(network, plan)?;
    let came = clock::wait_until(PATIENCE, || edge.open() >= FLOWS);
    ensure!(came, "only {} of {FLOWS} flows came", edge.open());
    // One window more, so that every flow has been in one.
    std::thread::sleep(Duration::from_secs(2));
    print_use(&format!("{sink}, {FLOWS} flows play"), &daemon)?;
    players.stop()?;
    edge.stop()?;
    Ok(())
}

/// Of the threads that write and sync.
fn spool_cpu(process: Process) -> Result<Duration> {
    let threads = process.threads()?.into_iter();
    let of_the_spool = threads.filter(|(name, _)| name.starts_with("spool"));
    Ok(of_the_spool.map(|(_, ran)| ran).sum())
}

fn print_use(name: &str, daemon: &Daemon) -> Result<()> {
    let process = daemon.process();
    let (begin, before, spool_before) = (Instant::now(), process.cpu()?, spool_cpu(process)?);
    std::thread::sleep(MEASURED);
    let (cpu, spool) = (process.cpu()? - before, spool_cpu(process)? - spool_before);
    let (rss, mapped) = (process.status_mib("VmRSS")?, process.mapped_mib()?);
    println!(
        "{name:<28} {:>11.2} {:>9.1} {rss:>9.1} {mapped:>12.1} {:>14.1} {:>10.1} {:>17.1}",
        cpu.as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0,
        spool.as_secs_f64() / cpu.as_secs_f64() * 100.0,
        rss - mapped,
        process.status_mib("RssAnon")?,
        process.maps_mib()?
    );
    Ok(())
}

fn print_memory(cpus: u32) {
    let KernelMemory {
        rules_bytes,
        cells_bytes,
        flows_bytes,
    } = Size::new(STREAMS.into(), cpus).memory(FLOWS as u32);
    let mib = |bytes: u64| bytes as f64 / MIB;
    println!(
        "kernel memory computed for {cpus} CPUs: rules {:.1} + cells {:.1} = {:.1} MiB of maps, {FLOWS} flows {:.1} MiB more",
        mib(rules_bytes),
        mib(cells_bytes),
        mib(rules_bytes + cells_bytes),
        mib(flows_bytes)
    );
}
