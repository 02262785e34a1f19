//! What the unit lets the sampler take of its host, and who goes first where memory is short.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::clock;

use super::Trial;
use super::life::Life;
use super::machine::Machine;
use super::sampler::{NAME, words};
use super::service::Service;

/// What systemd must have read in the unit.
const PROPERTIES: [(&str, &str); 9] = [
    ("CPUQuotaPerSecUSec", "500ms"),
    ("CPUWeight", "50"),
    ("IOWeight", "50"),
    ("LimitMEMLOCK", "536870912"),
    ("LimitNOFILE", "4096"),
    ("MemoryHigh", "402653184"),
    ("MemoryMax", "536870912"),
    ("OOMScoreAdjust", OOM_SCORE),
    ("TasksMax", "64"),
];
/// What the kernel must have of it, where the controllers are version 2's.
const FILES: [(&str, &str); 5] = [
    ("cpu.max", "50000 100000"),
    ("cpu.weight", "50"),
    ("memory.high", "402653184"),
    ("memory.max", "536870912"),
    ("pids.max", "64"),
];
const OOM_SCORE: &str = "1000";
/// Memory of a server that is bigger than anything that the sampler has.
const SERVER_BYTES: u64 = 256 << 20;
/// Answers take memory.
const ASK_MUCH: &str = "for each in $(seq 64); do curl --silent --max-time 5 --output /dev/null http://127.0.0.1:9740/metrics & done; wait";
const NEEDS_MORE: Duration = Duration::from_secs(60);

/// Limits in force, and the sampler killed for want of memory; whether all of that was right.
pub fn hold(trial: &mut Trial) -> bool {
    let (machine, site) = (trial.machine, trial.site);
    let service = Service::new(machine, NAME);
    let report = &mut *trial.report;
    if !report.check("sampler: limits in force", || in_force(machine, &service)) {
        return false;
    }
    let what = "sampler: goes before a server does";
    let mut shortage = match machine.shortage(SERVER_BYTES) {
        Ok(Some(shortage)) => shortage,
        Ok(None) => return report.skipped(what, "memory is not counted by version 1 here"),
        Err(error) => return report.check(what, || Err(error)),
    };
    report.check(what, || {
        let (restarts, life) = (service.number("NRestarts")?, Life::now(machine, site)?);
        shortage.take_in(life.process.pid)?;
        shortage.begin()?;
        // By itself it may need no more for a minute.
        clock::wait_until(NEEDS_MORE, || {
            let asked = machine.shell(ASK_MUCH);
            asked.is_ok() && service.number("NRestarts").is_ok_and(|now| now > restarts)
        });
        let process = service.restarted(restarts)?;
        let (killed, spared) = (shortage.killed()?, shortage.server_lives());
        ensure!(killed == 1 && spared, "{killed} killed, server spared: {spared}");
        let window = life.goes_on(machine, site)?;
        Ok(format!(
            "killed for memory, not the server of {} MiB; back as process {} with the same kernel side, {}",
            SERVER_BYTES >> 20,
            process.pid,
            words(&window)
        ))
    })
}

/// As systemd and the kernel have them.
fn in_force(machine: &Machine, service: &Service) -> Result<String> {
    for (name, expected) in PROPERTIES {
        let found = service.property(name)?;
        ensure!(found == expected, "{name} is {found}, not {expected}");
    }
    let pid = service.process()?.pid;
    let adjusted = machine.shell(&format!("cat /proc/{pid}/oom_score_adj"))?;
    ensure!(adjusted.trim() == OOM_SCORE, "oom_score_adj is {adjusted}");
    let group = format!("/sys/fs/cgroup{}", service.property("ControlGroup")?);
    let mut elsewhere = Vec::new();
    for (name, expected) in FILES {
        let found = machine.shell(&format!("cat {group}/{name} 2>/dev/null || true"))?;
        match found.trim() {
            "" => elsewhere.push(name),
            found => ensure!(found == expected, "{name} is {found}, not {expected}"),
        }
    }
    let status = machine.shell(&format!("cat /proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.split_whitespace().next());
        Ok(value.with_context(|| status.clone())?.parse()?)
    };
    let (mib, threads) = (field("VmRSS:")? >> 10, field("Threads:")?);
    let kernel = match elsewhere.is_empty() {
        true => "the kernel's files say so too".to_owned(),
        false => format!("the machine's kernel keeps no {}", elsewhere.join(", ")),
    };
    Ok(format!("{mib} MiB resident, {threads} threads; {kernel}"))
}
