//! Wire form of a histogram: the index of the first bucket in use, then the counts of all buckets up to the last in use, where a
//! negative number −n stands for n empty buckets. No samples: an empty list.
//!
//! Input and output: the list as the protobuf fields carry it (packed zigzag varints: a run of any length below 64 takes one byte,
//! and so does a count below 64). There is one list for a histogram and one histogram for a list: what is not the shortest form is
//! refused. Limits: a count stops at 2^63 − 1 on the wire; reading stops at the last bucket of the layout, so that junk of any length
//! costs at most two steps per bucket and no memory.

use std::slice;

use thiserror::Error;

use crate::{Histogram, Layout};

/// Why a list is not a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// A bucket lies before the first or past the last one.
    #[error("histogram leaves the buckets 0 to {last}")]
    OutOfRange {
        /// Index of the last bucket.
        last: usize,
    },
    /// The list begins or ends with empty buckets, or has none in use.
    #[error("histogram begins or ends with empty buckets")]
    Padding,
    /// A run of empty buckets follows another one, or is written as a count of 0.
    #[error("histogram has a broken run of empty buckets")]
    Run,
    /// The counts add up to more than 2^64 − 1.
    #[error("histogram has too many samples")]
    Overflow,
}

/// The list for a histogram.
#[must_use]
pub fn encode(histogram: &Histogram) -> Vec<i64> {
    let mut list = Vec::new();
    let mut next = None;
    for bucket in histogram.iter() {
        match next {
            None => list.push(bucket.index as i64),
            Some(next) if next < bucket.index => list.push(next as i64 - bucket.index as i64),
            Some(_) => {}
        }
        list.push(i64::try_from(bucket.count).unwrap_or(i64::MAX));
        next = Some(bucket.index + 1);
    }
    list
}

/// The histogram for a list. Bounds are those of the buckets; see [`Histogram::tighten`].
///
/// # Errors
/// If the list is not one that [`encode`] can give.
pub fn decode(layout: Layout, list: &[i64]) -> Result<Histogram, CodecError> {
    let mut histogram = Histogram::new(layout);
    check(layout, list)?;
    add_to(&mut histogram, list, None);
    Ok(histogram)
}

/// Whether a list is a histogram of this layout.
pub(crate) fn check(layout: Layout, list: &[i64]) -> Result<(), CodecError> {
    let mut total: u64 = 0;
    for bucket in Buckets::new(layout, list)? {
        let (_, count) = bucket?;
        total = total.checked_add(count).ok_or(CodecError::Overflow)?;
    }
    Ok(())
}

/// Adds a list that [`check`] has passed; of any other, the part before its first error. The least and the greatest sample may
/// be known.
pub(crate) fn add_to(histogram: &mut Histogram, list: &[i64], known_us: Option<(u64, u64)>) {
    if let Ok(buckets) = Buckets::new(histogram.layout(), list) {
        histogram.add_part(buckets.map_while(Result::ok), known_us);
    }
}

/// Reads (index, count) pairs off a list; ends after the first error.
struct Buckets<'a> {
    end: usize,
    index: usize,
    rest: slice::Iter<'a, i64>,
}

impl<'a> Buckets<'a> {
    fn new(layout: Layout, list: &'a [i64]) -> Result<Self, CodecError> {
        let mut buckets = Self {
            end: layout.buckets(),
            index: 0,
            rest: list.iter(),
        };
        if let Some(&first) = buckets.rest.next() {
            buckets.advance(u64::try_from(first).map_err(|_| buckets.out_of_range())?)?;
            if buckets
                .rest
                .as_slice()
                .first()
                .is_none_or(|count| *count <= 0)
            {
                return Err(CodecError::Padding);
            }
        }
        Ok(buckets)
    }

    fn out_of_range(&self) -> CodecError {
        CodecError::OutOfRange { last: self.end - 1 }
    }

    /// Goes on by a number off the wire; there must be a bucket.
    fn advance(&mut self, buckets: u64) -> Result<(), CodecError> {
        let index = usize::try_from(buckets)
            .ok()
            .and_then(|buckets| self.index.checked_add(buckets));
        self.index = index
            .filter(|index| *index < self.end)
            .ok_or_else(|| self.out_of_range())?;
        Ok(())
    }

    fn step(&mut self, number: i64) -> Result<(usize, u64), CodecError> {
        let count = if number < 0 {
            self.advance(number.unsigned_abs())?;
            *self.rest.next().ok_or(CodecError::Padding)?
        } else {
            number
        };
        let count = u64::try_from(count)
            .ok()
            .filter(|count| *count > 0)
            .ok_or(CodecError::Run)?;
        if self.index >= self.end {
            return Err(self.out_of_range());
        }
        self.index += 1;
        Ok((self.index - 1, count))
    }
}

impl Iterator for Buckets<'_> {
    type Item = Result<(usize, u64), CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = *self.rest.next()?;
        let pair = self.step(number);
        if pair.is_err() {
            self.rest = [].iter();
        }
        Some(pair)
    }
}

#[cfg(test)]
mod tests {
    use super::{CodecError, decode, encode};
    use crate::{Histogram, Layout};

    const MOST: u64 = i64::MAX as u64;

    fn check(buckets: &[(usize, u64)], list: &[i64]) {
        let mut histogram = Histogram::new(Layout::COARSE);
        buckets
            .iter()
            .for_each(|(index, count)| histogram.add(*index, *count).expect("in range"));
        assert_eq!(encode(&histogram), list);
        assert_eq!(decode(Layout::COARSE, list), Ok(histogram));
    }

    #[test]
    fn known_lists() {
        check(&[], &[]);
        check(&[(0, 1)], &[0, 1]);
        check(&[(161, 9)], &[161, 9]);
        check(&[(3, 1), (4, 2), (6, 7), (10, 1)], &[3, 1, 2, -1, 7, -3, 1]);
        check(&[(0, 1), (161, MOST)], &[0, 1, -160, i64::MAX]);
    }

    #[test]
    fn counts_stop_at_what_the_wire_holds() {
        let mut histogram = Histogram::new(Layout::COARSE);
        histogram.add(5, u64::MAX).expect("in range");
        assert_eq!(encode(&histogram), [5, i64::MAX]);
    }

    #[test]
    fn junk_is_refused_with_its_reason() {
        let out = CodecError::OutOfRange { last: 161 };
        for (list, error) in [
            (&[5][..], CodecError::Padding),
            (&[5, -3, 1], CodecError::Padding),
            (&[5, 0, 1], CodecError::Padding),
            (&[5, 1, -3], CodecError::Padding),
            (&[5, 1, 0, 1], CodecError::Run),
            (&[5, 1, -2, 0], CodecError::Run),
            (&[5, 1, -2, -2, 1], CodecError::Run),
            (&[-1, 1], out),
            (&[162, 1], out),
            (&[i64::MAX, 1], out),
            (&[161, 1, 1], out),
            (&[100, 1, -61, 1], out),
            (&[100, 1, i64::MIN, 1], out),
            (&[0, i64::MAX, i64::MAX, 2], CodecError::Overflow),
        ] {
            assert_eq!(decode(Layout::COARSE, list), Err(error), "{list:?}");
        }
    }
}
