//! What a process uses, as `/proc` has it.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// Bytes of a MiB.
pub const MIB: f64 = (1 << 20) as f64;

/// A process, by its number.
#[derive(Clone, Copy, Debug)]
pub struct Process(u32);

impl Process {
    /// One that runs.
    pub fn new(id: u32) -> Self {
        Self(id)
    }

    fn proc(&self, path: &str) -> Result<String> {
        let path = format!("/proc/{}/{path}", self.0);
        fs::read_to_string(&path).context(path)
    }

    /// User and system time of all its threads.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        let fields = stat.rsplit(')').next().unwrap_or_default();
        // utime and stime: the 12th and 13th after the name.
        let times = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = times.filter_map(|t| t.parse::<u64>().ok()).sum();
        let per_s = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
        Ok(Duration::from_secs_f64(ticks as f64 / per_s as f64))
    }

    /// Processor time of its threads, by name.
    pub fn threads(&self) -> Result<BTreeMap<String, Duration>> {
        let mut times = BTreeMap::<_, Duration>::new();
        let folder = format!("/proc/{}/task", self.0);
        for task in fs::read_dir(&folder).context(folder)? {
            let path = task?.path();
            // One that has just ended is left out.
            let name = fs::read_to_string(path.join("comm"));
            let times_ns = fs::read_to_string(path.join("schedstat"));
            if let (Ok(name), Ok(times_ns)) = (name, times_ns) {
                let ran_ns = times_ns.split(' ').next().unwrap_or_default().parse()?;
                *times.entry(name.trim_end().to_owned()).or_default() +=
                    Duration::from_nanos(ran_ns);
            }
        }
        Ok(times)
    }

    /// The number of a field of `status`.
    pub fn status(&self, field: &str) -> Result<f64> {
        let status = self.proc("status")?;
        let number = status.lines().find_map(|line| {
            let value = line.strip_prefix(field)?.strip_prefix(':')?;
            value.split_whitespace().next()?.parse().ok()
        });
        number.with_context(|| format!("no {field}"))
    }

    /// A field of `status` that counts memory, MiB.
    pub fn status_mib(&self, field: &str) -> Result<f64> {
        Ok(self.status(field)? / 1024.0)
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> Result<usize> {
        let folder = format!("/proc/{}/fd", self.0);
        Ok(fs::read_dir(&folder).context(folder)?.count())
    }

    /// Resident part of the mapped maps, MiB.
    pub fn mapped_mib(&self) -> Result<f64> {
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
    pub fn maps_mib(&self) -> Result<f64> {
        let mut bytes = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", self.0))? {
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
