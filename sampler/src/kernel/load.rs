//! Loads the committed object into this kernel.
//!
//! The object is built ahead (`cargo xtask ebpf build`); here only the offsets of this kernel
//! and the sizes of its maps are put in.

use std::{fs, path::PathBuf};

use aya::{Btf as AyaBtf, Ebpf, EbpfLoader, include_bytes_aligned};
use caps::{CapSet, Capability};
use ebpf_abi::{
    cells::MAX_SHARDS,
    offsets::{RTT_FROM_CALLBACK, RTT_FROM_RACK},
};

use super::btf::{Btf, BtfError};

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

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// First kernel whose RTT callback carries the sample (Linux commit 48e2cd3e3dcf).
const RTT_ARGUMENTS_SINCE: (u32, u32) = (6, 10);

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
    /// The object in this binary does not fit this binary.
    #[error("the built-in kernel side lacks {0}")]
    Object(&'static str),
}

impl KernelError {
    /// The exit status that says it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Privilege(_) => crate::exit::NO_PRIVILEGE,
            Self::Object(_) => crate::exit::BUG,
            _ => crate::exit::UNSUPPORTED,
        }
    }

    /// From aya's errors, whose words hold the verifier's whole log.
    pub(super) fn refused(part: &'static str, error: impl std::error::Error) -> Self {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let text = inner.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            source = inner.source();
        }
        let first = reason.lines().next().unwrap_or_default().to_owned();
        let log = if first.len() == reason.len() {
            String::new()
        } else {
            reason
        };
        Self::Refused {
            part,
            reason: first,
            log,
        }
    }
}

/// How large the kernel side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Slots: (stream, rate epoch) pairs.
    pub slots: u32,
    /// Shards of a slot, a power of two.
    pub shards: u32,
}

/// Epochs of one stream that can count at a time.
pub const EPOCHS_PER_STREAM: u32 = 4;

impl Size {
    /// For this many streams on this many CPUs: three slots a stream, so that most can be
    /// between two rates at once, and never fewer than 64.
    pub fn for_streams(streams: usize, cpus: usize) -> Self {
        let slots = (streams as u32 * 3).clamp(64, 3072);
        let shards = (cpus.max(1) as u32).next_power_of_two().min(MAX_SHARDS);
        Self { slots, shards }
    }

    /// Bytes of all maps, without the storage of sampled flows.
    pub fn map_bytes(&self) -> u64 {
        use ebpf_abi::rules::{EXACT_SLOTS, ExactEntry, List, MAX_LISTS, MAX_STREAMS, PORTS};
        let rules =
            2 * (EXACT_SLOTS * size_of::<ExactEntry>() + PORTS * 8 + MAX_LISTS * size_of::<List>());
        ebpf_abi::cells::cells_bytes(self.slots, self.shards)
            + rules as u64
            + (MAX_STREAMS as u64 + u64::from(self.slots) * 2) * 8
            + 2 * 4096
    }

    /// Bytes of kernel memory at `max_sampled_flows` open flows. Socket storage costs the value
    /// and about as much again for the kernel's own element (Linux `bpf_local_storage_elem`).
    pub fn kernel_bytes(&self, max_sampled_flows: u32) -> u64 {
        const STORAGE_BYTES: u64 = size_of::<ebpf_abi::flow::FlowState>() as u64 + 64;
        self.map_bytes() + u64::from(max_sampled_flows) * STORAGE_BYTES
    }
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

/// Where cgroup v2 is mounted.
pub fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (path, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// Which of [`CAPABILITIES`] this process cannot use.
pub fn missing_capabilities() -> Vec<Capability> {
    CAPABILITIES
        .into_iter()
        .filter(|c| !caps::has_cap(None, CapSet::Effective, *c).unwrap_or(false))
        .collect()
}

/// Gives up every capability, for good.
///
/// # Errors
/// What capset(2) answers.
pub fn drop_capabilities() -> Result<(), caps::errors::CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Effective)?;
    caps::clear(None, CapSet::Permitted)?;
    caps::clear(None, CapSet::Inheritable)
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
        .map_max_entries("CELLS", size.slots * size.shards)
        .load(OBJECT)
        .map_err(|e| KernelError::refused("the maps", e))?;
    let btf = AyaBtf::from_sys_fs().map_err(|e| KernelError::refused("type information", e))?;
    Ok((ebpf, btf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(version("6.18.44-fc"), (6, 18));
        assert_eq!(version("6.1.0-28-cloud-amd64"), (6, 1));
        assert_eq!(version("junk"), (0, 0));
        assert_eq!(rtt_source("6.1.0-28"), RTT_FROM_RACK);
        assert_eq!(rtt_source("6.10.3"), RTT_FROM_CALLBACK);
        assert_eq!(rtt_source("7.3.0"), RTT_FROM_CALLBACK);
    }

    #[test]
    fn memory_stays_in_its_bound() {
        let largest_planned = Size::for_streams(200, 128);
        assert_eq!(
            largest_planned,
            Size {
                slots: 600,
                shards: 8
            }
        );
        assert!(largest_planned.kernel_bytes(65536) <= 64 << 20);
        assert_eq!(
            Size::for_streams(0, 0),
            Size {
                slots: 64,
                shards: 1
            }
        );
    }
}
