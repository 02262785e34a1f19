//! A set of sequence numbers, as few intervals.
//!
//! Input: numbers in any order. Output: whether each was there before, and how many are missing between those seen.
//! Limits: at most [`MAX_INTERVALS`]; the oldest hole is closed to keep to it, and its numbers are given up.

/// Most intervals of one set: with it, 63 holes stay open.
pub(super) const MAX_INTERVALS: usize = 64;

/// First and last number of an interval.
type Interval = (u64, u64);

/// The set. Nearly all sets have one interval, which takes no memory of its own.
#[derive(Clone, Debug)]
pub(super) struct Intervals {
    newest: Interval,
    /// The others in their order, all below `newest`; absent while there are none.
    #[expect(
        clippy::box_collection,
        reason = "a pointer where nothing is: most sets have no others"
    )]
    older: Option<Box<Vec<Interval>>>,
    given_up: u64,
}

/// What adding a number did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It was not there. So many others were given up to keep to the bound.
    New {
        /// Numbers that will count as seen from now on.
        given_up: u64,
    },
    /// It was there, or was given up.
    Known,
}

impl Intervals {
    /// A set of one number.
    pub(super) fn of(first: u64) -> Self {
        Self {
            newest: (first, first),
            older: None,
            given_up: 0,
        }
    }

    /// A set from the first and last numbers of its intervals, with how many were given up; none if they are out of order or too many.
    pub(super) fn of_ends(ends: &[u64], given_up: u64) -> Option<Self> {
        let (pairs, rest) = ends.as_chunks::<2>();
        let mut all: Vec<Interval> = pairs.iter().map(|[first, last]| (*first, *last)).collect();
        let whole = rest.is_empty() && all.len() <= MAX_INTERVALS;
        let ordered = all.iter().all(|(first, last)| first <= last)
            && all
                .windows(2)
                .all(|pair| pair[0].1.saturating_add(1) < pair[1].0);
        let newest = all.pop()?;
        (whole && ordered).then(|| Self {
            newest,
            older: (!all.is_empty()).then(|| Box::new(all)),
            given_up,
        })
    }

    /// Adds a number.
    pub(super) fn add(&mut self, number: u64) -> Added {
        if number > self.newest.1 {
            return self.add_above(number);
        }
        if number >= self.newest.0 {
            return Added::Known;
        }
        if number + 1 == self.newest.0 {
            self.newest.0 = number;
            self.join_newest();
            return Added::New { given_up: 0 };
        }
        self.add_below(number)
    }

    fn add_above(&mut self, number: u64) -> Added {
        if number - self.newest.1 == 1 {
            self.newest.1 = number;
            return Added::New { given_up: 0 };
        }
        let newest = std::mem::replace(&mut self.newest, (number, number));
        self.older.get_or_insert_default().push(newest);
        self.keep_bound()
    }

    /// Adds a number that neither touches the newest interval nor lies in or above it.
    fn add_below(&mut self, number: u64) -> Added {
        let older = self.older.get_or_insert_default();
        // The first that ends at the number's lower neighbour or above it: no other can hold or touch the number from below.
        let place = older.partition_point(|(_, last)| last.saturating_add(1) < number);
        let touches_above = |interval: &Interval| interval.0 == number + 1;
        match older.get(place).copied() {
            Some((first, last)) if first <= number && number <= last => return Added::Known,
            Some((_, last)) if last + 1 == number => {
                older[place].1 = number;
                if let Some(next) = older.get(place + 1).copied().filter(touches_above) {
                    older[place].1 = next.1;
                    older.remove(place + 1);
                }
            }
            Some(next) if touches_above(&next) => older[place].0 = number,
            _ => older.insert(place, (number, number)),
        }
        self.keep_bound()
    }

    /// Joins the newest interval with the one before it, if they touch now.
    fn join_newest(&mut self) {
        let Some(older) = &mut self.older else { return };
        if let Some((first, _)) = older.pop_if(|(_, last)| *last + 1 == self.newest.0) {
            self.newest.0 = first;
        }
        if older.is_empty() {
            self.older = None;
        }
    }

    /// Closes the oldest hole if there are too many.
    fn keep_bound(&mut self) -> Added {
        let mut given_up = 0;
        if let Some(older) = &mut self.older
            && older.len() >= MAX_INTERVALS
        {
            let oldest = older.remove(0);
            // There is a next one: the bound is above one.
            given_up = hole(oldest, older[0]);
            older[0].0 = oldest.0;
            self.given_up = self.given_up.saturating_add(given_up);
        }
        Added::New { given_up }
    }

    /// Numbers between those seen that are missing.
    pub(super) fn open_holes(&self) -> u64 {
        let all = self.iter();
        all.clone()
            .zip(all.skip(1))
            .fold(0_u64, |sum, (lower, upper)| {
                sum.saturating_add(hole(lower, upper))
            })
    }

    /// Numbers that were given up.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Last number up to which all are there, from the first one seen on.
    pub(super) fn complete_up_to(&self) -> u64 {
        self.iter().next().unwrap_or(self.newest).1
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.older.as_ref().map_or(0, |older| {
            size_of::<Vec<Interval>>() + older.capacity() * size_of::<Interval>()
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Interval> + Clone {
        let older = self.older.iter().flat_map(|older| older.iter().copied());
        older.chain([self.newest])
    }
}

/// Numbers between two intervals.
fn hole(lower: Interval, upper: Interval) -> u64 {
    upper.0.saturating_sub(lower.1).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const NEW: Added = Added::New { given_up: 0 };

    fn set(numbers: &[u64]) -> Intervals {
        let mut set = Intervals::of(numbers[0]);
        for number in &numbers[1..] {
            set.add(*number);
        }
        set
    }

    #[track_caller]
    fn check(numbers: &[u64], expected: &[Interval]) {
        let found: Vec<_> = set(numbers).iter().collect();
        assert_eq!(found, expected, "{numbers:?}");
    }

    #[test]
    fn intervals_grow_and_join() {
        check(&[5], &[(5, 5)]);
        check(&[5, 6, 7], &[(5, 7)]);
        check(&[5, 4, 3], &[(3, 5)]);
        check(&[5, 7], &[(5, 5), (7, 7)]);
        check(&[5, 7, 6], &[(5, 7)]);
        check(&[9, 5, 7], &[(5, 5), (7, 7), (9, 9)]);
        check(&[9, 5, 7, 6], &[(5, 7), (9, 9)]);
        check(&[9, 5, 4], &[(4, 5), (9, 9)]);
        check(&[9, 5, 6], &[(5, 6), (9, 9)]);
        check(&[9, 5, 3, 4], &[(3, 5), (9, 9)]);
        check(
            &[0, u64::MAX, u64::MAX - 1, 1],
            &[(0, 1), (u64::MAX - 1, u64::MAX)],
        );
    }

    #[test]
    fn the_oldest_hole_is_given_up() {
        let mut set = Intervals::of(0);
        for interval in 1..MAX_INTERVALS as u64 {
            assert_eq!(set.add(interval * 10), NEW);
        }
        assert_eq!(
            (set.iter().count(), set.open_holes()),
            (MAX_INTERVALS, 63 * 9)
        );
        assert_eq!(set.complete_up_to(), 0);
        assert_eq!(set.add(640), Added::New { given_up: 9 });
        assert_eq!(
            (set.iter().count(), set.open_holes(), set.given_up()),
            (MAX_INTERVALS, 63 * 9, 9)
        );
        assert_eq!(set.complete_up_to(), 10);
        assert_eq!(set.add(5), Added::Known, "given up");
        assert_eq!(
            set.add(15),
            Added::New { given_up: 4 },
            "the oldest hole is now the one from 11 to 14"
        );
    }

    #[test]
    fn one_interval_has_no_heap() {
        let set = set(&[3, 4, 6, 5]);
        assert_eq!((set.heap_bytes(), set.open_holes()), (0, 0));
        assert!(size_of::<Intervals>() <= 32, "{}", size_of::<Intervals>());
    }

    proptest! {
        #[test]
        fn is_a_set(numbers in prop::collection::vec(0_u64..100, 1..300)) {
            // At most 50 intervals: nothing is given up.
            let mut plain = BTreeSet::from([numbers[0]]);
            let mut set = Intervals::of(numbers[0]);
            for number in &numbers[1..] {
                let expected = if plain.insert(*number) { NEW } else { Added::Known };
                prop_assert_eq!(set.add(*number), expected);
                let (first, last) = (plain.first().expect("one"), plain.last().expect("one"));
                prop_assert_eq!(set.open_holes(), last - first + 1 - plain.len() as u64);
                let end = (*first..).find(|next| !plain.contains(&(next + 1))).expect("an end");
                prop_assert_eq!(set.complete_up_to(), end);
            }
        }

        #[test]
        fn never_takes_a_number_twice(numbers in prop::collection::vec(any::<u16>(), 1..2000)) {
            let numbers: Vec<u64> = numbers.into_iter().map(u64::from).collect();
            let mut plain = BTreeSet::from([numbers[0]]);
            let mut set = Intervals::of(numbers[0]);
            let mut wrongly_known = 0;
            for number in &numbers[1..] {
                let new = plain.insert(*number);
                match set.add(*number) {
                    Added::New { .. } => prop_assert!(new),
                    Added::Known => wrongly_known += u64::from(new),
                }
                prop_assert!(set.iter().count() <= MAX_INTERVALS);
                let ordered: Vec<_> = set.iter().collect();
                prop_assert!(ordered.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            }
            prop_assert!(wrongly_known <= set.given_up());
            let span = plain.last().expect("one") - plain.first().expect("one") + 1;
            let seen = plain.len() as u64 - wrongly_known;
            prop_assert_eq!(seen + set.open_holes() + set.given_up(), span);
        }
    }
}
