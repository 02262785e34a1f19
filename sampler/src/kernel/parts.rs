//! Programs, maps and links of the kernel side: descriptors by name.
//!
//! They are all that a kernel side is to user space. Whoever holds them holds it, so they can be handed to a service manager and
//! come back to the next daemon. Limits: as many as [`names`], or [`lesser_names`] on a kernel that refuses some of the programs.

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
    /// Folds open flows once the callbacks are detached.
    pub const FOLD_DETACHED: &str = "fold_detached";
    /// Counts connections that are open before the attach.
    pub const COUNT_OPEN: &str = "count_open";
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
    /// Of [`super::program::FOLD_DETACHED`].
    pub const FOLD_DETACHED: &str = "link-fold_detached";
    /// Of [`super::program::COUNT_OPEN`].
    pub const COUNT_OPEN: &str = "link-count_open";
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

/// Programs: no kernel gets all of them.
pub const PROGRAMS: [&str; 7] = [
    program::PICK_AND_FOLD,
    program::WALK,
    program::FOLD_OPEN,
    program::PICK_UP,
    program::UNREACHED,
    program::FOLD_DETACHED,
    program::COUNT_OPEN,
];

/// Programs and links that every kernel gets.
const EVERYWHERE: [&str; 4] = [
    program::PICK_AND_FOLD,
    program::WALK,
    link::CGROUP,
    link::WALK,
];

/// Those of a kernel that lets an iterator look a socket's storage up (Linux 5.11 and later).
const WHOLE: [&str; 6] = [
    program::FOLD_OPEN,
    program::PICK_UP,
    program::UNREACHED,
    link::FOLD_OPEN,
    link::PICK_UP,
    link::UNREACHED,
];

/// What stands in for them on a kernel that does not.
const LESSER: [&str; 4] = [
    program::FOLD_DETACHED,
    program::COUNT_OPEN,
    link::FOLD_DETACHED,
    link::COUNT_OPEN,
];

fn everywhere() -> impl Iterator<Item = &'static str> {
    MAPS.into_iter().chain(EVERYWHERE)
}

/// All parts. The socket storage is not among them: the programs hold it, and user space never touches it.
pub fn names() -> impl Iterator<Item = &'static str> {
    everywhere().chain(WHOLE)
}

/// All parts in the lesser mode.
pub fn lesser_names() -> impl Iterator<Item = &'static str> {
    everywhere().chain(LESSER)
}

/// Descriptors by name.
#[derive(Debug, Default)]
pub struct Parts(BTreeMap<&'static str, OwnedFd>);

impl Parts {
    /// Adds a part; one of an unknown name is closed.
    pub fn add(&mut self, name: &str, fd: OwnedFd) {
        if let Some(name) = names().chain(LESSER).find(|known| *known == name) {
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

    /// Whether open flows can be folded only once the callbacks are detached.
    pub fn is_lesser(&self) -> bool {
        self.0.contains_key(program::FOLD_DETACHED)
    }

    /// A name that is missing.
    pub fn missing(&self) -> Option<&'static str> {
        let lacks = |name: &&'static str| !self.0.contains_key(name);
        match self.is_lesser() {
            true => lesser_names().find(lacks),
            false => names().find(lacks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: impl Iterator<Item = &'static str>) -> Parts {
        let mut parts = Parts::default();
        for name in names {
            let file = std::fs::File::open("/dev/null").expect("a descriptor");
            parts.add(name, file.into());
        }
        parts
    }

    #[test]
    fn each_mode_is_complete_by_itself() {
        assert_eq!(of(names()).missing(), None);
        assert_eq!(of(lesser_names()).missing(), None);
        let mut parts = of(names());
        parts.remove(link::PICK_UP);
        assert_eq!(parts.missing(), Some(link::PICK_UP));
        let mut parts = of(lesser_names());
        parts.remove(link::FOLD_DETACHED);
        assert_eq!(parts.missing(), Some(link::FOLD_DETACHED));
        assert!(of(std::iter::once("stored")).missing().is_some());
    }
}
