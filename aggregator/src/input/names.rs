//! Numbers for names, so that a name is held once.
//!
//! Input: names, and who holds them. Output: a number for each, the same as long as somebody holds it. A number is used again
//! when its name is gone.

use std::collections::HashMap;
use std::sync::Arc;

/// Number of a name.
pub(super) type Id = u32;

/// The names.
#[derive(Debug, Default)]
pub(super) struct Names {
    ids: HashMap<Arc<str>, Id>,
    /// By number: the name and how many hold it.
    held: Vec<(Arc<str>, u32)>,
    free: Vec<Id>,
}

impl Names {
    /// The number of a name, which is given one if it has none. Nobody holds it by that.
    pub(super) fn id(&mut self, name: &str) -> Id {
        if let Some(id) = self.known(name) {
            return id;
        }
        let name: Arc<str> = name.into();
        let id = match self.free.pop() {
            Some(id) => {
                self.held[id as usize] = (Arc::clone(&name), 0);
                id
            }
            None => {
                // Fewer than two names a key: never near 2^32.
                let id = Id::try_from(self.held.len()).unwrap_or(Id::MAX);
                self.held.push((Arc::clone(&name), 0));
                id
            }
        };
        self.ids.insert(name, id);
        id
    }

    /// The number of a name, if it has one.
    pub(super) fn known(&self, name: &str) -> Option<Id> {
        self.ids.get(name).copied()
    }

    /// The name of a number; empty for one that nobody holds.
    pub(super) fn name(&self, id: Id) -> &str {
        self.held.get(id as usize).map_or("", |(name, _)| name)
    }

    /// One more holds the name.
    pub(super) fn hold(&mut self, id: Id) {
        if let Some((_, holders)) = self.held.get_mut(id as usize) {
            *holders += 1;
        }
    }

    /// One less holds the name; the last one takes it away.
    pub(super) fn release(&mut self, id: Id) {
        let Some((name, holders)) = self.held.get_mut(id as usize) else {
            return;
        };
        *holders = holders.saturating_sub(1);
        if *holders == 0 {
            let name = std::mem::replace(name, Arc::from(""));
            self.ids.remove(&name);
            self.free.push(id);
        }
        if self.ids.capacity() > self.ids.len().saturating_mul(4) {
            self.ids.shrink_to_fit();
        }
    }

    /// Memory in use, bytes.
    pub(super) fn bytes(&self) -> usize {
        let tables = self.ids.capacity() * (size_of::<(Arc<str>, Id)>() + 1)
            + self.held.capacity() * size_of::<(Arc<str>, u32)>()
            + self.free.capacity() * size_of::<Id>();
        // Two counters beside each text.
        let texts: usize = self.ids.keys().map(|name| name.len() + 16).sum();
        tables + texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_lives_as_long_as_it_is_held() {
        let mut names = Names::default();
        let (a, b) = (names.id("a"), names.id("b"));
        assert_ne!(a, b);
        for id in [a, a, b] {
            names.hold(id);
        }
        names.release(a);
        assert_eq!((names.known("a"), names.id("a")), (Some(a), a));
        names.release(a);
        assert_eq!(names.known("a"), None);
        assert_eq!(names.id("c"), a, "used again");
        assert_eq!(names.known("b"), Some(b));
    }

    #[test]
    fn an_empty_name_is_a_name() {
        let mut names = Names::default();
        let (empty, other) = (names.id(""), names.id("x"));
        names.hold(empty);
        names.hold(other);
        names.release(other);
        assert_eq!(names.known(""), Some(empty));
    }
}
