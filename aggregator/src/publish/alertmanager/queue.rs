//! Alerts that wait for one Alertmanager. Pure: times are arguments.
//!
//! Input: alerts as they are said. Output: batches in the order in which their alerts began to wait. Of each label set only the newest
//! word waits; the end of an alert gives way to a new beginning only, never to a repeat of the old one. A word that holds no more is
//! taken out: sent late, "still on until 10:00:00" would read as "off since then".
//! Limits: [`MOST_WAITING`] label sets. When it is full, what is still on gives way first, since that is said again anyway.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use crate::alert::Alert;

/// Label sets that wait at most: 200 streams times 50 rules.
pub const MOST_WAITING: usize = 10_000;

/// For so long after its end an alert that is over is still worth saying. Alertmanager ends by itself what is not repeated, so that
/// nobody misses it after that.
pub const SAY_RESOLVED_FOR_MS: u64 = 300_000;

type Labels = BTreeMap<String, String>;

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Unix time, ms.
    pub unix_ms: u64,
    /// Monotonic, since any fixed moment.
    pub monotonic: Duration,
}

/// An alert that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The newest word about it.
    pub alert: Alert,
    /// Whether it says that the alert is over.
    pub resolved: bool,
    /// When this state was first said, monotonic.
    pub since: Duration,
    /// From then on it is not worth saying any more, Unix ms.
    until_ms: u64,
}

/// What became of an alert that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// Waits.
    Added,
    /// Waits, and an older word about the same alert does not any more.
    Replaced,
    /// Does not wait: the end of the same alert does.
    Stale,
    /// Waits, in the place of another that was thrown out.
    Crowded,
    /// Does not wait: there is no room.
    Full,
    /// Does not wait: its times are none, or over.
    Unfit,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: BTreeMap<u64, Waiting>,
    places: HashMap<Labels, u64>,
    next: u64,
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes in what is said now.
    pub fn put(&mut self, alert: Alert, now: Now) -> Put {
        let Some(mut new) = Waiting::of(alert, now) else {
            return Put::Unfit;
        };
        let Some(place) = self.places.get(&new.alert.labels) else {
            return self.add(new);
        };
        let Some(old) = self.waiting.get_mut(place) else {
            return self.add(new);
        };
        let same_episode = old.alert.starts_at == new.alert.starts_at;
        if old.resolved && !new.resolved && same_episode {
            return Put::Stale;
        }
        if same_episode && old.resolved == new.resolved {
            new.since = old.since;
        }
        *old = new;
        Put::Replaced
    }

    fn add(&mut self, new: Waiting) -> Put {
        let mut put = Put::Added;
        if self.waiting.len() >= MOST_WAITING {
            if !new.resolved {
                return Put::Full;
            }
            let on = self.waiting.iter().find(|(_, old)| !old.resolved);
            let oldest = on.or(self.waiting.iter().next()).map(|(place, _)| *place);
            if let Some(place) = oldest {
                self.remove(place);
            }
            put = Put::Crowded;
        }
        self.places.insert(new.alert.labels.clone(), self.next);
        self.waiting.insert(self.next, new);
        self.next += 1;
        put
    }

    fn remove(&mut self, place: u64) -> Option<Waiting> {
        let gone = self.waiting.remove(&place)?;
        self.places.remove(&gone.alert.labels);
        Some(gone)
    }

    /// Takes out what is not worth saying any more; how many that were.
    pub fn expire(&mut self, unix_ms: u64) -> usize {
        let over = self
            .waiting
            .iter()
            .filter(|(_, one)| one.until_ms <= unix_ms);
        let over: Vec<u64> = over.map(|(place, _)| *place).collect();
        for place in &over {
            self.remove(*place);
        }
        over.len()
    }

    /// Takes out the first `most`.
    pub fn take(&mut self, most: usize) -> Vec<Waiting> {
        let first: Vec<u64> = self.waiting.keys().take(most).copied().collect();
        let taken = first.into_iter().filter_map(|place| self.remove(place));
        taken.collect()
    }

    /// Takes back what could not be said, behind those that wait; what was said anew meanwhile stays. Returns how many were not taken
    /// back for that, and how many for want of room.
    pub fn take_back(&mut self, batch: Vec<Waiting>) -> (usize, usize) {
        let (mut replaced, mut crowded) = (0, 0);
        for old in batch {
            match self.places.get(&old.alert.labels) {
                Some(place) => {
                    let Some(new) = self.waiting.get_mut(place) else {
                        continue;
                    };
                    let same_episode = old.alert.starts_at == new.alert.starts_at;
                    if same_episode && old.resolved && !new.resolved {
                        *new = old;
                    } else if same_episode && old.resolved == new.resolved {
                        new.since = old.since;
                    }
                    replaced += 1;
                }
                None => crowded += usize::from(matches!(self.add(old), Put::Full | Put::Crowded)),
            }
        }
        (replaced, crowded)
    }
}

impl Waiting {
    /// None if its times cannot be read or its word does not hold any more.
    fn of(alert: Alert, now: Now) -> Option<Self> {
        let ends_ms = unix_ms(&alert.ends_at)?;
        unix_ms(&alert.starts_at)?;
        let resolved = ends_ms <= now.unix_ms;
        let until_ms = if resolved {
            ends_ms.saturating_add(SAY_RESOLVED_FOR_MS)
        } else {
            ends_ms
        };
        (until_ms > now.unix_ms).then_some(Self {
            alert,
            resolved,
            since: now.monotonic,
            until_ms,
        })
    }
}

fn unix_ms(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alert::utc;

    /// An alert about `stream`, of the episode that began at `start_s`, that ends at `end_s`.
    fn alert(stream: usize, start_s: u64, end_s: u64) -> Alert {
        Alert {
            labels: [("stream".to_owned(), format!("sport-{stream}"))].into(),
            annotations: BTreeMap::new(),
            starts_at: utc(start_s * 1_000),
            ends_at: utc(end_s * 1_000),
            generator_url: None,
        }
    }

    fn at(s: u64) -> Now {
        Now {
            unix_ms: s * 1_000,
            monotonic: Duration::from_secs(s),
        }
    }

    /// Episode and whether it is over, of all that waits.
    fn waiting(queue: &mut Queue) -> Vec<(String, bool)> {
        let taken = queue.take(usize::MAX).into_iter();
        taken
            .map(|one| (one.alert.starts_at, one.resolved))
            .collect()
    }

    #[test]
    fn the_newest_word_waits_and_keeps_its_age() {
        let mut queue = Queue::default();
        assert_eq!(queue.put(alert(1, 100, 160), at(100)), Put::Added);
        assert_eq!(queue.put(alert(2, 100, 160), at(101)), Put::Added);
        assert_eq!(queue.put(alert(1, 100, 175), at(115)), Put::Replaced);
        let taken = queue.take(1);
        assert_eq!(taken[0].alert, alert(1, 100, 175));
        assert_eq!(taken[0].since, Duration::from_secs(100));
        // Its end is another state.
        queue.take_back(taken);
        assert_eq!(queue.put(alert(1, 100, 118), at(118)), Put::Replaced);
        let taken = queue.take(2).pop().expect("two wait");
        assert_eq!((taken.resolved, taken.since.as_secs()), (true, 118));
    }

    #[test]
    fn an_end_gives_way_to_a_new_beginning_only() {
        let mut queue = Queue::default();
        queue.put(alert(1, 100, 120), at(120));
        assert_eq!(queue.put(alert(1, 100, 181), at(121)), Put::Stale);
        assert_eq!(waiting(&mut queue), [(utc(100_000), true)]);
        queue.put(alert(1, 100, 120), at(120));
        assert_eq!(queue.put(alert(1, 130, 190), at(130)), Put::Replaced);
        assert_eq!(waiting(&mut queue), [(utc(130_000), false)]);
        // The same when the end was on its way meanwhile.
        queue.put(alert(1, 100, 120), at(120));
        let batch = queue.take(1);
        queue.put(alert(1, 100, 181), at(121));
        assert_eq!(queue.take_back(batch), (1, 0));
        assert_eq!(waiting(&mut queue), [(utc(100_000), true)]);
    }

    #[test]
    fn what_holds_no_more_is_not_said() {
        let mut queue = Queue::default();
        queue.put(alert(1, 100, 160), at(100));
        queue.put(alert(2, 100, 101), at(101));
        assert_eq!(queue.expire(159_999), 0);
        assert_eq!(queue.expire(160_000), 1);
        assert_eq!(queue.expire(400_999), 0);
        assert_eq!(queue.expire(401_000), 1);
        assert!(queue.is_empty());
        assert_eq!(queue.put(alert(1, 100, 160), at(500)), Put::Unfit);
        let mut wrong = alert(1, 100, 160);
        wrong.starts_at = "yesterday".to_owned();
        assert_eq!(queue.put(wrong, at(100)), Put::Unfit);
    }

    #[test]
    fn a_full_queue_gives_up_what_is_said_again_anyway() {
        let mut queue = Queue::default();
        queue.put(alert(0, 100, 100), at(100));
        for stream in 1..MOST_WAITING {
            assert_eq!(queue.put(alert(stream, 100, 160), at(100)), Put::Added);
        }
        let (on, over) = (alert(MOST_WAITING, 100, 160), alert(MOST_WAITING, 90, 100));
        assert_eq!(queue.put(on, at(100)), Put::Full);
        assert_eq!(queue.put(over, at(100)), Put::Crowded);
        assert_eq!(queue.len(), MOST_WAITING);
        let resolved = waiting(&mut queue).into_iter().filter(|one| one.1);
        assert_eq!(resolved.count(), 2);
    }

    proptest! {
        /// Whatever is said, fails and holds no more: one word per label set, the newest of its episode, and every alert is accounted for.
        #[test]
        fn nothing_is_lost_unseen(steps in prop::collection::vec((0..4_usize, 0..4_u64, 0..6_u8), 1..200)) {
            let mut queue = Queue::default();
            let mut flying = Vec::new();
            let (mut said, mut gone) = (0, 0);
            for (now_s, (stream, episode, step)) in (1_000..).zip(steps) {
                match step {
                    0 => flying.extend(queue.take(2)),
                    1 => {
                        let (replaced, crowded) = queue.take_back(std::mem::take(&mut flying));
                        gone += replaced + crowded;
                    }
                    2 => gone += queue.expire(now_s * 1_000),
                    _ => {
                        let end_s = if step == 3 { now_s } else { now_s + 20 };
                        said += 1;
                        let put = queue.put(alert(stream, episode, end_s), at(now_s));
                        gone += usize::from(put != Put::Added);
                    }
                }
                // One batch is on its way at a time, so that no label set flies twice.
                if flying.len() > 2 {
                    gone += flying.len();
                    flying.clear();
                }
                prop_assert_eq!(said, gone + queue.len() + flying.len());
                prop_assert_eq!(queue.places.len(), queue.waiting.len());
                prop_assert!(queue.len() <= 4);
            }
        }
    }
}
