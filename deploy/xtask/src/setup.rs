//! Installs the system packages that are missing, and only those.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use crate::process;

/// How to see that something is there.
enum Sign {
    /// A program in PATH or one of the system's folders.
    Program(&'static str),
    /// A header or library: the package itself.
    Package,
}

/// What is needed: the sign, the Debian package, and what for.
const NEEDED: [(Sign, &str, &str); 20] = [
    (
        Sign::Program("cc"),
        "build-essential",
        "linking, and Kafka's client",
    ),
    (
        Sign::Program("pkg-config"),
        "pkg-config",
        "building Kafka's client",
    ),
    (Sign::Package, "libssl-dev", "Kafka's client"),
    (Sign::Package, "zlib1g-dev", "Kafka's client"),
    (
        Sign::Program("ip"),
        "iproute2",
        "the namespaces of tests and demo",
    ),
    (
        Sign::Program("iptables-legacy-restore"),
        "iptables",
        "their loss",
    ),
    (
        Sign::Program("mkfs.ext4"),
        "e2fsprogs",
        "a disk that goes bad in a test",
    ),
    (Sign::Program("nginx"), "nginx-light", "the demo's edge"),
    (
        Sign::Program("java"),
        "default-jre-headless",
        "Kafka and Cassandra",
    ),
    (Sign::Program("mvn"), "maven", "their jars"),
    (
        Sign::Program("openssl"),
        "openssl",
        "certificates of test clusters",
    ),
    (
        Sign::Package,
        "python3-venv",
        "trying the HTTP interface with schemathesis",
    ),
    (
        Sign::Program("systemd-analyze"),
        "systemd",
        "checking the unit file",
    ),
    (
        Sign::Program("systemd-nspawn"),
        "systemd-container",
        "the machine that the packages are tried in",
    ),
    (
        Sign::Program("mmdebstrap"),
        "mmdebstrap",
        "that machine's files",
    ),
    (
        Sign::Program("lintian"),
        "lintian",
        "checking the Debian packages",
    ),
    (Sign::Program("rpm"), "rpm", "looking into the others"),
    (
        Sign::Program("qemu-system-x86_64"),
        "qemu-system-x86",
        "guests with other kernels",
    ),
    (Sign::Program("cpio"), "cpio", "their files"),
    (
        Sign::Program("prometheus-alertmanager"),
        "prometheus-alertmanager",
        "whom the aggregator tells",
    ),
];

/// Debian starts these when it installs them, on ports that others may want; tests and demo start their own.
const QUIET: [(&str, &str); 2] = [
    ("nginx-light", "nginx"),
    ("prometheus-alertmanager", "prometheus-alertmanager"),
];

/// Says what is missing, installs it, and does nothing where nothing is.
pub fn run() -> Result<()> {
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(sign, package, _)| !is_there(sign, package))
        .map(|(_, package, purpose)| (*package, *purpose))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing system packages:");
    for (package, purpose) in &missing {
        println!("  {package:<22} {purpose}");
    }
    if !program_exists("apt-get") {
        bail!("this system has no apt-get: install what corresponds to them, then try again");
    }
    let packages: Vec<_> = missing.iter().map(|(package, _)| *package).collect();
    let install = || {
        let mut apt = as_root("apt-get");
        apt.args(["install", "--yes", "--no-install-recommends"])
            .args(&packages);
        process::output(&mut apt)
    };
    // Lists that are there and fresh enough need no update.
    if install().is_err() {
        process::output(as_root("apt-get").arg("update")).context("cannot update the lists")?;
        install().context("cannot install the packages")?;
    }
    let installed = QUIET
        .iter()
        .filter(|(package, _)| packages.contains(package));
    installed.for_each(|(_, service)| quiet(service));
    Ok(())
}

fn quiet(service: &str) {
    if Path::new("/run/systemd/system").exists() {
        println!("stopping the {service} service that came with the package");
        // It may not have been started; nothing of ours depends on it.
        let _ = process::output(as_root("systemctl").args(["disable", "--now", service]));
    }
}

fn is_there(sign: &Sign, package: &str) -> bool {
    match sign {
        Sign::Program(name) => program_exists(name),
        Sign::Package => {
            let mut query = Command::new("dpkg-query");
            query.args(["--show", "--showformat=${db:Status-Status}", package]);
            process::output(&mut query).is_ok_and(|status| status == "installed")
        }
    }
}

/// Also looks where root's programs are, which a user's PATH may lack.
pub fn program_exists(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(name).is_file())
}

fn as_root(program: &str) -> Command {
    let mut command = if Uid::effective().is_root() {
        Command::new("env")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("env");
        sudo
    };
    // No question in the middle of an installation.
    command.args(["DEBIAN_FRONTEND=noninteractive", program]);
    command
}
