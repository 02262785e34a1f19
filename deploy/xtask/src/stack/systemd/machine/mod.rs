//! The machine: booted, spoken to, powered off. A container of this kernel, or a guest with a kernel of its own: for the checks it is
//! the same.

mod container;
mod guest;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::clock;

use super::shortage::Shortage;
use super::site::Site;
use crate::attached::Attached;
use crate::progress;
use crate::vm::guest::tail;
pub use container::Container;
pub use guest::{Guest, Parts};

/// How long powering off may take.
const POWER_OFF: Duration = Duration::from_secs(60);
/// A guest is booted so often at most. Each of its processors is emulated by a thread, and a kernel that patches its own code while
/// another processor runs it can break then (seen on 7.3, in one of two boots), which says nothing of what is tried here.
const BOOTS: u32 = 3;
/// Where the packages are seen inside.
const PACKAGES: &str = "/packages";

/// Where a package is seen inside.
pub fn package(name: &str) -> String {
    format!("{PACKAGES}/{name}")
}

/// Where a machine is, and how it is reached. What is still running when this is dropped is ended by force.
trait Place {
    /// Runs a shell command in it as root, with this on its standard input; what it printed.
    fn shell(&self, text: &str, input: &str) -> Result<String>;

    /// Whether it is off.
    fn is_off(&mut self) -> bool;

    /// What it has said.
    fn console(&self) -> &Path;

    /// All BPF objects of its kernel.
    fn objects(&self) -> Result<Attached>;

    /// A full memory of so many bytes; nothing where memory cannot be made short.
    fn shortage<'a>(&'a self, bytes: u64) -> Result<Option<Box<dyn Shortage + 'a>>>;
}

/// A running machine; ended by force when dropped.
pub struct Machine {
    place: Box<dyn Place>,
    boot_time: Duration,
}

impl Machine {
    /// Boots the root as a container, with `packages` visible in it.
    pub fn container(root: &Path, site: &Site, packages: &Path) -> Result<Self> {
        Self::boot(|| Container::start(root, site.namespace(), packages))
    }

    /// Boots a guest of these parts.
    pub fn guest(parts: &Parts, site: &Site) -> Result<Self> {
        let mut boots = 1;
        loop {
            let booted = Self::boot(|| Guest::start(parts, site));
            let broke = |error: &anyhow::Error| format!("{error:#}").contains("Kernel panic");
            match booted {
                Err(error) if boots < BOOTS && broke(&error) => {
                    println!("the guest's kernel broke while it booted; once more");
                    boots += 1;
                }
                booted => return booted,
            }
        }
    }

    /// Waits until everything is up.
    fn boot<T: Place + 'static>(start: impl FnOnce() -> Result<T>) -> Result<Self> {
        let begin = clock::now();
        let place = progress::during("the machine boots", || -> Result<T> {
            let place = start()?;
            let up = place.shell("systemctl is-system-running --wait || true", "");
            let state = up.with_context(|| last_words(&place))?;
            if state.trim() != "running" {
                let failed = place.shell("systemctl --failed --no-legend --plain", "")?;
                bail!("the machine is {}: {}", state.trim(), failed.trim());
            }
            Ok(place)
        })?;
        Ok(Self {
            place: Box::new(place),
            boot_time: begin.elapsed(),
        })
    }

    /// Runs a shell command in it as root; what it printed.
    pub fn shell(&self, text: &str) -> Result<String> {
        self.place.shell(text, "")
    }

    /// Writes a file in it.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        self.place.shell(&format!("cat > {path}"), text)?;
        Ok(())
    }

    /// What a process of it holds of the kernel.
    pub fn attached(&self, pid: u32) -> Result<Attached> {
        // Connections come and go meanwhile: what is closed before it is read is no failure.
        let read = format!("cat /proc/{pid}/fdinfo/* 2>/dev/null || true");
        Attached::by(&self.shell(&read)?, &self.place.objects()?)
    }

    /// Waits until none of it is in the kernel any more.
    pub fn gone(&self, attached: &Attached) -> Result<()> {
        attached.gone(|| self.place.objects())
    }

    /// A full memory of so many bytes; nothing where memory cannot be made short.
    pub fn shortage(&self, bytes: u64) -> Result<Option<Box<dyn Shortage + '_>>> {
        self.place.shortage(bytes)
    }

    /// Installs or upgrades to a package of the folder; what apt said.
    pub fn install(&self, name: &str) -> Result<String> {
        let apt = "DEBIAN_FRONTEND=noninteractive apt-get install --yes";
        self.shell(&format!("{apt} {} 2>&1", package(name)))
    }

    /// What it is.
    pub fn description(&self) -> Result<String> {
        let system =
            self.shell(". /etc/os-release; echo \"$PRETTY_NAME\"; uname -r; systemctl --version")?;
        let mut lines = system.lines();
        let (name, kernel) = (lines.next().unwrap_or("?"), lines.next().unwrap_or("?"));
        let manager = lines.next().unwrap_or("?");
        Ok(format!("{name}, {manager}, kernel {kernel}"))
    }

    /// How long it took to come up.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Ends it in order.
    pub fn power_off(mut self) -> Result<()> {
        self.shell("systemctl poweroff --no-block")?;
        let begin = clock::now();
        let off = progress::during("the machine powers off", || {
            clock::wait_until(POWER_OFF, || self.place.is_off())
        });
        if !off {
            bail!("the machine still runs after {:.0?}", begin.elapsed());
        }
        Ok(())
    }
}

fn last_words(place: &impl Place) -> String {
    let said = tail(place.console());
    format!("the machine did not come up; the last of its console:\n{said}")
}
