//! Where the numbers come from.

use std::fs;

use anyhow::Result;

/// Kernel, CPU and how many of them.
pub fn describe() -> Result<String> {
    let release = sampler::kernel::load::kernel_release();
    let cpus = std::thread::available_parallelism()?;
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let virtual_machine = if info.contains(" hypervisor") {
        ", virtual machine"
    } else {
        ""
    };
    Ok(format!(
        "machine: kernel {release}, {cpus} CPUs, {model}{virtual_machine}"
    ))
}

/// What else it does: load averages of 1, 5 and 15 minutes.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let averages: Vec<_> = text.split(' ').take(3).collect();
    format!("load {}", averages.join(" "))
}
