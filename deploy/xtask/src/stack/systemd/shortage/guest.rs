//! Short memory in a guest, by version 2's memory controller of its own kernel: the server is a unit, whose group the other joins.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::clock;

use super::Shortage;
use crate::systemd::machine::Guest;

/// How long the server may take to fill its memory.
const FILLED: Duration = Duration::from_secs(120);
const UNIT: &str = "full-server";
const GROUP: &str = "/sys/fs/cgroup/system.slice/full-server.service";

/// The full memory; given back when dropped.
pub struct Full<'a> {
    guest: &'a Guest,
    bytes: u64,
}

impl<'a> Full<'a> {
    /// A server that holds so many bytes.
    pub fn of(bytes: u64, guest: &'a Guest) -> Result<Self> {
        // It holds what it read until somebody takes it from it, which the second never does. One killed in its group is not to end
        // the unit.
        guest.order(&format!(
            "systemd-run --quiet --unit={UNIT} --property=OOMPolicy=continue \
             sh -c 'dd if=/dev/zero status=none bs={bytes} | sleep infinity'"
        ))?;
        let mut full = Self { guest, bytes };
        let filled = clock::wait_until(FILLED, || full.server_lives());
        ensure!(filled, "the server did not fill its memory");
        Ok(full)
    }

    fn number(&self, file: &str) -> Result<u64> {
        let text = self.guest.order(&format!("cat {GROUP}/{file}"))?;
        text.trim()
            .parse()
            .with_context(|| format!("{file}: {text}"))
    }
}

impl Shortage for Full<'_> {
    fn take_in(&self, pid: u32) -> Result<()> {
        self.guest
            .order(&format!("echo {pid} > {GROUP}/cgroup.procs"))?;
        Ok(())
    }

    fn begin(&self) -> Result<()> {
        let limit = format!("cat {GROUP}/memory.current > {GROUP}/memory.max");
        self.guest.order(&limit)?;
        Ok(())
    }

    fn killed(&self) -> Result<u64> {
        let events = self.guest.order(&format!("cat {GROUP}/memory.events"))?;
        let killed = events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "));
        Ok(killed.with_context(|| events.clone())?.parse()?)
    }

    /// Nobody else there has so much.
    fn server_lives(&mut self) -> bool {
        self.number("memory.current")
            .is_ok_and(|used| used >= self.bytes)
    }
}

impl Drop for Full<'_> {
    fn drop(&mut self) {
        // A guest that does not answer any more is ended by force.
        let _ = self.guest.order(&format!("systemctl stop {UNIT}"));
    }
}
