//! A container: systemd-nspawn runs the machine on this kernel. What it writes goes to memory and is gone with it; its programs are in
//! a control group and a network namespace that were made for it. What is run in it is run by `nsenter`, so that PID 1 needs no help
//! of ours.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::netns::Namespace;
use lab::{clock, command};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{PACKAGES, Place, last_words};
use crate::attached::Attached;
use crate::paths;
use crate::systemd::cgroup::Group;
use crate::systemd::shortage::{self, Shortage};

/// How long PID 1 may take to answer on a loaded machine.
const BOOT: Duration = Duration::from_secs(60);

/// In front of nspawn: joins the groups that come first, up to `--`, and never outlives us.
const JOIN: &str = "while [ \"$1\" != -- ]; do echo $$ > \"$1\" || exit; shift; done; shift; \
                    exec setpriv --pdeathsig TERM \"$@\"";

/// A running container.
pub struct Container {
    nspawn: Child,
    /// PID 1 of the machine, as it is called here.
    first: Pid,
    console: PathBuf,
    // Removed last: only then is it empty.
    _group: Option<Group>,
}

impl Container {
    /// Starts the root with `packages` visible in it, and waits until its PID 1 answers.
    pub fn start(root: &Path, network: &Namespace, packages: &Path) -> Result<Self> {
        let console = paths::target().join("systemd-test/console.log");
        let group = match Path::new("/run/systemd/system").exists() {
            true => None,
            false => Some(Group::new().context("no control group for the machine")?),
        };
        let output = File::create(&console)?;
        let nspawn = enclosed(group.as_ref())
            .args(arguments(root, network, packages))
            // A group of version 2 alone, whatever this machine has.
            .env("UNIFIED_CGROUP_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start systemd-nspawn")?;
        let mut container = Self {
            nspawn,
            first: Pid::from_raw(0),
            console,
            _group: group,
        };
        let mut ended = false;
        let answers = clock::wait_until(BOOT, || {
            ended = container.is_off();
            container.first = first_child(container.nspawn.id()).unwrap_or(Pid::from_raw(0));
            ended || (container.first.as_raw() > 0 && container.answers())
        });
        ensure!(answers && !ended, last_words(&container));
        Ok(container)
    }

    /// Whether PID 1 speaks already.
    fn answers(&self) -> bool {
        self.shell("systemctl show --property=Version", "").is_ok()
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
}

impl Place for Container {
    fn shell(&self, text: &str, input: &str) -> Result<String> {
        let mut inside = Command::new("nsenter");
        let first = self.first.to_string();
        inside.args(["--all", "--wdns=/", "--target", &first, "--"]);
        inside.args(["sh", "-c", text]);
        Ok(command::run_with_input(&mut inside, input)?)
    }

    fn is_off(&mut self) -> bool {
        self.nspawn.try_wait().is_ok_and(|status| status.is_some())
    }

    fn console(&self) -> &Path {
        &self.console
    }

    fn objects(&self) -> Result<Attached> {
        Ok(Attached::now())
    }

    fn shortage<'a>(&'a self, bytes: u64) -> Result<Option<Box<dyn Shortage + 'a>>> {
        let shortage = shortage::host::Full::of(bytes, self)?;
        Ok(shortage.map(|shortage| Box::new(shortage) as Box<dyn Shortage>))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.is_off() {
            return;
        }
        if self.first.as_raw() > 0 {
            // Whatever runs in it ends with its PID 1, and systemd-nspawn then cleans up.
            let _ = kill(self.first, Signal::SIGKILL);
        } else {
            let _ = self.nspawn.kill();
        }
        let _ = self.nspawn.wait();
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

fn arguments(root: &Path, network: &Namespace, packages: &Path) -> Vec<String> {
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
