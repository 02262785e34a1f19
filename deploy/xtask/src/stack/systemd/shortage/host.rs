//! Short memory for a container, by version 1's memory controller of this machine, in a group of our own. What version 2 has of it is
//! systemd's to give out, here or in the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::clock;

use super::Shortage;
use crate::systemd::cgroup::Group;
use crate::systemd::machine::Container;

/// How long the server may take to fill its memory.
const FILLED: Duration = Duration::from_secs(30);
/// Joins a group, and never outlives us.
const SERVER: &str =
    "echo $$ > \"$1\" && exec setpriv --pdeathsig KILL dd if=/dev/zero status=none bs=\"$2\"";

/// The full memory; given back when dropped.
pub struct Full<'a> {
    container: &'a Container,
    // It holds what it read until somebody takes it from it, which the second never does.
    server: Child,
    reader: Child,
    group: Group,
}

impl<'a> Full<'a> {
    /// A server that holds so many bytes; nothing where memory cannot be made short here.
    pub fn of(bytes: u64, container: &'a Container) -> Result<Option<Self>> {
        let Some(group) = Group::of_memory()? else {
            return Ok(None);
        };
        let mut reader = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "sleep", "infinity"])
            .stdin(Stdio::piped())
            .spawn()?;
        let taken = reader.stdin.take().context("no pipe")?;
        let mut server = Command::new("sh");
        server.args(["-c", SERVER, "sh"]).args(group.members());
        let server = server.arg(bytes.to_string()).stdout(taken).spawn()?;
        let mut shortage = Self {
            container,
            server,
            reader,
            group,
        };
        // Where there is swap, it would only be slow.
        shortage.set("memory.swappiness", 0)?;
        let filled = clock::wait_until(FILLED, || {
            shortage
                .number("memory.usage_in_bytes")
                .is_ok_and(|used| used >= bytes)
        });
        ensure!(
            filled && shortage.server_lives(),
            "the server did not fill its memory"
        );
        Ok(Some(shortage))
    }

    fn file(&self, name: &str) -> PathBuf {
        let folder = self.group.folders().first();
        folder
            .map(PathBuf::as_path)
            .unwrap_or(Path::new(""))
            .join(name)
    }

    fn number(&self, name: &str) -> Result<u64> {
        Ok(fs::read_to_string(self.file(name))?.trim().parse()?)
    }

    fn set(&self, name: &str, value: u64) -> Result<()> {
        fs::write(self.file(name), value.to_string()).with_context(|| format!("{name} = {value}"))
    }
}

impl Shortage for Full<'_> {
    fn take_in(&self, pid: u32) -> Result<()> {
        let members = self.group.members().next().context("no group")?;
        self.container.join(pid, &members)
    }

    fn begin(&self) -> Result<()> {
        let mut set = Ok(());
        let is_set = clock::wait_until(Duration::from_secs(10), || {
            // Refused where more came to be used in between.
            set = self
                .number("memory.usage_in_bytes")
                .and_then(|used| self.set("memory.limit_in_bytes", used));
            set.is_ok()
        });
        ensure!(is_set, "{set:?}");
        Ok(())
    }

    fn killed(&self) -> Result<u64> {
        let text = fs::read_to_string(self.file("memory.oom_control"))?;
        let killed = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(killed.with_context(|| text.clone())?.parse()?)
    }

    fn server_lives(&mut self) -> bool {
        self.server.try_wait().is_ok_and(|ended| ended.is_none())
    }
}

impl Drop for Full<'_> {
    fn drop(&mut self) {
        // Both fail only for one that has ended already. The group goes after them.
        for child in [&mut self.server, &mut self.reader] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
