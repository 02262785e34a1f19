//! One partition of the window topic.

use std::collections::BTreeMap;

use sampler_event::{Event, Flag, StreamWindow};

use super::open::{Growth, OpenNodeRow, OpenRow, Write};
use super::state::State;
use crate::input::{Key, Sequences, Taken, Totals};
use crate::merge::{AHEAD_MS, Presence};
use crate::store::{Batch, Checkpoint, Part, StoreError, Sums};

/// Streams of one partition that have open rows; windows of more are counted and dropped.
pub const MAX_STREAMS: usize = 4096;
/// Length of a minute.
const MINUTE_MS: u64 = 60_000;

/// How to roll up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A window closes so long after its end, in the partition's own time.
    pub lateness_ms: u64,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With the first record that the partition ever had.
    Log,
    /// Somewhere: what came before is not known.
    Middle,
}

/// What became of the windows, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In a row that was open.
    pub merged: u64,
    /// A part of its own: its window was closed.
    pub late: u64,
    /// There before.
    pub duplicate: u64,
    /// Of a window that began before the first record that was read.
    pub passed_over: u64,
    /// Of one stream too many.
    pub crowded: u64,
    /// Read again for rows that were open at the checkpoint.
    pub again: u64,
}

/// Open rows by end and start, then by stream: those that close first come first.
type Opens<R> = BTreeMap<(u64, u64), BTreeMap<String, R>>;

/// A partition.
#[derive(Debug)]
pub struct Partition {
    topic: String,
    number: i32,
    options: Options,
    pub(super) state: State,
    pub(super) sequences: Sequences,
    /// Of the events between the checkpoint's offsets; none when they are through.
    again: Option<Sequences>,
    /// Events before the first record read are gone: rows that had them cannot be whole.
    cut: bool,
    seconds: Opens<OpenRow>,
    minutes: Opens<OpenRow>,
    node_minutes: Opens<BTreeMap<String, OpenNodeRow>>,
    written: Pending,
    counts: Counts,
}

/// Rows that wait to be taken, without the nodes' presence, which is not in the log.
#[derive(Debug, Default)]
struct Pending {
    batch: Batch,
    /// Length of the rows' windows, for what their presence is asked for: seconds in their order.
    second_ends_ms: Vec<u64>,
}

impl Partition {
    /// A partition of which nothing is known.
    #[must_use]
    pub fn new(topic: &str, number: i32, begin: Begin, options: Options) -> Self {
        Self {
            topic: topic.to_owned(),
            number,
            options,
            state: State::default(),
            sequences: Sequences::default(),
            again: None,
            cut: begin == Begin::Middle,
            seconds: Opens::new(),
            minutes: Opens::new(),
            node_minutes: Opens::new(),
            written: Pending::default(),
            counts: Counts::default(),
        }
    }

    /// A partition that goes on from a checkpoint. If the log no longer has its offset, `begin` is [`Begin::Middle`].
    ///
    /// # Errors
    /// If another version wrote it.
    pub fn restore(
        checkpoint: &Checkpoint,
        begin: Begin,
        options: Options,
    ) -> Result<Self, StoreError> {
        let (state, sequences) = State::decode(checkpoint)?;
        Ok(Self {
            state,
            sequences,
            again: (checkpoint.offset < checkpoint.position).then(Sequences::default),
            ..Self::new(&checkpoint.topic, checkpoint.partition, begin, options)
        })
    }

    /// Takes in a window with its offset and the broker's time. Offsets rise.
    pub fn take(&mut self, window: &StreamWindow, offset: i64, append_ms: u64) {
        if std::mem::take(&mut self.cut) {
            // Its window began after this record was appended: all of it comes after this record.
            let first_ms = append_ms.saturating_add(AHEAD_MS);
            self.state.begin_ms = self.state.begin_ms.max(first_ms);
        }
        if offset < self.state.position {
            self.take_again(window, offset, append_ms);
            return;
        }
        self.again = None;
        self.state.position = offset.saturating_add(1);
        let version_us = self.state.version_us.saturating_add(1);
        self.state.version_us = version_us.max(append_ms.saturating_mul(1_000));
        let key = Key::of(window);
        if self.sequences.take(key, window.sequence, append_ms) == Taken::Duplicate {
            self.counts.duplicate += 1;
            return;
        }
        self.merge(window, offset);
        let replayed = window.flags & Flag::Replayed as u32 != 0;
        let end_ms = end_ms(window);
        if !replayed && end_ms <= append_ms.saturating_add(AHEAD_MS) {
            self.advance(end_ms.saturating_sub(self.options.lateness_ms));
        }
    }

    /// Between the checkpoint's offsets: only rows that were open at its position still need their events.
    fn take_again(&mut self, window: &StreamWindow, offset: i64, append_ms: u64) {
        let Some(again) = &mut self.again else { return };
        let new = again.take(Key::of(window), window.sequence, append_ms) == Taken::New;
        if new {
            self.counts.again += 1;
            for table in Table::ALL {
                if self.is_open(table, window) {
                    self.grow(table, window, offset);
                }
            }
        }
        if offset.saturating_add(1) >= self.state.position {
            self.again = None;
        }
    }

    fn merge(&mut self, window: &StreamWindow, offset: i64) {
        let begin_ms = self.state.begin_ms;
        if window.window_start_ms < begin_ms {
            self.counts.passed_over += 1;
            return;
        }
        if self.is_crowded(window) {
            self.counts.crowded += 1;
            return;
        }
        match self.is_open(Table::Seconds, window) {
            true => self.counts.merged += 1,
            false => self.counts.late += 1,
        }
        for table in Table::ALL {
            if self.is_open(table, window) {
                self.grow(table, window, offset);
            } else if table.start_ms(window) >= begin_ms {
                self.write_late(table, window);
            }
        }
    }

    /// Whether the window's row can still grow: it had not closed, and nothing of it was missed.
    fn is_open(&self, table: Table, window: &StreamWindow) -> bool {
        table.end_ms(window) > self.state.watermark_ms
            && table.start_ms(window) >= self.state.begin_ms
    }

    /// Whether the window's stream would be one too many: its minute is where every stream has a row the longest.
    fn is_crowded(&self, window: &StreamWindow) -> bool {
        let key = Table::Minutes.key(window);
        self.minutes
            .get(&key)
            .is_some_and(|rows| rows.len() >= MAX_STREAMS && !rows.contains_key(&window.stream))
    }

    fn grow(&mut self, table: Table, window: &StreamWindow, offset: i64) {
        let key = table.key(window);
        let opens = match table {
            Table::Seconds => &mut self.seconds,
            Table::Minutes => &mut self.minutes,
            Table::NodeMinutes => {
                let streams = self.node_minutes.entry(key).or_default();
                let nodes = entry(streams, &window.stream, BTreeMap::new);
                let row = entry(nodes, &window.node, || OpenNodeRow::new(offset));
                return row.add(window, offset);
            }
        };
        let rows = opens.entry(key).or_default();
        entry(rows, &window.stream, || OpenRow::new(offset)).add(window, offset);
    }

    /// Writes an event as a part of its own.
    fn write_late(&mut self, table: Table, window: &StreamWindow) {
        let write = Write {
            stream: &window.stream,
            window_start_ms: table.start_ms(window),
            part: Part::of(window),
            version_us: self.state.version_us,
            provisional: false,
        };
        if table == Table::NodeMinutes {
            let mut row = OpenNodeRow::new(0);
            row.add(window, 0);
            let row = row.row(write, &window.node);
            return self.written.batch.node_minutes.push(row);
        }
        let row = write.row(Sums::of(window), Presence::default(), 1);
        self.written.push(table, row, table.end_ms(window));
    }

    /// Moves the watermark, and closes what ends there or before.
    fn advance(&mut self, watermark_ms: u64) {
        if watermark_ms <= self.state.watermark_ms {
            return;
        }
        self.state.watermark_ms = watermark_ms;
        let version_us = self.state.version_us;
        for (table, opens) in [
            (Table::Seconds, &mut self.seconds),
            (Table::Minutes, &mut self.minutes),
        ] {
            while let Some(((end_ms, start_ms), rows)) = pop_closed(opens, watermark_ms) {
                for (stream, open) in rows {
                    let write = closed(&stream, table, (end_ms, start_ms), version_us);
                    self.written
                        .push(table, open.row(write, Presence::default()), end_ms);
                }
            }
        }
        while let Some((key, streams)) = pop_closed(&mut self.node_minutes, watermark_ms) {
            for (stream, nodes) in streams {
                for (node, open) in nodes {
                    let write = closed(&stream, Table::NodeMinutes, key, version_us);
                    self.written.batch.node_minutes.push(open.row(write, &node));
                }
            }
        }
    }

    /// Writes what is open and not written yet, without closing it: for a partition that has fallen silent.
    pub fn provisional(&mut self) {
        if self.again.is_some() {
            return;
        }
        let version_us = self.state.version_us;
        for (table, opens) in [
            (Table::Seconds, &mut self.seconds),
            (Table::Minutes, &mut self.minutes),
        ] {
            for (key, rows) in opens {
                for (stream, open) in rows.iter_mut().filter(|(_, row)| row.growth.changed) {
                    open.growth.changed = false;
                    let write = Write {
                        provisional: true,
                        ..closed(stream, table, *key, version_us)
                    };
                    self.written
                        .push(table, open.row(write, Presence::default()), key.0);
                }
            }
        }
        for (key, streams) in &mut self.node_minutes {
            for (stream, nodes) in streams {
                for (node, open) in nodes.iter_mut().filter(|(_, row)| row.growth.changed) {
                    open.growth.changed = false;
                    let write = Write {
                        provisional: true,
                        ..closed(stream, Table::NodeMinutes, *key, version_us)
                    };
                    self.written.batch.node_minutes.push(open.row(write, node));
                }
            }
        }
    }

    /// Takes the rows that wait, with the presence of nodes in a stream at a moment. A checkpoint that is taken after it may be
    /// written only with these rows or after them.
    pub fn take_rows(&mut self, presence: impl Fn(&str, u64) -> Presence) -> Batch {
        let Pending {
            mut batch,
            second_ends_ms,
        } = std::mem::take(&mut self.written);
        let seconds = batch.seconds.iter_mut().zip(second_ends_ms);
        let minutes = batch.minutes.iter_mut().map(|row| {
            let end_ms = row.window_start_ms.saturating_add(MINUTE_MS);
            (row, end_ms)
        });
        for (row, end_ms) in seconds.chain(minutes) {
            let known = presence(&row.stream, end_ms);
            let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            row.nodes_reported = row.nodes_reported.max(number(known.reported));
            row.nodes_expected = row
                .nodes_expected
                .max(number(known.expected))
                .max(row.nodes_reported);
        }
        batch
    }

    /// How far it is; none as long as events before the last checkpoint's position come again.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        if self.again.is_some() {
            return None;
        }
        Some(Checkpoint {
            topic: self.topic.clone(),
            partition: self.number,
            offset: self.needed_offset(),
            position: self.state.position,
            watermark_ms: self.state.watermark_ms,
            version_us: self.state.version_us,
            state: self.state.encode(&self.sequences),
        })
    }

    /// The lowest offset that an open row still needs.
    fn needed_offset(&self) -> i64 {
        let rows = self.seconds.values().chain(self.minutes.values());
        let rows = rows.flat_map(BTreeMap::values).map(|row| row.growth);
        let nodes = self.node_minutes.values().flat_map(BTreeMap::values);
        let nodes = nodes.flat_map(BTreeMap::values).map(|row| row.growth);
        let needed = rows
            .chain(nodes)
            .map(|Growth { first_offset, .. }| first_offset);
        needed.fold(self.state.position, i64::min)
    }

    /// Offset after the last event that was taken in.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.state.position
    }

    /// Windows that end here or before are closed, Unix ms.
    #[must_use]
    pub fn watermark_ms(&self) -> u64 {
        self.state.watermark_ms
    }

    /// What became of the windows.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What was seen of the sequences, and how many are missing.
    #[must_use]
    pub fn sequences(&self) -> (Totals, u64) {
        (self.sequences.totals(), self.sequences.missing_now())
    }

    /// Rows that wait to be taken.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.written.batch.rows()
    }

    /// Rows that still grow, of streams.
    #[must_use]
    pub fn open_rows(&self) -> usize {
        let rows = self.seconds.values().chain(self.minutes.values());
        rows.map(BTreeMap::len).sum()
    }
}

impl Pending {
    fn push(&mut self, table: Table, row: crate::store::Row, end_ms: u64) {
        match table {
            Table::Seconds => {
                self.batch.seconds.push(row);
                self.second_ends_ms.push(end_ms);
            }
            Table::Minutes | Table::NodeMinutes => self.batch.minutes.push(row),
        }
    }
}

/// The tables that a window goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Seconds,
    Minutes,
    NodeMinutes,
}

impl Table {
    const ALL: [Self; 3] = [Self::Seconds, Self::Minutes, Self::NodeMinutes];

    /// Start of the window's row.
    fn start_ms(self, window: &StreamWindow) -> u64 {
        let start_ms = window.window_start_ms;
        match self {
            Self::Seconds => start_ms,
            Self::Minutes | Self::NodeMinutes => start_ms - start_ms % MINUTE_MS,
        }
    }

    /// End of the window's row. All lengths of windows divide a minute, so that none reaches beyond the minute in which it starts.
    fn end_ms(self, window: &StreamWindow) -> u64 {
        match self {
            Self::Seconds => end_ms(window),
            Self::Minutes | Self::NodeMinutes => self.start_ms(window).saturating_add(MINUTE_MS),
        }
    }

    fn key(self, window: &StreamWindow) -> (u64, u64) {
        (self.end_ms(window), self.start_ms(window))
    }
}

/// Nominal end of a window.
fn end_ms(window: &StreamWindow) -> u64 {
    let length_ms = u64::from(window.window_ms);
    window.window_start_ms.saturating_add(length_ms)
}

/// The first entry that ends at the watermark or before it.
fn pop_closed<R>(
    opens: &mut Opens<R>,
    watermark_ms: u64,
) -> Option<((u64, u64), BTreeMap<String, R>)> {
    let first = opens.first_entry()?;
    (first.key().0 <= watermark_ms).then(|| first.remove_entry())
}

fn closed(
    stream: &str,
    table: Table,
    (end_ms, start_ms): (u64, u64),
    version_us: u64,
) -> Write<'_> {
    let length_ms = match table {
        Table::Seconds => u32::try_from(end_ms.saturating_sub(start_ms)).unwrap_or(u32::MAX),
        // Windows of every length are in one row.
        Table::Minutes | Table::NodeMinutes => 1_000,
    };
    Write {
        stream,
        window_start_ms: start_ms,
        part: Part::closed(length_ms),
        version_us,
        provisional: false,
    }
}

/// The value of a name, made if it is not there; the name is copied only then.
fn entry<'a, V>(
    map: &'a mut BTreeMap<String, V>,
    name: &str,
    new: impl FnOnce() -> V,
) -> &'a mut V {
    if !map.contains_key(name) {
        map.insert(name.to_owned(), new());
    }
    map.get_mut(name).expect("it was inserted")
}

impl Partition {
    /// Takes in an event; of the window topic there are only windows.
    pub fn take_event(&mut self, event: &Event, offset: i64, append_ms: u64) {
        if let Event::Window(window) = event {
            self.take(window, offset, append_ms);
        }
    }
}
