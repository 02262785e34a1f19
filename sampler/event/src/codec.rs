//! Wire form of a histogram: the index of the first bucket in use, then the counts of all buckets up to the last in use. A 0 is
//! not a count: it is followed by the length of a run of empty buckets. No samples: an empty list.
//!
//! Input and output: the list as the protobuf fields carry it (packed varints). There is one list for a histogram and one
//! histogram for a list: what is not the shortest form is refused. Limits: reading stops at the last bucket of the layout, so
//! that junk of any length costs at most two steps per bucket and no memory.

use std::slice;

use thiserror::Error;

use crate::{Histogram, Layout};

/// Why a list is not a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// A bucket lies past the last one.
    #[error("histogram goes past bucket {last}")]
    PastEnd {
        /// Index of the last bucket.
        last: usize,
    },
    /// The list begins or ends with empty buckets, or has none in use.
    #[error("histogram begins or ends with empty buckets")]
    Padding,
    /// A run of zeros has no length, the length 0, or another run after it.
    #[error("histogram has a broken run of zeros")]
    Run,
    /// The counts add up to more than 2^64 − 1.
    #[error("histogram has too many samples")]
    Overflow,
}

/// The list for a histogram.
#[must_use]
pub fn encode(histogram: &Histogram) -> Vec<u64> {
    let mut list = Vec::new();
    let mut next = None;
    for bucket in histogram.iter() {
        match next {
            None => list.push(bucket.index as u64),
            Some(next) if next < bucket.index => list.extend([0, (bucket.index - next) as u64]),
            Some(_) => {}
        }
        list.push(bucket.count);
        next = Some(bucket.index + 1);
    }
    list
}

/// The histogram for a list. Bounds are those of the buckets; see [`Histogram::tighten`].
///
/// # Errors
/// If the list is not one that [`encode`] can give.
pub fn decode(layout: Layout, list: &[u64]) -> Result<Histogram, CodecError> {
    let mut histogram = Histogram::new(layout);
    check(layout, list)?;
    add_to(&mut histogram, list, None);
    Ok(histogram)
}

/// Whether a list is a histogram of this layout.
pub(crate) fn check(layout: Layout, list: &[u64]) -> Result<(), CodecError> {
    let mut total: u64 = 0;
    for bucket in Buckets::new(layout, list)? {
        let (_, count) = bucket?;
        total = total.checked_add(count).ok_or(CodecError::Overflow)?;
    }
    Ok(())
}

/// Adds a list that [`check`] has passed; of any other, the part before its first error. The least and the greatest sample may
/// be known.
pub(crate) fn add_to(histogram: &mut Histogram, list: &[u64], known_us: Option<(u64, u64)>) {
    if let Ok(buckets) = Buckets::new(histogram.layout(), list) {
        histogram.add_part(buckets.map_while(Result::ok), known_us);
    }
}

/// Reads (index, count) pairs off a list; ends after the first error.
struct Buckets<'a> {
    end: usize,
    index: usize,
    rest: slice::Iter<'a, u64>,
}

impl<'a> Buckets<'a> {
    fn new(layout: Layout, list: &'a [u64]) -> Result<Self, CodecError> {
        let end = layout.buckets();
        let mut rest = list.iter();
        let index = match rest.next() {
            None => 0,
            Some(_) if matches!(rest.as_slice(), [] | [0, ..]) => return Err(CodecError::Padding),
            Some(&first) => bounded(first, end)?,
        };
        Ok(Self { end, index, rest })
    }

    fn step(&mut self, count: u64) -> Result<(usize, u64), CodecError> {
        let count = if count > 0 {
            count
        } else {
            let run = bounded(
                *self
                    .rest
                    .next()
                    .filter(|run| **run > 0)
                    .ok_or(CodecError::Run)?,
                self.end,
            )?;
            self.index += run;
            match *self.rest.next().ok_or(CodecError::Padding)? {
                0 => return Err(CodecError::Run),
                count => count,
            }
        };
        if self.index >= self.end {
            return Err(CodecError::PastEnd { last: self.end - 1 });
        }
        self.index += 1;
        Ok((self.index - 1, count))
    }
}

impl Iterator for Buckets<'_> {
    type Item = Result<(usize, u64), CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        let count = *self.rest.next()?;
        let pair = self.step(count);
        if pair.is_err() {
            self.rest = [].iter();
        }
        Some(pair)
    }
}

/// A number off the wire as an index or a length below the end.
fn bounded(number: u64, end: usize) -> Result<usize, CodecError> {
    usize::try_from(number)
        .ok()
        .filter(|number| *number < end)
        .ok_or(CodecError::PastEnd { last: end - 1 })
}

#[cfg(test)]
mod tests {
    use super::{CodecError, decode, encode};
    use crate::{Histogram, Layout};

    fn check(buckets: &[(usize, u64)], list: &[u64]) {
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
        check(
            &[(3, 1), (4, 2), (6, 7), (10, 1)],
            &[3, 1, 2, 0, 1, 7, 0, 3, 1],
        );
        check(
            &[(0, 1), (161, u64::MAX - 1)],
            &[0, 1, 0, 160, u64::MAX - 1],
        );
    }

    #[test]
    fn junk_is_refused_with_its_reason() {
        let past = CodecError::PastEnd { last: 161 };
        for (list, error) in [
            (&[5][..], CodecError::Padding),
            (&[5, 0, 3, 1], CodecError::Padding),
            (&[5, 1, 0, 3], CodecError::Padding),
            (&[5, 1, 0], CodecError::Run),
            (&[5, 1, 0, 0, 1], CodecError::Run),
            (&[5, 1, 0, 2, 0, 2, 1], CodecError::Run),
            (&[162, 1], past),
            (&[u64::MAX, 1], past),
            (&[161, 1, 1], past),
            (&[100, 1, 0, 61, 1], past),
            (&[100, 1, 0, u64::MAX, 1], past),
            (&[0, u64::MAX, 1], CodecError::Overflow),
        ] {
            assert_eq!(decode(Layout::COARSE, list), Err(error), "{list:?}");
        }
    }
}
