//! A guest: QEMU runs the machine on a kernel of its own, emulated (TCG). What it writes goes to a file without a name and is gone with
//! it; its disks are images that stay as they are.
//!
//! What is run in it is ordered from an agent over a virtio port, which is QEMU's standard input and output here. Its network is QEMU's
//! own: QEMU runs in the namespace where Kafka is, whose loopback the guest sees as another address; what it sends to the broker's
//! own address is passed on to that. Its clock is this machine's, so that Kafka's times hold.

use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::agent::{Answer, Order, TOO_LONG};
use lab::clock;

use super::Place;
use crate::attached::Attached;
use crate::systemd::shortage::{self, Shortage};
use crate::systemd::site::Site;
use crate::vm::kernels::Kernel;
use crate::{interrupt, paths};

const MEMORY_MIB: u32 = 1024;
const CPUS: u32 = 2;
/// How long any order may take: apt needs a minute of an emulated machine where it has nothing else to do.
const LIMIT: Duration = Duration::from_secs(300);
/// How much later the host gives up what the guest itself should have ended.
const SLACK: Duration = Duration::from_secs(30);
/// The host's loopback, as a guest of QEMU's own network sees it.
const HOST: &str = "10.0.2.2";
/// In front of what passes connections on.
const PASS_ON: &str = "/run/systemd/system/kafka";

/// What a guest is made of.
pub struct Parts {
    /// Its kernel.
    pub kernel: Kernel,
    /// What that starts with.
    pub initramfs: PathBuf,
    /// Image of the root.
    pub root: PathBuf,
    /// Image of the folder of packages.
    pub packages: PathBuf,
}

/// A running guest.
pub struct Guest {
    qemu: Child,
    console: PathBuf,
    channel: Mutex<Channel>,
}

/// The way to the agent.
struct Channel {
    orders: ChildStdin,
    answers: Receiver<std::io::Result<Answer>>,
    /// An answer is due that nobody waits for any more: what comes next cannot be told from it.
    is_lost: bool,
}

impl Guest {
    /// Starts it, and waits until it can reach the broker.
    pub fn start(parts: &Parts, site: &Site) -> Result<Self> {
        let console = paths::target().join("systemd-test/guest-console.log");
        fs::write(&console, "")?;
        let complaints = File::options().append(true).open(&console)?;
        let mut qemu = site.namespace().command("setpriv");
        // It never outlives us. Ctrl-C is for us alone, who end it in order.
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        qemu.process_group(0);
        qemu.args(arguments(parts, &std::path::absolute(&console)?));
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut qemu = qemu
            .stderr(complaints)
            .spawn()
            .context("cannot start QEMU")?;
        let orders = qemu.stdin.take().context("no way to QEMU")?;
        let said = qemu.stdout.take().context("no way from QEMU")?;
        let (sender, answers) = mpsc::channel();
        // Ends with QEMU, whose end of the pipe closes then.
        thread::spawn(move || {
            let mut said = BufReader::new(said);
            loop {
                let answer = Answer::read(&mut said);
                let is_last = answer.is_err();
                if sender.send(answer).is_err() || is_last {
                    return;
                }
            }
        });
        let guest = Self {
            qemu,
            console,
            channel: Mutex::new(Channel {
                orders,
                answers,
                is_lost: false,
            }),
        };
        for broker in site.access("flowvitals-sampler").brokers.split(',') {
            guest
                .pass_on(broker)
                .with_context(|| super::last_words(&guest))?;
        }
        Ok(guest)
    }

    /// Connections to a broker's address go there.
    fn pass_on(&self, broker: &str) -> Result<()> {
        let (_, port) = broker.rsplit_once(':').context(broker.to_owned())?;
        let unit = format!("{PASS_ON}-{port}");
        let socket = format!("[Socket]\nListenStream={broker}\n");
        let proxy =
            format!("[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd {HOST}:{port}\n");
        self.shell(&format!("cat > {unit}.socket"), &socket)?;
        self.shell(&format!("cat > {unit}.service"), &proxy)?;
        self.order("systemctl daemon-reload")?;
        self.order(&format!("systemctl start kafka-{port}.socket"))?;
        Ok(())
    }

    /// Runs a shell command in it as root; what it printed.
    pub fn order(&self, text: &str) -> Result<String> {
        self.shell(text, "")
    }
}

impl Channel {
    fn ask(&mut self, order: &Order) -> Result<Answer> {
        ensure!(!self.is_lost, "the guest does not answer any more");
        order.write(&mut self.orders).context("the guest is off")?;
        let end = clock::now() + order.limit + SLACK;
        while clock::now() < end && !interrupt::came() {
            match self.answers.recv_timeout(Duration::from_millis(100)) {
                Ok(answer) => return answer.context("the guest is off"),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the guest is off"),
            }
        }
        self.is_lost = true;
        ensure!(!interrupt::came(), "interrupted");
        bail!(
            "no answer of the guest in {:?}: {}",
            order.limit + SLACK,
            order.text
        )
    }
}

impl Place for Guest {
    fn shell(&self, text: &str, input: &str) -> Result<String> {
        let order = Order {
            text: text.to_owned(),
            input: input.to_owned(),
            limit: LIMIT,
        };
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = channel.ask(&order)?;
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match answer.status {
            0 => Ok(words(&answer.output)),
            TOO_LONG => bail!("ended after {LIMIT:?}: {text}"),
            status => {
                let complaint = words(&answer.complaint);
                bail!(
                    "{text} failed (exit status: {status}): {}",
                    complaint.trim()
                )
            }
        }
    }

    fn is_off(&mut self) -> bool {
        self.qemu.try_wait().is_ok_and(|status| status.is_some())
    }

    fn console(&self) -> &Path {
        &self.console
    }

    fn objects(&self) -> Result<Attached> {
        Attached::parse(&self.order("/run/flowvitals-guest/guest objects")?)
    }

    fn shortage<'a>(&'a self, bytes: u64) -> Result<Option<Box<dyn Shortage + 'a>>> {
        Ok(Some(Box::new(shortage::guest::Full::of(bytes, self)?)))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn arguments(parts: &Parts, console: &Path) -> Vec<String> {
    let disk = |image: &Path, more: &str| {
        let file = image.display().to_string().replace(',', ",,");
        format!("file={file},if=virtio,format=raw,{more}")
    };
    let console = console.display().to_string().replace(',', ",,");
    let mut arguments: Vec<_> = [
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-serial",
        "chardev:console",
        "-chardev",
        "stdio,id=agent,signal=off",
        "-device",
        "virtio-serial-pci",
        "-device",
        "virtserialport,chardev=agent,name=flowvitals",
        "-netdev",
        "user,id=network",
        "-device",
        "virtio-net-pci,netdev=network,romfile=",
        "-append",
        // No udev there, so that no terminal is ever seen: nobody is to wait for it.
        "console=ttyS0 quiet panic=-1 no_timer_check flowvitals.root systemd.wants=flowvitals-guest.service \
         systemd.mask=serial-getty@ttyS0.service",
    ]
    .map(str::to_owned)
    .into();
    for (name, value) in [
        ("-smp", CPUS.to_string()),
        ("-m", MEMORY_MIB.to_string()),
        (
            "-chardev",
            format!("file,id=console,path={console},append=on"),
        ),
        ("-drive", disk(&parts.root, "snapshot=on")),
        ("-drive", disk(&parts.packages, "readonly=on")),
        ("-kernel", parts.kernel.image().display().to_string()),
        ("-initrd", parts.initramfs.display().to_string()),
    ] {
        arguments.extend([name.to_owned(), value]);
    }
    arguments
}
