//! Keys of the embedded store's tables: bytes whose order is the order of the rows.
//!
//! Rows of an hour or a day lie together (the bucket comes first), within it those of a stream by time. So a span of a stream is one
//! range per bucket, new rows go to the end of the store, and what is too old is one range at its beginning. Names hold no byte 0.

/// Numbers of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Second,
    Minute,
    NodeMinute,
    /// Stream → day of its last row.
    Stream,
    Checkpoint,
    /// By alert key and episode.
    Alert,
    /// The same rows by time.
    AlertTime,
    Evidence,
}

impl Table {
    pub(super) const ALL: [Self; 8] = [
        Self::Second,
        Self::Minute,
        Self::NodeMinute,
        Self::Stream,
        Self::Checkpoint,
        Self::Alert,
        Self::AlertTime,
        Self::Evidence,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Second => "stream_second",
            Self::Minute => "stream_minute",
            Self::NodeMinute => "node_minute",
            Self::Stream => "stream",
            Self::Checkpoint => "checkpoint",
            Self::Alert => "alert_history",
            Self::AlertTime => "alert_time",
            Self::Evidence => "alert_evidence",
        }
    }

    /// Length of a bucket, ms.
    pub(super) const fn bucket_ms(self) -> u64 {
        match self {
            Self::Second => 3_600_000,
            _ => 86_400_000,
        }
    }
}

/// A key being written.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyBytes(Vec<u8>);

impl KeyBytes {
    /// Beginning of the keys of a moment's bucket.
    pub(super) fn bucket(table: Table, moment_ms: u64) -> Self {
        Self::default().number(moment_ms / table.bucket_ms())
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// A name and the byte that ends it.
    pub(super) fn name(mut self, name: &str) -> Self {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// A key being read; none where it ends too early.
pub(super) struct KeyReader<'a>(pub(super) &'a [u8]);

impl<'a> KeyReader<'a> {
    pub(super) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }

    pub(super) fn name(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let name = std::str::from_utf8(&self.0[..end]).ok()?;
        self.0 = &self.0[end + 1..];
        Some(name)
    }
}

/// The ranges of a stream's span, one per bucket, each half open.
pub(super) fn ranges(
    table: Table,
    stream: &str,
    from_ms: u64,
    to_ms: u64,
) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let length_ms = table.bucket_ms();
    let buckets = match from_ms < to_ms {
        true => from_ms / length_ms..to_ms.div_ceil(length_ms),
        false => 0..0,
    };
    buckets.map(move |bucket| {
        let key = |moment_ms: u64| {
            let bytes = KeyBytes::default().number(bucket).name(stream);
            bytes.number(moment_ms).done()
        };
        let end_ms = (bucket + 1).saturating_mul(length_ms);
        (key(from_ms), key(to_ms.min(end_ms)))
    })
}

/// The range of all keys that begin with these bytes.
pub(super) fn prefix(begin: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let mut end = begin.clone();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    (begin, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_cut_at_its_buckets() {
        let hour = 3_600_000;
        let spans: Vec<_> = ranges(Table::Second, "s", hour - 1_000, 2 * hour + 1).collect();
        assert_eq!(spans.len(), 3);
        for (from, to) in &spans {
            assert!(from < to);
        }
        assert_eq!(ranges(Table::Second, "s", hour, 2 * hour).count(), 1);
        assert_eq!(ranges(Table::Minute, "s", 5, 5).count(), 0);
        let key = |stream: &str, moment_ms| {
            let key = KeyBytes::bucket(Table::Second, moment_ms).name(stream);
            key.number(moment_ms).name("0").done()
        };
        let inside = |key: &Vec<u8>| spans.iter().any(|(from, to)| from <= key && key < to);
        assert!(inside(&key("s", hour - 1_000)) && inside(&key("s", 2 * hour)));
        assert!(!inside(&key("s", 2 * hour + 1)) && !inside(&key("s2", hour)));
        assert!(!inside(&key("s", hour - 2_000)) && !inside(&key("r", hour)));
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let bytes = KeyBytes::default().number(7).name("edge").number(9).done();
        let mut reader = KeyReader(&bytes);
        assert_eq!(
            (
                reader.number(),
                reader.name(),
                reader.number(),
                reader.number()
            ),
            (Some(7), Some("edge"), Some(9), None)
        );
        assert_eq!(prefix(vec![1, 255]), (vec![1, 255], vec![2]));
    }
}
