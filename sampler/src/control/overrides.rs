//! The book of rates that hold for a while. Pure: every time is an argument.
//!
//! Input: what was asked, and the monotonic clock. Output: the rate in force, and who goes back when. Limits: at most one entry a
//! stream; the caller takes no names that are no streams. Units: µs of the monotonic clock, so that a step of the wall clock neither
//! shortens nor lengthens anything.

use std::collections::BTreeMap;

use super::wire::Peer;

/// A rate for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Override {
    /// Instead of the configured one, 0 to 1.
    pub rate: f64,
    /// When the configured one holds again.
    pub until_us: u64,
    /// Who asked.
    pub by: Peer,
}

/// All of them, by stream.
#[derive(Clone, Debug, Default)]
pub struct Overrides(BTreeMap<String, Override>);

impl Overrides {
    /// The rate of a stream, if it is not the configured one.
    pub fn rate(&self, stream: &str) -> Option<f64> {
        self.0.get(stream).map(|set| set.rate)
    }

    /// Sets one; what was set before.
    pub fn set(&mut self, stream: &str, set: Override) -> Option<Override> {
        self.0.insert(stream.to_owned(), set)
    }

    /// Ends one early; what was set.
    pub fn unset(&mut self, stream: &str) -> Option<Override> {
        self.0.remove(stream)
    }

    /// Ends those whose time has come: these.
    pub fn expire(&mut self, now_us: u64) -> Vec<(String, Override)> {
        self.remove(|_, set| set.until_us <= now_us)
    }

    /// Ends those of streams that are gone: these.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) -> Vec<(String, Override)> {
        self.remove(|stream, _| !is_there(stream))
    }

    fn remove(&mut self, ends: impl Fn(&str, &Override) -> bool) -> Vec<(String, Override)> {
        let ended = self.0.extract_if(.., |stream, set| ends(stream, set));
        ended.collect()
    }

    /// When the next one ends; none: never.
    pub fn next_us(&self) -> Option<u64> {
        self.0.values().map(|set| set.until_us).min()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Override)> {
        self.0.iter().map(|(stream, set)| (stream.as_str(), set))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHO: Peer = Peer { uid: 7, pid: 42 };

    fn set(rate: f64, until_us: u64) -> Override {
        Override {
            rate,
            until_us,
            by: WHO,
        }
    }

    #[test]
    fn a_rate_returns_by_itself_or_when_told() {
        let mut book = Overrides::default();
        assert_eq!((book.next_us(), book.rate("a")), (None, None));
        assert_eq!(book.set("a", set(0.5, 100)), None);
        assert_eq!(book.set("b", set(1.0, 50)), None);
        assert_eq!((book.next_us(), book.rate("a")), (Some(50), Some(0.5)));
        assert!(book.expire(49).is_empty());
        assert_eq!(book.expire(50), [("b".to_owned(), set(1.0, 50))]);
        assert_eq!(book.set("a", set(0.2, 200)), Some(set(0.5, 100)));
        assert!(book.expire(100).is_empty());
        assert_eq!(book.unset("a"), Some(set(0.2, 200)));
        assert_eq!(book.unset("a"), None);
        assert_eq!(book.iter().count(), 0);
    }

    #[test]
    fn a_stream_that_is_gone_takes_its_rate_along() {
        let mut book = Overrides::default();
        book.set("a", set(0.5, 100));
        book.set("b", set(0.5, 100));
        let gone = book.retain(|stream| stream == "b");
        assert_eq!(gone, [("a".to_owned(), set(0.5, 100))]);
        assert_eq!(book.rate("b"), Some(0.5));
    }

    proptest! {
        /// Whatever is set in whatever order: after `expire(now)` exactly those hold whose last setting ends later, and the next end
        /// is the earliest of theirs.
        #[test]
        fn what_holds_is_what_has_time_left(
            asked in prop::collection::vec((0u8..5, 0.0f64..=1.0, 0u64..100), 0..40),
            now_us in 0u64..120,
        ) {
            let mut book = Overrides::default();
            let mut last = BTreeMap::new();
            for (stream, rate, until_us) in asked {
                book.set(&stream.to_string(), set(rate, until_us));
                last.insert(stream.to_string(), (rate, until_us));
            }
            let ended = book.expire(now_us);
            for (stream, (rate, until_us)) in &last {
                let holds = *until_us > now_us;
                prop_assert_eq!(book.rate(stream), holds.then_some(*rate));
                prop_assert_eq!(ended.iter().any(|(name, _)| name == stream), !holds);
            }
            let next = last.values().map(|(_, until_us)| *until_us).filter(|until_us| *until_us > now_us);
            prop_assert_eq!(book.next_us(), next.min());
        }
    }
}
