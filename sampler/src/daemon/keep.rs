//! The kernel side outlives the daemon: the service manager keeps its descriptors while the service restarts.
//!
//! Input: descriptors that the manager gives back, and the last reference of the spool. Output: a kernel side that counts on, with the
//! books of the life before; or why there is none, so that the cut can be reported. Whatever does not fit is detached and given up.
//!
//! systemd's descriptor store rather than pins in bpffs: the unit's `ProtectKernelTunables=` makes bpffs read-only, so nothing can be
//! pinned, and a pin would outlive a stop of the service, which closes the store.
//!
//! Kept only where there is a spool: its reference alone says how much of what the cells hold has been said.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
    sync::LazyLock,
};

use prost::Message;
use service::fd_store;
use sha2::{Digest, Sha256};

use crate::{
    kernel::{
        load,
        memory::Size,
        parts::{Parts, link},
        probe::Probe,
        sys,
    },
    spool::{Reference, boot_id},
    stage::{
        Stage,
        state::{Attachment, StageState},
    },
};

/// First part of every name.
const PREFIX: &str = "flowvitals";

/// First hexadecimal digits of our object's SHA-256.
static OBJECT: LazyLock<String> = LazyLock::new(|| {
    let hash = Sha256::digest(load::OBJECT);
    hash[..4].iter().map(|byte| format!("{byte:02x}")).collect()
});

/// What a descriptor's name says: `flowvitals.<version of the contract>.<object>.<part>`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    abi_version: u32,
    /// As [`OBJECT`], of the build that it is of.
    object: String,
    part: String,
}

impl Name {
    fn of(part: &str) -> Self {
        Self {
            abi_version: ebpf_abi::ABI_VERSION,
            object: OBJECT.clone(),
            part: part.to_owned(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(4, '.');
        let ours = words.next()? == PREFIX;
        let name = Self {
            abi_version: words.next()?.parse().ok()?,
            object: words.next()?.to_owned(),
            part: words.next()?.to_owned(),
        };
        ours.then_some(name)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            abi_version,
            object,
            part,
        } = self;
        write!(f, "{PREFIX}.{abi_version}.{object}.{part}")
    }
}

/// What the service manager kept of an earlier life.
#[derive(Debug, Default)]
pub(super) struct Kept(Vec<(Name, OwnedFd)>);

/// What a new life needs of an earlier kernel side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Room for all streams.
    pub(super) size: Size,
    /// Id of the sampling key.
    pub(super) key_id: u32,
    /// Where it must be attached.
    pub(super) cgroup_id: Option<u64>,
}

/// A kernel side with its window stage.
pub(super) struct KernelSide {
    pub(super) probe: Probe,
    pub(super) stage: Stage,
    pub(super) attachment: Attachment,
}

impl Kept {
    /// Takes what there is. What is not ours is closed, and left to the manager.
    pub(super) fn take() -> Self {
        let passed = fd_store::take().unwrap_or_else(|error| {
            tracing::warn!(%error, "what the service manager kept cannot be taken");
            Vec::new()
        });
        let ours = passed
            .into_iter()
            .filter_map(|(name, fd)| Some((Name::parse(&name)?, fd)));
        Self(ours.collect())
    }

    /// Names of what there is.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.0.iter().map(|(name, _)| name.to_string()).collect()
    }

    /// The kernel side of the life before; `go_on` makes its window stage from its books, or says that they do not fit it.
    ///
    /// # Errors
    /// Why it cannot go on, in words; it is detached and given up then.
    pub(super) fn resume(
        self,
        newest: Option<&Reference>,
        wanted: Wanted,
        go_on: impl FnOnce(&Probe, &StageState) -> Option<Stage>,
    ) -> Result<KernelSide, String> {
        let names = self.names();
        // A copy, so that it can be detached even where it does not fit.
        let attached = self.0.iter().find(|(name, _)| name.part == link::CGROUP);
        let attached = attached.and_then(|(_, fd)| fd.try_clone().ok());
        let resumed = self.try_resume(newest, wanted, go_on);
        if resumed.is_err() {
            give_up(&names, attached);
        }
        resumed
    }

    fn try_resume(
        self,
        newest: Option<&Reference>,
        wanted: Wanted,
        go_on: impl FnOnce(&Probe, &StageState) -> Option<Stage>,
    ) -> Result<KernelSide, String> {
        let ours = Name::of("");
        let Some((first, _)) = self.0.first() else {
            return Err("the service manager kept no kernel side".to_owned());
        };
        let first = first.clone();
        if first.abi_version != ours.abi_version {
            return Err(format!(
                "the kernel side that was kept is of version {}, this daemon reads version {}",
                first.abi_version, ours.abi_version
            ));
        }
        let state = books(newest, &boot_id())?;
        check(&state, wanted.key_id)?;
        let mut parts = Parts::default();
        for (name, fd) in self.0 {
            if (name.abi_version, &name.object) != (first.abi_version, &first.object) {
                return Err("parts of two kernel sides were kept".to_owned());
            }
            parts.add(&name.part, fd);
        }
        if let Some(missing) = parts.missing() {
            return Err(format!(
                "only a part of the kernel side was kept: {missing} is missing"
            ));
        }
        let probe = Probe::take_over(parts, wanted.cgroup_id)
            .map_err(|error| format!("the kernel side that was kept cannot be used: {error}"))?;
        let known = state.attachment.as_ref().map(|a| a.cells_id);
        if known != Some(probe.cells_id()) {
            return Err("what was kept is not the kernel side of the last window".to_owned());
        }
        let (size, wanted) = (probe.size(), wanted.size);
        if size.slots < wanted.slots || size.shards != wanted.shards {
            return Err(format!(
                "the kernel side that was kept has {} slots and {} shards, {} and {} are needed",
                size.slots, size.shards, wanted.slots, wanted.shards
            ));
        }
        if first.object != ours.object {
            tracing::warn!(
                kept = first.object,
                ours = ours.object,
                "programs of another build go on; stop and start the service to load this one's"
            );
        }
        let stage = go_on(&probe, &state);
        let kernel_side = stage
            .zip(state.attachment)
            .map(|(stage, attachment)| KernelSide {
                probe,
                stage,
                attachment,
            });
        kernel_side.ok_or_else(|| {
            "the books of the last window do not fit the kernel side that was kept".to_owned()
        })
    }
}

/// The books of the last reference, if they are of this boot.
fn books(newest: Option<&Reference>, boot_id: &[u8; 16]) -> Result<StageState, String> {
    let newest = newest.ok_or("the spool holds no reference")?;
    if newest.boot_id != *boot_id {
        return Err("the last window is of another boot".to_owned());
    }
    StageState::decode(newest.state.as_slice())
        .map_err(|error| format!("the spool's reference cannot be read: {error}"))
}

/// Whether a life with this key may go on with these books.
fn check(state: &StageState, key_id: u32) -> Result<(), String> {
    if state.abi_version != ebpf_abi::ABI_VERSION {
        return Err(format!(
            "the books of the life before are of version {}, this daemon reads version {}",
            state.abi_version,
            ebpf_abi::ABI_VERSION
        ));
    }
    if state.key_id != key_id {
        return Err("the sampling key is another one".to_owned());
    }
    Ok(())
}

/// Detaches an old kernel side at once, and has the manager close it.
pub(super) fn give_up(names: &BTreeSet<String>, attached: Option<impl AsFd>) {
    // A kernel that cannot (before 5.9) detaches when the manager closes the last descriptor.
    if let Some(Err(error)) = attached.map(sys::detach) {
        tracing::debug!(%error, "the old link is left to the service manager");
    }
    for name in names {
        if let Err(error) = fd_store::remove(name) {
            tracing::warn!(%error, "the service manager cannot be told to close the old kernel side");
            return;
        }
    }
}

/// Gives the service manager everything that a next life needs.
pub(super) fn hand_over(probe: &Probe) {
    if !fd_store::is_there() {
        return;
    }
    for (part, fd) in probe.parts().iter() {
        if let Err(error) = fd_store::store(&Name::of(part).to_string(), fd) {
            tracing::warn!(%error, "the service manager does not keep the kernel side: a restart will not count on");
            return;
        }
    }
}

/// Names under which [`hand_over`] gives it away.
pub(super) fn names_of(probe: &Probe) -> BTreeSet<String> {
    let parts = probe.parts().iter();
    parts.map(|(part, _)| Name::of(part).to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(state: &StageState) -> Reference {
        Reference {
            boot_id: [7; 16],
            state: state.encode_to_vec(),
            ..Reference::default()
        }
    }

    #[test]
    fn names_say_what_they_are() {
        let name = Name::of("CELLS");
        assert_eq!(Name::parse(&name.to_string()), Some(name));
        for foreign in ["", "stored", "http.1.ab.CELLS", "flowvitals.x.ab.CELLS"] {
            assert_eq!(Name::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn books_of_another_boot_layout_or_key_are_not_read() {
        let state = StageState {
            abi_version: ebpf_abi::ABI_VERSION,
            key_id: 9,
            attachment: Some(Attachment::default()),
            ..StageState::default()
        };
        let known = reference(&state);
        let read = books(Some(&known), &[7; 16]).expect("books");
        assert_eq!((&read, check(&read, 9)), (&state, Ok(())));
        assert!(books(None, &[7; 16]).is_err());
        assert!(books(Some(&known), &[8; 16]).is_err());
        let junk = Reference {
            state: vec![0xff],
            ..known
        };
        assert!(books(Some(&junk), &[7; 16]).is_err());
        assert!(check(&state, 10).is_err());
        let older = StageState {
            abi_version: ebpf_abi::ABI_VERSION - 1,
            ..state
        };
        assert!(check(&older, 9).is_err());
    }
}
