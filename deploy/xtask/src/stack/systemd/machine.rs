//! The machine: booted, spoken to, powered off.
//!
//! systemd-nspawn runs it on this kernel. What it writes goes to memory and is gone with it; its programs are in a control group
//! and a network namespace that were made for it. What is run in it is run by `nsenter`, so that PID 1 needs no help of ours.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::netns::Namespace;
use lab::{clock, command};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cgroup::Group;
use crate::paths;

/// How long booting may take on a loaded machine.
const BOOT: Duration = Duration::from_secs(60);
/// How long powering off may.
const POWER_OFF: Duration = Duration::from_secs(30);
/// Where the packages are seen inside.
const PACKAGES: &str = "/packages";
/// Where a package is seen inside.
pub fn package(name: &str) -> String {
    format!("{PACKAGES}/{name}")
}

/// In front of nspawn: joins the groups that come first, up to `--`, and never outlives us.
const JOIN: &str = "while [ \"$1\" != -- ]; do echo $$ > \"$1\" || exit; shift; done; shift; \
                    exec setpriv --pdeathsig TERM \"$@\"";

/// A running machine; ended by force when dropped.
pub struct Machine {
    container: Child,
    /// PID 1 of the machine, as it is called here.
    first: Pid,
    console: PathBuf,
    boot_time: Duration,
    // Removed last: only then is it empty.
    _group: Option<Group>,
}

impl Machine {
    /// Boots the root with `packages` visible in it, and waits until everything is up.
    pub fn boot(root: &Path, network: &Namespace, packages: &Path) -> Result<Self> {
        let start = clock::now();
        let console = paths::target().join("systemd-test/console.log");
        let group = match Path::new("/run/systemd/system").exists() {
            true => None,
            false => Some(Group::new().context("no control group for the machine")?),
        };
        let output = File::create(&console)?;
        let container = enclosed(group.as_ref())
            .args(container(root, network, packages))
            // A group of version 2 alone, whatever this machine has.
            .env("UNIFIED_CGROUP_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start systemd-nspawn")?;
        let mut machine = Self {
            container,
            first: Pid::from_raw(0),
            console,
            boot_time: Duration::ZERO,
            _group: group,
        };
        machine.wait_running()?;
        machine.boot_time = start.elapsed();
        Ok(machine)
    }

    fn wait_running(&mut self) -> Result<()> {
        let mut ended = false;
        let up = clock::wait_until(BOOT, || {
            ended = self
                .container
                .try_wait()
                .is_ok_and(|status| status.is_some());
            self.first = first_child(self.container.id()).unwrap_or(Pid::from_raw(0));
            ended || (self.first.as_raw() > 0 && self.answers())
        });
        if ended || !up {
            let said = fs::read_to_string(&self.console).unwrap_or_default();
            bail!("the machine did not come up; its console: {}", said.trim());
        }
        let state = self.shell("systemctl is-system-running --wait || true")?;
        if state.trim() != "running" {
            let failed = self.shell("systemctl --failed --no-legend --plain")?;
            bail!("the machine is {}: {}", state.trim(), failed.trim());
        }
        Ok(())
    }

    /// Whether PID 1 speaks already.
    fn answers(&self) -> bool {
        self.shell("systemctl show --property=Version").is_ok()
    }

    /// Runs a shell command in it as root; what it printed.
    pub fn shell(&self, text: &str) -> Result<String> {
        Ok(command::run(self.inside().args(["sh", "-c", text]))?)
    }

    /// What the kernel says of each descriptor of a process of it.
    pub fn descriptors(&self, pid: u32) -> Result<String> {
        // Connections come and go meanwhile: what is closed before it is read is no failure.
        self.shell(&format!("cat /proc/{pid}/fdinfo/* 2>/dev/null || true"))
    }

    /// Puts a process of it, by its id in it, into a control group of this machine's.
    pub fn join(&self, pid: u32, members: &Path) -> Result<()> {
        let mut join = Command::new("nsenter");
        // Who writes is seen from among the machine's processes, and sees this machine's files.
        join.args(["--pid", "--target", &self.first.to_string(), "--"]);
        join.args(["sh", "-c", "echo \"$1\" > \"$2\"", "sh", &pid.to_string()]);
        command::run(join.arg(members))?;
        Ok(())
    }

    /// Writes a file in it.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let mut write = self.inside();
        command::run_with_input(write.args(["tee", path]), text)?;
        Ok(())
    }

    /// Installs or upgrades to a package of [`Machine::boot`]'s folder; what apt said.
    pub fn install(&self, name: &str) -> Result<String> {
        let apt = "DEBIAN_FRONTEND=noninteractive apt-get install --yes";
        self.shell(&format!("{apt} {} 2>&1", package(name)))
    }

    fn inside(&self) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args([
            "--all",
            "--wdns=/",
            "--target",
            &self.first.to_string(),
            "--",
        ]);
        inside
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
        let start: Instant = clock::now();
        let ended = clock::wait_until(POWER_OFF, || {
            self.container
                .try_wait()
                .is_ok_and(|status| status.is_some())
        });
        if !ended {
            bail!("the machine still runs after {:.0?}", start.elapsed());
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self
            .container
            .try_wait()
            .is_ok_and(|status| status.is_some())
        {
            return;
        }
        if self.first.as_raw() > 0 {
            // Whatever runs in it ends with its PID 1, and systemd-nspawn then cleans up.
            let _ = kill(self.first, Signal::SIGKILL);
        } else {
            let _ = self.container.kill();
        }
        let _ = self.container.wait();
    }
}

/// In front of systemd-nspawn: a group of ours, or a scope of the systemd that runs here.
fn enclosed(group: Option<&Group>) -> Command {
    let mut command;
    match group {
        Some(group) => {
            command = Command::new("sh");
            command.args(["-c", JOIN, "sh"]).args(group.members());
            command.arg("--");
        }
        None => {
            command = Command::new("systemd-run");
            command.args([
                "--quiet",
                "--scope",
                "--collect",
                "--property=Delegate=yes",
                "--",
            ]);
        }
    }
    command
}

fn container(root: &Path, network: &Namespace, packages: &Path) -> Vec<String> {
    let mut arguments = vec!["systemd-nspawn".to_owned(), "--boot".to_owned()];
    arguments.extend(
        [
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--volatile=overlay",
            "--console=pipe",
            "--kill-signal=SIGRTMIN+3",
            // What the sampler's unit asks for is not more than its machine may.
            "--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN",
            "--system-call-filter=bpf perf_event_open",
        ]
        .map(str::to_owned),
    );
    let machine = format!("--machine=flowvitals-{}", std::process::id());
    let network = format!("--network-namespace-path={}", network.path().display());
    let packages = format!("--bind-ro={}:{PACKAGES}", packages.display());
    let root = format!("--directory={}", root.display());
    arguments.extend([machine, network, packages, root]);
    arguments
}

/// The only child of a process.
fn first_child(of: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
    children.split(' ').next()?.parse().ok().map(Pid::from_raw)
}
