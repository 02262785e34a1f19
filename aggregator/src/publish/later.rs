//! Words that wait for the state that they come from. Pure, time is an argument.
//!
//! Input: words, each with the state's record that has to be confirmed first. Output: those whose state is confirmed, in the order in
//! which they came. Who is killed between the two leaves a state without words, which the next owner says again, and never words of
//! an episode that the next owner does not know and would begin once more under another id. Limits: [`MOST`] words, [`PATIENCE`]
//! each: a topic of states that takes nothing does not silence the alerts.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::unconfirmed::Place;

/// Words that wait; one more goes at once.
pub const MOST: usize = 10_000;
/// How long a word waits for its state.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The words.
#[derive(Debug)]
pub struct Later<T>(VecDeque<Word<T>>);

#[derive(Debug)]
struct Word<T> {
    until: Instant,
    state: Place,
    word: T,
}

impl<T> Default for Later<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Later<T> {
    /// Takes a word in, unless there are too many: then it is given back.
    pub fn put(&mut self, state: Place, word: T, now: Instant) -> Option<T> {
        if self.0.len() >= MOST {
            return Some(word);
        }
        let until = now + PATIENCE;
        self.0.push_back(Word { until, state, word });
        None
    }

    /// Those that may go now: their state is confirmed, or they have waited for long enough. Of one key none overtakes another.
    pub fn release(&mut self, now: Instant, confirmed: impl Fn(&Place) -> bool) -> Vec<T> {
        let mut stay = VecDeque::new();
        let mut keys = BTreeSet::new();
        let mut go = Vec::new();
        for word in self.0.drain(..) {
            let ready = now >= word.until || confirmed(&word.state);
            if ready && !keys.contains(&word.state) {
                go.push(word.word);
            } else {
                keys.insert(word.state.clone());
                stay.push_back(word);
            }
        }
        self.0 = stay;
        go
    }

    /// All of them: the end is near.
    pub fn release_all(&mut self) -> Vec<T> {
        self.0.drain(..).map(|word| word.word).collect()
    }

    /// Whether words of a state wait.
    pub fn has(&self, state: &Place) -> bool {
        self.0.iter().any(|word| word.state == *state)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(key: &str) -> Place {
        Place {
            topic: "state",
            key: key.to_owned(),
        }
    }

    #[test]
    fn words_follow_their_state_in_their_order() {
        let start = Instant::now();
        let mut later = Later::default();
        for (key, word) in [("a", 1), ("b", 2), ("a", 3)] {
            assert_eq!(later.put(state(key), word, start), None);
        }
        assert!(later.has(&state("a")) && !later.has(&state("c")));
        assert_eq!(later.release(start, |_| false), [] as [i32; 0]);
        assert_eq!(later.release(start, |of| *of == state("b")), [2]);
        assert_eq!(later.release(start, |_| true), [1, 3]);
        assert!(later.is_empty());
    }

    #[test]
    fn a_state_that_is_not_confirmed_silences_nobody() {
        let start = Instant::now();
        let mut later = Later::default();
        later.put(state("a"), 1, start);
        later.put(state("a"), 2, start + PATIENCE / 2);
        assert_eq!(later.release(start + PATIENCE, |_| false), [1]);
        assert_eq!(later.release_all(), [2]);
        for word in 0..MOST {
            assert_eq!(later.put(state("b"), word, start), None);
        }
        assert_eq!(later.put(state("b"), 7, start), Some(7));
        assert_eq!(later.len(), MOST);
    }
}
