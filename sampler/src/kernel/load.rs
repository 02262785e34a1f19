//! Loads the committed object into this kernel.
//!
//! The object is built ahead (`cargo xtask ebpf build`); here only the offsets of this kernel
//! and the sizes of its maps are put in.

use std::fs;

use aya::{Btf as AyaBtf, Ebpf, EbpfLoader, include_bytes_aligned};
use caps::{CapSet, Capability, CapsHashSet};
use ebpf_abi::offsets::{RTT_FROM_CALLBACK, RTT_FROM_RACK};
use nix::sys::resource::{Resource, getrlimit};

use super::{
    btf::{Btf, BtfError},
    memory::Size,
};

/// The kernel side, as it was built and committed.
pub static OBJECT: &[u8] = include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../ebpf/prebuilt/probe.bpf.o"
));

/// Capabilities that the attach needs; reading needs none.
pub const CAPABILITIES: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_ADMIN,
];

/// Which kernels it is tried on (`cargo xtask vm-test`).
pub const TESTED: &str = "tested are 5.10 and all from 6.1 on";

/// What the mode `no_fold` is without, for a person.
pub const NO_FOLD: &str = "open flows are folded by their own callbacks alone, and once more after the detach at a stop; connections older \
     than the start are counted in this network namespace and not followed";

/// What aya puts before the verifier's log.
const VERIFIER: &str = ". Verifier output: ";

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// First kernel whose RTT callback carries the sample (Linux commit 48e2cd3e3dcf).
const RTT_ARGUMENTS_SINCE: (u32, u32) = (6, 10);

/// First kernel that is known to let an iterator ask for callbacks of a socket; 6.1 answers EINVAL (both measured).
const PICK_UP_SINCE: (u32, u32) = (6, 12);

/// From here on BPF memory is charged to the cgroup, not against the memlock limit.
pub const NO_MEMLOCK: (u32, u32) = (5, 11);

/// Why the kernel side does not run.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process lacks these capabilities.
    #[error("missing {}: run as root, or give the service exactly CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Privilege(Vec<Capability>),
    /// The kernel has no type information.
    #[error(
        "this kernel has no type information ({VMLINUX}: {0}): it needs CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf(std::io::Error),
    /// The kernel is laid out in a way that the program cannot use.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// There is no cgroup v2 to attach to.
    #[error(
        "no cgroup v2 file system is mounted (none in /proc/mounts): mount one, for example `mount -t cgroup2 none /sys/fs/cgroup`"
    )]
    NoCgroup,
    /// The kernel refused a part.
    #[error("the kernel refused {part}: {reason}")]
    Refused {
        /// Which program, map or link.
        part: &'static str,
        /// Its words, shortened.
        reason: String,
        /// What it said in full; empty if that was all.
        log: String,
    },
    /// The maps or programs are more than may be locked in memory.
    #[error(
        "locked memory is limited to {0} bytes, and kernels before 5.11 hold maps and programs against that: LimitMEMLOCK=512M in the unit, or ulimit -l unlimited"
    )]
    Memlock(u64),
    /// A link that was kept is attached to another cgroup, or to none.
    #[error("its program is not attached at the root of the cgroups")]
    Elsewhere,
    /// A map is not of the size that this binary reads.
    #[error("the map {map} has {found}, not {expected}")]
    Shape {
        /// Its name.
        map: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// The object in this binary does not fit this binary.
    #[error("the built-in kernel side lacks {0}")]
    Object(&'static str),
}

impl KernelError {
    /// The exit status that says it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Privilege(_) | Self::Memlock(_) => service::exit::NO_PRIVILEGE,
            Self::Object(_) | Self::Shape { .. } | Self::Elsewhere => service::exit::BUG,
            _ => service::exit::UNSUPPORTED,
        }
    }

    /// From aya's errors, whose words hold the verifier's whole log: a sentence is made of what it concludes.
    pub(super) fn refused(part: &'static str, error: impl std::error::Error + 'static) -> Self {
        let mut reason = error.to_string();
        let mut source = error.source();
        let mut denied = is_denied(&error);
        while let Some(inner) = source {
            denied |= is_denied(inner);
            let text = inner.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            source = inner.source();
        }
        if let Some(bytes) = locked_bytes().filter(|_| denied) {
            return Self::Memlock(bytes);
        }
        let (answer, verdict) = shortened(&reason);
        let short = match verdict {
            Some(verdict) => format!("{verdict} (Linux {}; {TESTED})", kernel_release()),
            None => answer.to_owned(),
        };
        let log = if verdict.is_none() && answer.len() == reason.len() {
            String::new()
        } else {
            reason
        };
        Self::Refused {
            part,
            reason: short,
            log,
        }
    }
}

/// The first line of an error's words without the verifier's log, and what that log concludes.
fn shortened(words: &str) -> (&str, Option<&str>) {
    let (answer, log) = words.split_once(VERIFIER).unwrap_or((words, ""));
    // Its last lines are about its own work.
    let own = ["verification time ", "stack depth ", "processed "];
    let verdict = log.lines().rev().map(str::trim).find(|line| {
        let about_itself = own.iter().any(|word| line.starts_with(word));
        !line.is_empty() && !about_itself
    });
    (answer.lines().next().unwrap_or_default(), verdict)
}

fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.raw_os_error() == Some(libc::EPERM))
}

/// The limit of locked memory, where there is one and the kernel holds maps and programs against it.
fn locked_bytes() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    let counts = version(&kernel_release()) < NO_MEMLOCK;
    (counts && soft != libc::RLIM_INFINITY).then_some(soft)
}

/// The kernel's release as uname(2) says it.
pub fn kernel_release() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Major and minor number of a release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Where RTT samples come from on a kernel of this release.
pub fn rtt_source(release: &str) -> u32 {
    if version(release) >= RTT_ARGUMENTS_SINCE {
        RTT_FROM_CALLBACK
    } else {
        RTT_FROM_RACK
    }
}

/// What a kernel of this release allows, as heartbeats say it: `full`; `no_pickup` where connections that were open before the attach
/// are not followed; `no_fold` where, `lesser`, open flows are not folded beside their callbacks either.
pub fn mode(release: &str, lesser: bool) -> &'static str {
    match (lesser, version(release) >= PICK_UP_SINCE) {
        (true, _) => "no_fold",
        (false, true) => "full",
        (false, false) => "no_pickup",
    }
}

/// Which of [`CAPABILITIES`] this process cannot use.
pub fn missing_capabilities() -> Vec<Capability> {
    CAPABILITIES
        .into_iter()
        .filter(|c| !caps::has_cap(None, CapSet::Effective, *c).unwrap_or(false))
        .collect()
}

/// Gives up every capability, for good; but CAP_BPF where it cannot be read without it, as `can_read` finds out: before Linux 5.19
/// (commit c8644cd0efe7) `kernel.unprivileged_bpf_disabled` closes all of bpf(2), iterators too. Whether that one is kept.
///
/// # Errors
/// What capset(2) answers.
pub fn drop_capabilities(can_read: impl FnOnce() -> bool) -> Result<bool, caps::errors::CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::clear(None, CapSet::Effective)?;
    let kept: CapsHashSet = match can_read() {
        true => CapsHashSet::new(),
        false => [Capability::CAP_BPF].into(),
    };
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::set(None, CapSet::Effective, &kept)?;
    Ok(!kept.is_empty())
}

/// Puts the object into the kernel: maps made, nothing attached yet.
///
/// # Errors
/// See [`KernelError`].
pub fn load(size: Size) -> Result<(Ebpf, AyaBtf), KernelError> {
    let missing = missing_capabilities();
    if !missing.is_empty() {
        return Err(KernelError::Privilege(missing));
    }
    let bytes = fs::read(VMLINUX).map_err(KernelError::NoBtf)?;
    let offsets = Btf::parse(&bytes)?.offsets(rtt_source(&kernel_release()))?;
    let mask = size.shards - 1;
    let ebpf = EbpfLoader::new()
        .override_global("OFFSETS", offsets.as_slice(), true)
        .override_global("SHARD_MASK", &mask, true)
        .map_max_entries("SLOTS", size.slots)
        .map_max_entries("CELLS", size.cells())
        .load(OBJECT)
        .map_err(|e| KernelError::refused("the maps", e))?;
    let btf = AyaBtf::from_sys_fs().map_err(|e| KernelError::refused("type information", e))?;
    Ok((ebpf, btf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_what_the_verifier_concludes() {
        let refused = "the BPF_PROG_LOAD syscall returned Invalid argument (os error 22)";
        for (log, expected) in [
            (
                "Unrecognized arg#0 type PTR\n0: (79) r1 = *(u64 *)(r1 +8)\n13: (85) call bpf_sk_storage_get#107\n\
                 unknown func bpf_sk_storage_get#107\nverification time 1096 usec\nstack depth 0\n\
                 processed 13 insns (limit 1000000) max_states_per_insn 0\n\n",
                Some("unknown func bpf_sk_storage_get#107"),
            ),
            ("processed 0 insns\n", None),
            ("", None),
        ] {
            let words = format!("{refused}{VERIFIER}{log}");
            assert_eq!(shortened(&words), (refused, expected), "{log}");
        }
        let plain = "Operation not permitted (os error 1)";
        assert_eq!(shortened(plain), (plain, None));
        assert_eq!(shortened("first\nsecond"), ("first", None));
    }

    #[test]
    fn releases() {
        assert_eq!(version("6.18.44-fc"), (6, 18));
        assert_eq!(version("6.1.0-28-cloud-amd64"), (6, 1));
        assert_eq!(version("junk"), (0, 0));
        assert_eq!(rtt_source("6.1.0-28"), RTT_FROM_RACK);
        assert_eq!(rtt_source("6.10.3"), RTT_FROM_CALLBACK);
        assert_eq!(rtt_source("7.3.0"), RTT_FROM_CALLBACK);
        assert_eq!(mode("5.10.0-46", true), "no_fold");
        assert_eq!(mode("6.1.0-28", false), "no_pickup");
        assert_eq!(mode("6.12.3", false), "full");
    }
}
