//! What this kernel and these privileges allow.
//!
//! Input: a [`Machine`]. Output: one [`Check`] each. Limits: reads files only; whether the program loads is for the
//! trial that the caller makes.

use std::io::Read;

use super::machine::Machine;
use super::report::{Check, Essential};
use crate::kernel::load::NO_MEMLOCK;

/// Nothing older was tried. This one works, in the mode `no_fold` (measured).
const OLDEST: (u32, u32) = (5, 10);
/// From here on all programs should load: storage in iterators and `bpf_sock_from_file` came with it. Not tried below [`TESTED`].
const FOLDS: (u32, u32) = (5, 11);
/// From here on it is tried.
const TESTED: (u32, u32) = (6, 1);
/// From here on everything was measured to work.
const WHOLE: (u32, u32) = (6, 12);
/// Kernel memory that 200 streams may take, bytes.
const MEMORY_BYTES: u64 = 64 << 20;
/// First bytes of a BTF blob, little endian.
const BTF_MAGIC: [u8; 2] = [0x9f, 0xeb];
/// Stands in for CAP_BPF and CAP_PERFMON.
const CAP_SYS_ADMIN: u32 = 21;

/// Release of the kernel.
pub fn release(machine: &Machine) -> Check {
    let name = "kernel";
    let Some((release, version)) = machine.kernel() else {
        return Check::no(
            name,
            "release cannot be read",
            "mount /proc",
            Some(Essential::Kernel),
        );
    };
    if version < OLDEST {
        let todo = "run 5.10, 6.1 or newer; 6.12 or newer has everything";
        return Check::no(name, release, todo, Some(Essential::Kernel));
    }
    if version < FOLDS {
        let found = format!(
            "{release}: open flows are folded by their callbacks alone, and those older than the start are not followed"
        );
        let todo = "6.12 or newer has everything; here kernel_mode is no_fold";
        return Check::warn(name, found, todo);
    }
    if version < TESTED {
        let todo = "5.10 and 6.1 or newer are tested; 6.12 or newer has everything";
        return Check::warn(name, release, todo);
    }
    if version < WHOLE {
        let found = format!(
            "{release}: 6.1 has no RTT argument in its callback and no pick-up of flows older than the start"
        );
        return Check::warn(
            name,
            found,
            "6.12 or newer has everything; here RTT comes from another source, and events say which",
        );
    }
    Check::ok(name, release)
}

/// A cgroup v2 mount to attach to.
pub fn cgroup2(machine: &Machine) -> Check {
    match machine.cgroup2() {
        Some(path) => Check::ok("cgroup v2", path.display().to_string()),
        None => Check::no(
            "cgroup v2",
            "not mounted",
            "mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1",
            Some(Essential::Kernel),
        ),
    }
}

/// Type information of the kernel.
pub fn btf(machine: &Machine) -> Check {
    let path = machine.path("sys/kernel/btf/vmlinux");
    let mut magic = [0; 2];
    match std::fs::File::open(&path).and_then(|mut file| file.read_exact(&mut magic)) {
        Ok(()) if magic == BTF_MAGIC => Check::ok("BTF", "/sys/kernel/btf/vmlinux"),
        Ok(()) => Check::no(
            "BTF",
            "/sys/kernel/btf/vmlinux is not BTF of this byte order",
            "run a little-endian kernel",
            Some(Essential::Kernel),
        ),
        Err(error) => Check::no(
            "BTF",
            format!("/sys/kernel/btf/vmlinux: {error}"),
            "run a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian's are)",
            Some(Essential::Kernel),
        ),
    }
}

/// The three capabilities that loading and attaching take, each by its name.
pub fn capabilities(machine: &Machine) -> Vec<Check> {
    let needed: [(&str, u32, &str); 3] = [
        ("CAP_BPF", 39, "load programs and make maps"),
        ("CAP_PERFMON", 38, "read BTF and run iterators"),
        ("CAP_NET_ADMIN", 12, "attach sock_ops to a cgroup"),
    ];
    let effective = machine.effective_capabilities().unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 == 1;
    needed
        .into_iter()
        .map(|(name, bit, purpose)| {
            if has(bit) {
                Check::ok(name, format!("effective: {purpose}"))
            } else if bit >= 38 && has(CAP_SYS_ADMIN) {
                Check::ok(name, format!("by CAP_SYS_ADMIN: {purpose}"))
            } else {
                let todo = format!(
                    "run as root, or in the unit: AmbientCapabilities={name} (to {purpose})"
                );
                Check::no(name, "missing", todo, Some(Essential::Privilege))
            }
        })
        .collect()
}

/// Whether BPF is closed to the unprivileged.
pub fn unprivileged_bpf(machine: &Machine) -> Check {
    let name = "unprivileged BPF";
    match machine
        .text("proc/sys/kernel/unprivileged_bpf_disabled")
        .as_deref()
    {
        Some("0") => Check::warn(
            name,
            "allowed",
            "sysctl -w kernel.unprivileged_bpf_disabled=2 (not needed by the sampler)",
        ),
        Some(value) => Check::ok(name, format!("disabled ({value})")),
        None => Check::no(
            name,
            "no such switch: a kernel without the bpf system call",
            "run a kernel built with CONFIG_BPF_SYSCALL=y",
            Some(Essential::Kernel),
        ),
    }
}

/// Lockdown mode.
pub fn lockdown(machine: &Machine) -> Check {
    let text = machine.text("sys/kernel/security/lockdown");
    let mode = text
        .as_deref()
        .and_then(|text| text.split_once('[')?.1.split_once(']'))
        .map(|(mode, _)| mode);
    match mode {
        Some("confidentiality") => Check::warn(
            "lockdown",
            "confidentiality: BPF may be kept from reading kernel memory",
            "boot with lockdown=integrity if the load trial below fails",
        ),
        Some(mode) => Check::ok("lockdown", mode),
        None => Check::ok(
            "lockdown",
            "not to be seen (no lockdown in this kernel, or securityfs is not mounted)",
        ),
    }
}

/// Whether programs are compiled.
pub fn jit(machine: &Machine) -> Check {
    match machine.text("proc/sys/net/core/bpf_jit_enable").as_deref() {
        Some("0") => Check::warn(
            "BPF JIT",
            "off: programs are interpreted, at several times the cost",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(value) => Check::ok("BPF JIT", format!("on ({value})")),
        None => Check::ok(
            "BPF JIT",
            "switch not to be seen from this network namespace",
        ),
    }
}

/// Whether the kernel measures the programs.
pub fn bpf_stats(machine: &Machine) -> Check {
    match machine.text("proc/sys/kernel/bpf_stats_enabled").as_deref() {
        Some("1") => Check::ok(
            "BPF cost",
            "measured; every program run is a little dearer while kernel.bpf_stats_enabled=1",
        ),
        _ => Check::ok(
            "BPF cost",
            "not measured; sysctl -w kernel.bpf_stats_enabled=1 shows it in /metrics, 0 when done",
        ),
    }
}

/// The memlock limit, which counts on old kernels; `limit_bytes` is the soft limit, `None` for unlimited.
pub fn memlock(machine: &Machine, limit_bytes: Option<u64>) -> Check {
    let old = machine
        .kernel()
        .is_some_and(|(_, version)| version < NO_MEMLOCK);
    let limit = limit_bytes.map_or("unlimited".to_owned(), |bytes| format!("{bytes} bytes"));
    if !old {
        return Check::ok(
            "memlock",
            format!("{limit}; this kernel does not hold maps against it"),
        );
    }
    if limit_bytes.is_none_or(|bytes| bytes >= MEMORY_BYTES) {
        return Check::ok("memlock", limit);
    }
    Check::no(
        "memlock",
        limit,
        "LimitMEMLOCK=512M in the unit, or ulimit -l unlimited",
        Some(Essential::Privilege),
    )
}

/// Congestion control that new sockets get.
pub fn congestion_control(machine: &Machine) -> Check {
    match machine.text("proc/sys/net/ipv4/tcp_congestion_control") {
        Some(value) => Check::ok(
            "congestion control",
            format!("{value} by default; a server may choose another per socket"),
        ),
        None => Check::warn("congestion control", "cannot be read", "mount /proc"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    fn machine(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Machine) {
        let root = tempfile::tempdir().expect("directory");
        for (file, bytes) in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("directories");
            std::fs::write(path, bytes).expect("write");
        }
        let machine = Machine::under(root.path());
        (root, machine)
    }

    #[track_caller]
    fn check(
        files: &[(&str, &[u8])],
        look: impl Fn(&Machine) -> Check,
        expected: (Level, Option<Essential>, &str),
    ) {
        let (_root, machine) = machine(files);
        let got = look(&machine);
        assert_eq!(
            (got.level, got.essential),
            (expected.0, expected.1),
            "{got:?}"
        );
        assert!(got.found.contains(expected.2), "{got:?}");
        assert_eq!(
            got.level != Level::Ok,
            got.todo.is_some(),
            "every no has something to do: {got:?}"
        );
    }

    #[test]
    fn judges_kernels() {
        let file = "proc/sys/kernel/osrelease";
        let kernel = Some(Essential::Kernel);
        check(
            &[(file, b"4.19.0-27-amd64\n")],
            release,
            (Level::No, kernel, "4.19"),
        );
        check(
            &[(file, b"5.10.0-46-cloud-amd64\n")],
            release,
            (Level::Warn, None, "folded by their callbacks alone"),
        );
        check(
            &[(file, b"5.15.0-91-generic\n")],
            release,
            (Level::Warn, None, "5.15.0"),
        );
        check(
            &[(file, b"6.1.0-40-cloud-amd64\n")],
            release,
            (Level::Warn, None, "6.1.0"),
        );
        check(&[(file, b"6.12.3\n")], release, (Level::Ok, None, "6.12.3"));
        check(
            &[(file, b"7.3.1+deb\n")],
            release,
            (Level::Ok, None, "7.3.1"),
        );
        check(&[], release, (Level::No, kernel, "cannot be read"));
    }

    #[test]
    fn finds_the_cgroup_mount() {
        let mounts = "proc/self/mounts";
        let hybrid = b"tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/uni\\040fied cgroup2 rw 0 0\n";
        check(
            &[(mounts, hybrid)],
            cgroup2,
            (Level::Ok, None, "/sys/fs/cgroup/uni fied"),
        );
        check(
            &[(mounts, b"cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n")],
            cgroup2,
            (Level::No, Some(Essential::Kernel), "not mounted"),
        );
    }

    #[test]
    fn reads_the_magic_of_btf() {
        let file = "sys/kernel/btf/vmlinux";
        check(
            &[(file, &[0x9f, 0xeb, 1, 0])],
            btf,
            (Level::Ok, None, "vmlinux"),
        );
        check(
            &[(file, &[0xeb, 0x9f, 1, 0])],
            btf,
            (Level::No, Some(Essential::Kernel), "byte order"),
        );
        check(&[], btf, (Level::No, Some(Essential::Kernel), "vmlinux"));
    }

    #[test]
    fn names_each_missing_capability() {
        let missing = |bits: u64| {
            let (_root, machine) = machine(&[(
                "proc/self/status",
                format!("Name:\tx\nCapEff:\t{bits:016x}\n").as_bytes(),
            )]);
            let lacking = capabilities(&machine)
                .into_iter()
                .filter(|check| check.level == Level::No);
            lacking.map(|check| check.name).collect::<Vec<_>>()
        };
        assert_eq!(missing(0), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]);
        assert_eq!(missing(1 << 39 | 1 << 12), ["CAP_PERFMON"]);
        assert_eq!(missing(1 << 21 | 1 << 12), [""; 0]);
        assert_eq!(missing(1 << 21), ["CAP_NET_ADMIN"]);
    }

    #[test]
    fn judges_switches() {
        let confidential = b"none integrity [confidentiality]\n";
        check(
            &[("sys/kernel/security/lockdown", confidential)],
            lockdown,
            (Level::Warn, None, "confidentiality"),
        );
        check(
            &[(
                "sys/kernel/security/lockdown",
                b"none [integrity] confidentiality",
            )],
            lockdown,
            (Level::Ok, None, "integrity"),
        );
        check(
            &[("proc/sys/net/core/bpf_jit_enable", b"0\n")],
            jit,
            (Level::Warn, None, "interpreted"),
        );
        check(
            &[("proc/sys/kernel/unprivileged_bpf_disabled", b"0\n")],
            unprivileged_bpf,
            (Level::Warn, None, "allowed"),
        );
        check(
            &[],
            unprivileged_bpf,
            (Level::No, Some(Essential::Kernel), "no such switch"),
        );
        check(
            &[("proc/sys/kernel/bpf_stats_enabled", b"1\n")],
            bpf_stats,
            (Level::Ok, None, "measured"),
        );
    }

    #[test]
    fn memlock_counts_on_old_kernels_only() {
        let old: &[(&str, &[u8])] = &[("proc/sys/kernel/osrelease", b"5.10.0-30\n")];
        let new: &[(&str, &[u8])] = &[("proc/sys/kernel/osrelease", b"6.1.0\n")];
        check(
            old,
            |machine| memlock(machine, Some(65_536)),
            (Level::No, Some(Essential::Privilege), "65536"),
        );
        check(
            old,
            |machine| memlock(machine, None),
            (Level::Ok, None, "unlimited"),
        );
        check(
            new,
            |machine| memlock(machine, Some(65_536)),
            (Level::Ok, None, "65536"),
        );
    }
}
