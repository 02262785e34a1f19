//! Which record is where, and what became of it. Pure: no file is touched.
//!
//! Input: records that were written, handed out, given back or confirmed. Output: the next record to replay, segments that can go.
//! A record is **pending** (on disk only), **out** (in memory too: with the sink) or **done** (confirmed).
//! Limits: two bits of memory for a record of a segment that was touched; none for segments that only wait.

use std::collections::VecDeque;

/// Place of a record. Later records have greater ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpoolId {
    /// Number of the segment.
    pub segment: u64,
    /// Place in it, from 0.
    pub index: u32,
}

/// Times are noted for one record in so many.
const MARK_EVERY: u32 = 64;

#[derive(Clone, Debug, Default)]
struct Bits {
    words: Vec<u64>,
    set: u32,
}

impl Bits {
    fn get(&self, index: u32) -> bool {
        let word = self.words.get(index as usize / 64);
        word.is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Sets a bit; whether it was another one before.
    fn put(&mut self, index: u32, value: bool) -> bool {
        if self.get(index) == value {
            return false;
        }
        let at = index as usize / 64;
        if self.words.len() <= at {
            self.words.resize(at + 1, 0);
        }
        self.words[at] ^= 1 << (index % 64);
        self.set = match value {
            true => self.set + 1,
            false => self.set - 1,
        };
        true
    }

    /// The first place that is not set.
    fn first_clear(&self) -> u32 {
        let full = self.words.iter().take_while(|word| **word == u64::MAX);
        let full = full.count();
        let rest = self.words.get(full).map_or(0, |word| word.trailing_ones());
        full as u32 * 64 + rest
    }
}

/// One segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its number.
    pub number: u64,
    /// Valid bytes, head included.
    pub bytes: u64,
    /// Records in them.
    pub records: u32,
    /// Left behind by an earlier life of the daemon.
    pub earlier: bool,
    /// Nothing is appended any more.
    pub sealed: bool,
    out: Bits,
    done: Bits,
    marks: Vec<(u32, u64)>,
}

impl Segment {
    /// An empty segment.
    pub fn new(number: u64, head_bytes: u64, earlier: bool) -> Self {
        Self {
            number,
            bytes: head_bytes,
            records: 0,
            earlier,
            sealed: earlier,
            out: Bits::default(),
            done: Bits::default(),
            marks: Vec::new(),
        }
    }

    /// A record was written.
    pub fn add(&mut self, bytes: u64, end_ms: u64) {
        let due = self
            .marks
            .last()
            .is_none_or(|(index, _)| self.records - index >= MARK_EVERY);
        if due {
            self.marks.push((self.records, end_ms));
        }
        self.records += 1;
        self.bytes += bytes;
    }

    /// Records on disk only.
    pub fn pending(&self) -> u64 {
        u64::from(self.records) - u64::from(self.out.set) - u64::from(self.done.set)
    }

    /// Records that are not confirmed.
    pub fn unconfirmed(&self) -> u64 {
        u64::from(self.records - self.done.set)
    }

    /// Whether a record is on disk only.
    pub fn is_pending(&self, index: u32) -> bool {
        index < self.records && !self.out.get(index) && !self.done.get(index)
    }

    /// Bytes with the acks.
    pub fn size(&self, ack_bytes: u64) -> u64 {
        self.bytes + u64::from(self.done.set) * ack_bytes
    }

    /// So many first records are confirmed.
    fn confirmed(&self) -> u32 {
        self.done.first_clear().min(self.records)
    }

    /// End of the window of about the oldest record that is not confirmed.
    fn oldest_end_ms(&self) -> Option<u64> {
        let first = self.confirmed();
        if first >= self.records {
            return None;
        }
        let after = self.marks.partition_point(|(index, _)| *index <= first);
        self.marks
            .get(after.saturating_sub(1))
            .map(|(_, end_ms)| *end_ms)
    }
}

/// All segments, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    segments: VecDeque<Segment>,
    cursor: Option<SpoolId>,
    last: u64,
}

impl Segments {
    /// Adds a segment; its number is greater than all others.
    pub fn push(&mut self, segment: Segment) {
        self.last = self.last.max(segment.number);
        self.segments.push_back(segment);
    }

    /// Number for a new segment; none is given twice.
    pub fn next_number(&self) -> u64 {
        self.last.saturating_add(1)
    }

    /// Numbers up to this one were in use before.
    pub fn skip(&mut self, number: u64) {
        self.last = self.last.max(number);
    }

    /// Place after the last record.
    pub fn end(&self) -> SpoolId {
        let records = self.get(self.last).map_or(0, |segment| segment.records);
        SpoolId {
            segment: self.last,
            index: records,
        }
    }

    /// So many first records of the last segment are confirmed.
    pub fn confirmed(&self) -> u32 {
        self.get(self.last).map_or(0, Segment::confirmed)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter()
    }

    /// The one of a number.
    pub fn get(&self, number: u64) -> Option<&Segment> {
        self.position(number).map(|at| &self.segments[at])
    }

    /// The one of a number.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut Segment> {
        self.position(number).map(|at| &mut self.segments[at])
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.segments
            .binary_search_by_key(&number, |segment| segment.number)
            .ok()
    }

    /// The sink has so many records from `first` on in memory.
    pub fn hand_out(&mut self, first: SpoolId, count: u32) {
        let Some(segment) = self.get_mut(first.segment) else {
            return;
        };
        for index in first.index..first.index + count {
            if segment.is_pending(index) {
                segment.out.put(index, true);
            }
        }
    }

    /// The sink let go of a record: it is to be replayed. False: it is not here any more.
    pub fn give_back(&mut self, id: SpoolId) -> bool {
        let Some(segment) = self.get_mut(id.segment) else {
            return false;
        };
        segment.out.put(id.index, false);
        if self.cursor.is_some_and(|cursor| id < cursor) {
            self.cursor = Some(id);
        }
        true
    }

    /// A record needs the spool no more. True: it was not known before.
    pub fn confirm(&mut self, id: SpoolId) -> bool {
        let Some(segment) = self.get_mut(id.segment) else {
            return false;
        };
        if id.index >= segment.records || !segment.done.put(id.index, true) {
            return false;
        }
        segment.out.put(id.index, false);
        true
    }

    /// Hands out the oldest pending record.
    pub fn take_next(&mut self) -> Option<SpoolId> {
        let from = self.cursor.unwrap_or(SpoolId {
            segment: 0,
            index: 0,
        });
        let first = self
            .segments
            .partition_point(|segment| segment.number < from.segment);
        for segment in self.segments.range_mut(first..) {
            if segment.pending() == 0 {
                continue;
            }
            let start = if segment.number == from.segment {
                from.index
            } else {
                0
            };
            if let Some(index) = (start..segment.records).find(|index| segment.is_pending(*index)) {
                segment.out.put(index, true);
                let number = segment.number;
                self.cursor = Some(SpoolId {
                    segment: number,
                    index: index + 1,
                });
                return Some(SpoolId {
                    segment: number,
                    index,
                });
            }
        }
        None
    }

    /// Takes out a segment.
    pub fn remove(&mut self, number: u64) -> Option<Segment> {
        self.position(number)
            .and_then(|at| self.segments.remove(at))
    }

    /// Sealed segments all of whose records are confirmed.
    pub fn finished(&self) -> Vec<u64> {
        let finished = self
            .segments
            .iter()
            .filter(|segment| segment.sealed && segment.unconfirmed() == 0);
        finished.map(|segment| segment.number).collect()
    }

    /// The oldest segment that nothing is appended to.
    pub fn oldest_sealed(&self) -> Option<u64> {
        let sealed = self.segments.iter().find(|segment| segment.sealed);
        sealed.map(|segment| segment.number)
    }

    /// Bytes, acks included.
    pub fn bytes(&self, ack_bytes: u64) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.size(ack_bytes))
            .sum()
    }

    /// Records on disk only: of this life, of earlier ones.
    pub fn pending(&self) -> (u64, u64) {
        self.segments
            .iter()
            .fold((0, 0), |(own, earlier), segment| match segment.earlier {
                true => (own, earlier + segment.pending()),
                false => (own + segment.pending(), earlier),
            })
    }

    /// Records that are not confirmed.
    pub fn unconfirmed(&self) -> u64 {
        self.segments.iter().map(Segment::unconfirmed).sum()
    }

    /// End of the window of about the oldest record that is not confirmed.
    pub fn oldest_end_ms(&self) -> Option<u64> {
        self.segments.iter().find_map(Segment::oldest_end_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(segment: u64, index: u32) -> SpoolId {
        SpoolId { segment, index }
    }

    fn filled(counts: &[u32]) -> Segments {
        let mut segments = Segments::default();
        for count in counts {
            let mut segment = Segment::new(segments.next_number(), 24, true);
            (0..*count).for_each(|n| segment.add(10, 1000 + u64::from(n)));
            segments.push(segment);
        }
        segments
    }

    #[test]
    fn the_oldest_comes_first_and_what_is_given_back_comes_again() {
        let mut segments = filled(&[2, 0, 2]);
        let taken: Vec<_> = std::iter::from_fn(|| segments.take_next()).collect();
        assert_eq!(taken, [id(1, 0), id(1, 1), id(3, 0), id(3, 1)]);
        assert_eq!(segments.pending(), (0, 0));
        assert!(segments.give_back(id(1, 1)) && !segments.give_back(id(9, 0)));
        assert_eq!(segments.take_next(), Some(id(1, 1)));
        assert_eq!(segments.take_next(), None);
    }

    #[test]
    fn a_segment_goes_when_all_of_it_is_confirmed() {
        let mut segments = filled(&[130, 1]);
        assert_eq!(segments.finished(), [0u64; 0]);
        for index in 0..130 {
            assert!(segments.confirm(id(1, index)) && !segments.confirm(id(1, index)));
        }
        assert_eq!(segments.finished(), [1]);
        assert_eq!(segments.oldest_end_ms(), Some(1000));
        assert_eq!(segments.remove(1).map(|segment| segment.records), Some(130));
        assert!(!segments.confirm(id(1, 0)));
        assert_eq!(segments.bytes(8), 34);
    }

    #[test]
    fn the_age_is_that_of_the_oldest_unconfirmed() {
        let mut segments = filled(&[200]);
        assert_eq!(segments.oldest_end_ms(), Some(1000));
        (0..140).for_each(|index| assert!(segments.confirm(id(1, index))));
        assert_eq!(segments.oldest_end_ms(), Some(1128));
    }

    proptest! {
        #[test]
        fn every_record_is_in_one_state(steps in prop::collection::vec((0u8..4, 1u64..4, 0u32..20), 0..200)) {
            let mut segments = filled(&[20, 7, 20]);
            let all = segments.iter().flat_map(|s| (0..s.records).map(|i| id(s.number, i)));
            let mut model: BTreeMap<SpoolId, u8> = all.map(|id| (id, 0)).collect();
            for (step, segment, index) in steps {
                let at = id(segment, index);
                match step {
                    0 => {
                        let expected = model.iter().find(|(_, state)| **state == 0).map(|(id, _)| *id);
                        prop_assert_eq!(segments.take_next(), expected);
                        if let Some(taken) = expected {
                            model.insert(taken, 1);
                        }
                    }
                    1 => if let Some(state) = model.get_mut(&at).filter(|state| **state == 1) {
                        *state = 0;
                        segments.give_back(at);
                    },
                    2 => {
                        let known = model.get(&at).is_some_and(|state| *state != 2);
                        prop_assert_eq!(segments.confirm(at), known);
                        if known {
                            model.insert(at, 2);
                        }
                    }
                    _ => {
                        segments.hand_out(at, 1);
                        if let Some(state) = model.get_mut(&at).filter(|state| **state == 0) {
                            *state = 1;
                        }
                    }
                }
                let count = |wanted: u8| model.values().filter(|state| **state == wanted).count() as u64;
                prop_assert_eq!(segments.pending(), (0, count(0)));
                prop_assert_eq!(segments.unconfirmed(), count(0) + count(1));
            }
        }
    }
}
