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

use anyhow::{Context, Result, ensure};
use lab::{
    clock,
    kafka::{self, Cluster, topics},
    network::{Network, Options},
    traffic::{
        plan::Plan,
        server::{Listen, Server},
    },
};
use nix::unistd::{SysconfVar, sysconf};
use sampler::kernel::memory::{KernelMemory, Size};

use crate::daemons::Daemon;
use crate::setup;

const STREAMS: u16 = 200;
const PULSED_STREAMS: u16 = 10;
const FIRST_PORT: u16 = 20_000;
const FLOWS: usize = 10_000;
/// Every flow fetches this much, at random moments about so far apart.
const SEGMENT_BYTES: u64 = 20_000;
const PAUSE: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: f64 = (1 << 20) as f64;

/// The daemon under measurement.
struct Measured(Daemon);

impl Measured {
    fn start(network: &Network, folder: &Path, brokers: &[String]) -> Result<Self> {
        let file = folder.join("sampler.toml");
        fs::write(&file, config(network, folder, brokers)?)?;
        let daemon = Daemon::start(network.server(), "flowvitals-sampler", &file, "attached at")?;
        Ok(Self(daemon))
    }

    fn proc(&self, path: &str) -> Result<String> {
        let path = format!("/proc/{}/{path}", self.0.id());
        fs::read_to_string(&path).context(path)
    }

    /// User and system time of all its threads.
    fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        let fields = stat.rsplit(')').next().unwrap_or_default();
        // utime and stime: the 12th and 13th after the name.
        let times = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = times.filter_map(|t| t.parse::<u64>().ok()).sum();
        let per_s = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
        Ok(Duration::from_secs_f64(ticks as f64 / per_s as f64))
    }

    /// A field of `status`, MiB.
    fn status_mib(&self, field: &str) -> Result<f64> {
        let status = self.proc("status")?;
        let kib = status.lines().find_map(|line| {
            let value = line.strip_prefix(field)?.strip_prefix(':')?;
            value.split_whitespace().next()?.parse::<f64>().ok()
        });
        Ok(kib.with_context(|| format!("no {field}"))? / 1024.0)
    }

    /// Resident part of the mapped maps, MiB.
    fn mapped_mib(&self) -> Result<f64> {
        let (mut is_map, mut kib) = (false, 0.0);
        for line in self.proc("smaps")?.lines() {
            if let Some(value) = line.strip_prefix("Rss:").filter(|_| is_map) {
                let number = value.split_whitespace().next().unwrap_or_default();
                kib += number.parse::<f64>()?;
            } else if line.contains('-') && !line.starts_with(char::is_uppercase) {
                is_map = line.ends_with("bpf-map");
            }
        }
        Ok(kib / 1024.0)
    }

    /// What the kernel says that its maps take, without the storage of flows, MiB.
    fn maps_mib(&self) -> Result<f64> {
        let mut bytes = std::collections::BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", self.0.id()))? {
            let info = fs::read_to_string(entry?.path()).unwrap_or_default();
            let field = |name: &str| {
                let value = info.lines().find_map(|line| line.strip_prefix(name))?;
                value.trim().parse::<u64>().ok()
            };
            if let (Some(id), Some(memory)) = (field("map_id:"), field("memlock:")) {
                bytes.insert(id, memory);
            }
        }
        Ok(bytes.values().sum::<u64>() as f64 / MIB)
    }
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
        "{:<28} {:>11} {:>9} {:>12} {:>14} {:>10} {:>17}",
        "",
        "% of a core",
        "RSS MiB",
        "mapped maps",
        "RSS less maps",
        "anonymous",
        "maps' memory MiB"
    );
    measure("JSON lines", &network, &[])?;
    // It takes Java and Maven, which not every machine has that can be measured.
    match broker(&network) {
        Ok(cluster) => measure("Kafka", &network, &cluster.broker_list())?,
        Err(error) => println!("Kafka: not measured: {error:#}"),
    }
    let here = std::thread::available_parallelism()?.get() as u32;
    for cpus in [here, 128] {
        print_memory(cpus);
    }
    Ok(())
}

/// A broker with our topics.
fn broker(network: &Network) -> Result<Cluster> {
    let cluster = Cluster::start(&kafka::Options::default(), Some(network.server()))?;
    let declared = topics::read(&kafka::declared_topics())?;
    let brokers = cluster.brokers();
    network
        .server()
        .run_in(|| topics::apply(&brokers, &declared))??;
    Ok(cluster)
}

/// The daemon by itself, then with all flows.
fn measure(sink: &str, network: &Network, brokers: &[String]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let daemon = Measured::start(network, folder.path(), brokers)?;
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

fn print_use(name: &str, daemon: &Measured) -> Result<()> {
    let (begin, before) = (Instant::now(), daemon.cpu()?);
    std::thread::sleep(MEASURED);
    let cpu = daemon.cpu()? - before;
    let (rss, mapped) = (daemon.status_mib("VmRSS")?, daemon.mapped_mib()?);
    println!(
        "{name:<28} {:>11.2} {rss:>9.1} {mapped:>12.1} {:>14.1} {:>10.1} {:>17.1}",
        cpu.as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0,
        rss - mapped,
        daemon.status_mib("RssAnon")?,
        daemon.maps_mib()?
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
