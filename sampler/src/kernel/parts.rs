//! Programs, maps and links of the kernel side: descriptors by name.
//!
//! They are all that a kernel side is to user space. Whoever holds them holds it, so they can be handed to a service manager and
//! come back to the next daemon. Limits: as many as [`names`].

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::load::KernelError;

/// Arrays, by their names in the object.
pub mod map {
    /// What user space orders.
    pub const CONTROL: &str = "CONTROL";
    /// What the kernel side says of itself.
    pub const REPORT: &str = "REPORT";
    /// Rules by exact address and port.
    pub const EXACT: &str = "EXACT";
    /// Rules by port.
    pub const PORT_TARGETS: &str = "PORT_TARGETS";
    /// Rules with conditions.
    pub const LISTS: &str = "LISTS";
    /// Where new flows of a stream go.
    pub const STREAMS: &str = "STREAMS";
    /// Limits of the slots.
    pub const SLOTS: &str = "SLOTS";
    /// What was counted.
    pub const CELLS: &str = "CELLS";
}

/// Programs, by their names in the object.
pub mod program {
    /// The sock_ops program.
    pub const PICK_AND_FOLD: &str = "flowvitals";
    /// Walks the socket storage.
    pub const WALK: &str = "walk";
    /// Folds open flows.
    pub const FOLD_OPEN: &str = "fold_open";
    /// Takes in connections that were open before the attach.
    pub const PICK_UP: &str = "pick_up";
    /// Counts those that could not be taken in.
    pub const UNREACHED: &str = "unreached";
}

/// Links.
pub mod link {
    /// Of [`super::program::PICK_AND_FOLD`], to the cgroup.
    pub const CGROUP: &str = "link-cgroup";
    /// Of [`super::program::WALK`].
    pub const WALK: &str = "link-walk";
    /// Of [`super::program::FOLD_OPEN`].
    pub const FOLD_OPEN: &str = "link-fold_open";
    /// Of [`super::program::PICK_UP`].
    pub const PICK_UP: &str = "link-pick_up";
    /// Of [`super::program::UNREACHED`].
    pub const UNREACHED: &str = "link-unreached";
}

/// Arrays.
pub const MAPS: [&str; 8] = [
    map::CONTROL,
    map::REPORT,
    map::EXACT,
    map::PORT_TARGETS,
    map::LISTS,
    map::STREAMS,
    map::SLOTS,
    map::CELLS,
];

/// Programs.
pub const PROGRAMS: [&str; 5] = [
    program::PICK_AND_FOLD,
    program::WALK,
    program::FOLD_OPEN,
    program::PICK_UP,
    program::UNREACHED,
];

/// Links.
pub const LINKS: [&str; 5] = [
    link::CGROUP,
    link::WALK,
    link::FOLD_OPEN,
    link::PICK_UP,
    link::UNREACHED,
];

/// All parts. The socket storage is not among them: the programs hold it, and user space never touches it.
pub fn names() -> impl Iterator<Item = &'static str> {
    MAPS.into_iter().chain(PROGRAMS).chain(LINKS)
}

/// Descriptors by name.
#[derive(Debug, Default)]
pub struct Parts(BTreeMap<&'static str, OwnedFd>);

impl Parts {
    /// Adds a part; one of an unknown name is closed.
    pub fn add(&mut self, name: &str, fd: OwnedFd) {
        if let Some(name) = names().find(|known| *known == name) {
            self.0.insert(name, fd);
        }
    }

    /// Closes a part.
    pub fn remove(&mut self, name: &str) -> Option<OwnedFd> {
        self.0.remove(name)
    }

    /// A part that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn get(&self, name: &'static str) -> Result<BorrowedFd<'_>, KernelError> {
        let part = self.0.get(name).map(AsFd::as_fd);
        part.ok_or(KernelError::Object(name))
    }

    /// All that are there.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>)> {
        self.0.iter().map(|(name, fd)| (*name, fd.as_fd()))
    }

    /// A name that is missing.
    pub fn missing(&self) -> Option<&'static str> {
        names().find(|name| !self.0.contains_key(name))
    }
}
