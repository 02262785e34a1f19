//! A service of the machine, as its systemd knows it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::clock;

use super::machine::Machine;

/// How long a service may take to come back, on a loaded machine.
const BACK: Duration = Duration::from_secs(60);

/// A unit of ours.
pub struct Service<'a> {
    machine: &'a Machine,
    name: &'static str,
}

/// What the kernel says of a service's process.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id inside the machine.
    pub pid: u32,
    /// Whom it runs as.
    pub uid: u32,
    /// Capabilities that it has or could take, hexadecimal.
    pub capabilities: [String; 2],
    /// Whether a program that it starts cannot gain any, and its system calls are filtered.
    pub confined: bool,
}

impl<'a> Service<'a> {
    /// The service of that name.
    pub fn new(machine: &'a Machine, name: &'static str) -> Self {
        Self { machine, name }
    }

    /// `systemctl VERB` it.
    pub fn systemctl(&self, verb: &str) -> Result<()> {
        self.machine
            .shell(&format!("systemctl {verb} {}", self.name))
            .with_context(|| self.last_words())?;
        Ok(())
    }

    /// Starts it anew, or at all. The unit allows so many starts in ten minutes, which tests need more of.
    pub fn restart(&self) -> Result<()> {
        self.systemctl("reset-failed")?;
        self.systemctl("restart")
    }

    /// A property as text.
    pub fn property(&self, name: &str) -> Result<String> {
        let show = format!("systemctl show --value --property={name} {}", self.name);
        Ok(self.machine.shell(&show)?.trim().to_owned())
    }

    /// A property that is a number.
    pub fn number(&self, name: &str) -> Result<u32> {
        let text = self.property(name)?;
        text.parse().with_context(|| format!("{name} is {text:?}"))
    }

    /// Whether it is enabled, and whether it is active, in systemd's words.
    pub fn standing(&self) -> Result<String> {
        let ask = format!(
            "systemctl is-enabled {0}; systemctl is-active {0}; true",
            self.name
        );
        Ok(self.machine.shell(&ask)?.trim().replace('\n', ", "))
    }

    /// Its main process; fails where it is not active.
    pub fn process(&self) -> Result<Process> {
        let (state, pid) = (self.property("ActiveState")?, self.number("MainPID")?);
        ensure!(
            state == "active" && pid > 0,
            "it is {state}; {}",
            self.last_words()
        );
        let status = self.machine.shell(&format!("cat /proc/{pid}/status"))?;
        let field = |name: &str| -> Result<String> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_whitespace().next());
            Ok(value
                .with_context(|| format!("no {name} in {status}"))?
                .to_owned())
        };
        Ok(Process {
            pid,
            uid: field("Uid:")?.parse()?,
            capabilities: [field("CapEff:")?, field("CapPrm:")?],
            confined: field("NoNewPrivs:")? == "1" && field("Seccomp:")? == "2",
        })
    }

    /// Sends its main process a signal.
    pub fn signal(&self, signal: &str) -> Result<()> {
        self.systemctl(&format!("kill --kill-whom=main --signal={signal}"))
    }

    /// Waits until systemd has restarted it more often than `before`; its new process.
    pub fn restarted(&self, before: u32) -> Result<Process> {
        let mut restarts = before;
        let back = clock::wait_until(BACK, || {
            restarts = self.number("NRestarts").unwrap_or(restarts);
            restarts > before && self.process().is_ok()
        });
        if !back {
            bail!(
                "restarted {} times after {BACK:?}; {}",
                restarts - before,
                self.last_words()
            );
        }
        self.process()
    }

    /// Lines of its journal since `since` (a time of the machine's clock) with this text.
    pub fn said(&self, text: &str, since: &str) -> Result<Vec<String>> {
        let journal = format!(
            "journalctl --quiet --output=cat --since='{since}' --unit={}",
            self.name
        );
        let lines = self.machine.shell(&journal)?;
        let lines = lines.lines().filter(|line| line.contains(text));
        Ok(lines.map(str::to_owned).collect())
    }

    /// The end of its journal, for what went wrong.
    pub fn last_words(&self) -> String {
        let journal = format!(
            "journalctl --quiet --output=cat --lines=6 --unit={}",
            self.name
        );
        let said = self.machine.shell(&journal).unwrap_or_default();
        format!("its journal: {}", said.trim().replace('\n', " | "))
    }

    /// What systemd thinks of its exposure; fails above `tenths`, and where the unit has a mistake.
    pub fn exposure(&self, tenths: u32) -> Result<String> {
        self.machine.shell(&format!(
            "systemd-analyze verify --man=no --recursive-errors=no {}.service",
            self.name
        ))?;
        let security = format!(
            "systemd-analyze security --no-pager --threshold={tenths} {}",
            self.name
        );
        let said = self.machine.shell(&security)?;
        let last = said.lines().last().unwrap_or_default();
        let (_, level) = last.rsplit_once(": ").unwrap_or(("", last));
        Ok(format!("verified; exposure {level}"))
    }
}
