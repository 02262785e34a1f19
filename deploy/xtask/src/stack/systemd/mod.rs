//! `cargo xtask systemd-test`: the packages in a Debian machine of their own, whose PID 1 is systemd.
//!
//! In: the .deb and .rpm files that `cargo xtask systemd-test` has just built. Out: a line per check with what it saw. The machine is a
//! container of this kernel (systemd-nspawn) or a guest with a kernel of its own (QEMU): its files are a cached Debian root of which
//! nothing is changed, its network ends in a namespace with a real Kafka in it, to which both services come with certificate and
//! password. Everything ends with this process, also at Ctrl-C.

mod aggregator;
mod cgroup;
mod credentials;
mod files;
mod image;
mod life;
mod limits;
mod machine;
mod report;
mod root;
mod rpm;
mod sampler;
mod service;
mod shortage;
mod site;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::cli::SystemdTest;
use crate::vm::modules::Purpose;
use crate::vm::{initramfs, kernels, series};
use crate::{interrupt, paths};
use files::Files;
use machine::{Machine, Parts};
use report::Report;
use site::Site;

/// Segments of a live stream, fetched all the time; the edge's nginx came with the machine.
const PLAYERS: &str = "head -c 400000 /dev/zero > /var/www/html/segment.ts && systemd-run --quiet --unit=players sh -c \
     'while :; do curl --silent --output /dev/null http://127.0.0.1/segment.ts || sleep 0.1; sleep 0.02; done'";

/// Boots the machine and tries both packages in it.
pub fn run(options: SystemdTest) -> Result<()> {
    interrupt::watch()?;
    let packages = Packages::of(&options)?;
    let root = root::make()?;
    let parts = match options.qemu {
        true => Some(parts(&options.kernel, &root, packages.folder())?),
        false => None,
    };
    println!("starting Kafka in a network namespace, and the machine");
    let site = Site::start()?;
    let machine = match &parts {
        Some(parts) => Machine::guest(parts, &site)?,
        None => Machine::container(&root, &site, packages.folder())?,
    };
    let mut report = Report::default();
    report.passed("machine", &machine.description()?, machine.boot_time());
    machine.shell(PLAYERS)?;
    let mut trial = Trial {
        files: Files::now(&machine)?,
        machine: &machine,
        site: &site,
        packages: &packages,
        report: &mut report,
    };
    // Each needs what is before it; the aggregator merges what the sampler sends.
    if sampler::runs(&mut trial)
        && credentials::rotate(&mut trial)
        && sampler::survives(&mut trial)
        && limits::hold(&mut trial)
        && sampler::is_held_back(&mut trial)
        && aggregator::runs(&mut trial)
    {
        aggregator::goes(&mut trial);
        sampler::goes(&mut trial);
        rpm::comes_and_goes(&mut trial);
    }
    let off = machine.power_off();
    report.end()?;
    off
}

/// What a guest with a kernel of that series is made of.
fn parts(series: &str, root: &Path, packages: &Path) -> Result<Parts> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "guests are made of this machine's programs, and the kernels are for x86-64"
    );
    let mut found = kernels::of(&series::chosen(&[series.to_owned()])?)?;
    let (_, kernel) = found.pop().context("one series, one kernel")?;
    let kernel = kernel?;
    Ok(Parts {
        initramfs: initramfs::make(&[&kernel], Purpose::Debian)?,
        root: image::of_root(root)?,
        packages: image::of_packages(packages, root)?,
        kernel,
    })
}

/// What every check needs.
pub struct Trial<'a> {
    machine: &'a Machine,
    site: &'a Site,
    packages: &'a Packages,
    /// What was there before any package.
    files: Files,
    report: &'a mut Report,
}

/// The packages that are tried.
pub struct Packages {
    folder: PathBuf,
}

impl Packages {
    fn of(options: &SystemdTest) -> Result<Self> {
        let profile = if options.release { "release" } else { "dev" };
        let folder = paths::target().join("package").join(profile);
        let folder = folder
            .canonicalize()
            .with_context(|| format!("no packages in {}", folder.display()))?;
        Ok(Self { folder })
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program's .deb, relative to the folder.
    fn first(&self, program: &str) -> Result<String> {
        self.find("", program, "deb")
    }

    /// Its .deb of a higher version.
    fn newer(&self, program: &str) -> Result<String> {
        self.find("newer/", program, "deb")
    }

    /// Its .rpm below a folder of it, by its path in the machine.
    fn rpm(&self, folder: &str, program: &str) -> Result<String> {
        Ok(machine::package(&self.find(folder, program, "rpm")?))
    }

    fn find(&self, folder: &str, program: &str, kind: &str) -> Result<String> {
        let searched = self.folder.join(folder);
        let found = searched.read_dir();
        for entry in found.with_context(|| searched.display().to_string())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let is_it = Path::new(&name).extension().is_some_and(|e| e == kind);
            if is_it && name.starts_with(program) {
                return Ok(format!("{folder}{name}"));
            }
        }
        bail!("no .{kind} of {program} in {}", searched.display())
    }
}
