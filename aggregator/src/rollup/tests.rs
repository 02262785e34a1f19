use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sampler_event::{Flag, StreamWindow};

use super::*;
use crate::merge::Presence;
use crate::store::testing::{self, BEGIN_MS};
use crate::store::{Batch, Checkpoint, Folded, NodeRow, Row, Sums};

const OPTIONS: Options = Options { lateness_ms: 2_000 };
const TOPIC: &str = "flowvitals.window.v1";

/// A record of the log.
#[derive(Clone, Debug)]
struct Record {
    window: StreamWindow,
    append_ms: u64,
}

/// The tables, upserted as a store does.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tables {
    seconds: BTreeMap<(String, u64, String), Row>,
    minutes: BTreeMap<(String, u64, String), Row>,
    nodes: BTreeMap<(String, u64, String, String), NodeRow>,
    checkpoint: Option<Checkpoint>,
}

impl Tables {
    fn write_rows(&mut self, batch: Batch) {
        for (table, rows) in [
            (&mut self.seconds, batch.seconds),
            (&mut self.minutes, batch.minutes),
        ] {
            for row in rows {
                let key = (
                    row.stream.clone(),
                    row.window_start_ms,
                    row.part.to_string(),
                );
                let stale = table
                    .get(&key)
                    .is_some_and(|known| known.version_us > row.version_us);
                if !stale {
                    table.insert(key, row);
                }
            }
        }
        for row in batch.node_minutes {
            let (stream, node) = (row.stream.clone(), row.node.clone());
            let key = (stream, row.window_start_ms, node, row.part.to_string());
            let known = self.nodes.get(&key);
            if known.is_none_or(|known| known.version_us <= row.version_us) {
                self.nodes.insert(key, row);
            }
        }
    }

    /// Without what says how it was written.
    fn content(&self) -> Self {
        let plain = |row: &Row| Row {
            version_us: 0,
            provisional: false,
            ..row.clone()
        };
        let rows = |table: &BTreeMap<(String, u64, String), Row>| {
            let rows = table.iter();
            rows.map(|(key, row)| (key.clone(), plain(row))).collect()
        };
        let nodes = self.nodes.iter().map(|(key, row)| {
            let plain = NodeRow {
                version_us: 0,
                provisional: false,
                ..row.clone()
            };
            (key.clone(), plain)
        });
        Self {
            seconds: rows(&self.seconds),
            minutes: rows(&self.minutes),
            nodes: nodes.collect(),
            checkpoint: None,
        }
    }
}

fn nobody(_: &str, _: u64) -> Presence {
    Presence::default()
}

/// A life that reads from the checkpoint on and dies after so many records.
fn live(tables: &mut Tables, log: &[Record], steps: &[Step]) -> Partition {
    let mut partition = match &tables.checkpoint {
        None => Partition::new(TOPIC, 0, Begin::Log, OPTIONS),
        Some(checkpoint) => Partition::restore(checkpoint, Begin::Log, OPTIONS).expect("ours"),
    };
    let mut offset = tables.checkpoint.as_ref().map_or(0, |known| known.offset) as usize;
    for step in steps {
        match step {
            Step::Read(count) => {
                for record in log.iter().skip(offset).take(*count) {
                    partition.take(&record.window, offset as i64, record.append_ms);
                    offset += 1;
                }
            }
            Step::WriteRows => tables.write_rows(partition.take_rows(nobody)),
            Step::WriteAll => {
                tables.write_rows(partition.take_rows(nobody));
                if let Some(checkpoint) = partition.checkpoint() {
                    tables.checkpoint = Some(checkpoint);
                }
            }
            Step::Provisional => partition.provisional(),
        }
    }
    partition
}

#[derive(Clone, Debug)]
enum Step {
    Read(usize),
    WriteRows,
    WriteAll,
    Provisional,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..20_usize).prop_map(Step::Read),
        2 => Just(Step::WriteRows),
        2 => Just(Step::WriteAll),
        1 => Just(Step::Provisional),
    ]
}

/// Reads to the end and writes everything.
fn finish() -> Vec<Step> {
    vec![Step::Read(usize::MAX), Step::Provisional, Step::WriteAll]
}

/// A log: windows at about their time, some late, some of a backlog, some twice; each event has a sequence of its own.
fn log() -> impl Strategy<Value = Vec<Record>> {
    let record = (testing::window(), 0..4_000_u64, 0..60_u8, 0..5_u8);
    proptest::collection::vec(record, 1..120).prop_map(|records| {
        let mut log = Vec::new();
        for (sequence, (mut window, delay_ms, kind, again)) in records.into_iter().enumerate() {
            window.sequence = sequence as u64;
            // Lengths differ too.
            if kind % 10 == 0 {
                window.window_ms = 5_000;
                window.window_start_ms -= window.window_start_ms % 5_000;
            }
            if kind < 6 {
                window.flags |= Flag::Replayed as u32;
            }
            // A clock that is fast, and one that comes very late.
            let append_ms = match kind {
                7 => window.window_start_ms.saturating_sub(5_000),
                8 => window.window_start_ms + 90_000,
                _ => window.window_start_ms + 1_000 + delay_ms,
            };
            for _ in 0..=usize::from(again == 0) {
                log.push(Record {
                    window: window.clone(),
                    append_ms,
                });
            }
        }
        // The broker's time rises; its order is what it is.
        log.sort_by_key(|record| record.append_ms);
        log
    })
}

/// Everything that was produced, by stream and start, each event once.
fn produced(log: &[Record]) -> BTreeMap<(String, u64), Sums> {
    let (mut seen, mut sums) = (BTreeSet::new(), BTreeMap::new());
    for Record { window, .. } in log {
        let identity = (window.node.clone(), window.instance, window.sequence);
        if seen.insert(identity) {
            let key = (window.stream.clone(), window.window_start_ms);
            let sum: &mut Sums = sums.entry(key).or_default();
            sum.add(window);
        }
    }
    sums
}

/// What adds up of rows.
fn additive(sums: &Sums) -> Sums {
    let mut plain = sums.clone();
    plain.gauges = Default::default();
    for pool in plain.pools.values_mut() {
        (pool.flows_active, pool.flows_active_10s) = (0, 0);
    }
    plain
}

fn stored(table: &BTreeMap<(String, u64, String), Row>) -> BTreeMap<(String, u64), Sums> {
    let mut rows = BTreeMap::<(String, u64), Vec<&Row>>::new();
    for row in table.values() {
        let key = (row.stream.clone(), row.window_start_ms);
        rows.entry(key).or_default().push(row);
    }
    let sums = rows.into_iter();
    sums.map(|(key, rows)| (key, additive(&Folded::of(rows).sums)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Lives that end anywhere, with anything written or not, leave what one long life leaves.
    #[test]
    fn the_log_alone_says_what_is_stored(
        log in log(),
        lives in proptest::collection::vec(proptest::collection::vec(step(), 0..12), 0..5),
    ) {
        let mut whole = Tables::default();
        live(&mut whole, &log, &finish());
        let mut broken = Tables::default();
        for steps in &lives {
            live(&mut broken, &log, steps);
        }
        live(&mut broken, &log, &finish());
        prop_assert_eq!(&broken.content().seconds, &whole.content().seconds);
        prop_assert_eq!(broken.content(), whole.content());
    }

    /// Σ over the parts in the store = Σ produced, by stream and window, and by minute and node.
    #[test]
    fn the_store_holds_what_was_produced(
        log in log(),
        lives in proptest::collection::vec(proptest::collection::vec(step(), 0..12), 0..4),
    ) {
        let mut tables = Tables::default();
        for steps in &lives {
            live(&mut tables, &log, steps);
        }
        live(&mut tables, &log, &finish());
        let produced = produced(&log);
        prop_assert_eq!(stored(&tables.seconds), produced.clone());
        let mut minutes = BTreeMap::<(String, u64), Sums>::new();
        for ((stream, start_ms), sums) in &produced {
            let minute = minutes.entry((stream.clone(), start_ms / 60_000 * 60_000)).or_default();
            minute.beside(sums);
        }
        prop_assert_eq!(stored(&tables.minutes), minutes);
        let windows: u64 = tables.nodes.values().map(|row| row.windows).sum();
        let retrans: u64 = tables.nodes.values().map(|row| row.counters.retrans_segs).sum();
        prop_assert_eq!(windows, produced.values().map(|sums| sums.windows).sum::<u64>());
        prop_assert_eq!(retrans, produced.values().map(|sums| sums.counters.retrans_segs).sum::<u64>());
    }

    /// An owner that is none any more and writes what it had changes nothing.
    #[test]
    fn a_zombie_takes_no_newer_rows_place(log in log(), cut in 0..100_usize) {
        let mut tables = Tables::default();
        let mut zombie = live(&mut tables, &log, &[Step::Read(cut), Step::Provisional]);
        live(&mut tables, &log, &finish());
        let expected = tables.clone();
        tables.write_rows(zombie.take_rows(nobody));
        prop_assert_eq!(tables.content(), expected.content());
    }

    #[test]
    fn merging_is_associative_and_commutative(
        windows in proptest::collection::vec(testing::window(), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let sum = |windows: &[StreamWindow]| {
            let mut sum = Sums::default();
            windows.iter().for_each(|window| sum.beside(&Sums::of(window)));
            sum
        };
        let whole = sum(&windows);
        let (left, right) = windows.split_at(cut.index(windows.len()));
        let mut parts = sum(right);
        parts.beside(&sum(left));
        prop_assert_eq!(parts, whole);
    }
}

fn window(node: &str, second: u64, sequence: u64) -> StreamWindow {
    StreamWindow {
        node: node.to_owned(),
        stream: "sport".to_owned(),
        instance: 7,
        sequence,
        window_start_ms: BEGIN_MS + second * 1_000,
        window_ms: 1_000,
        observed_ms: 1_000,
        sampling_rate: 1.0,
        rate_epoch: 1,
        flows_active: 40,
        flows_open: 50,
        retrans_segs: 1,
        ..StreamWindow::default()
    }
}

fn append_ms(window: &StreamWindow) -> u64 {
    window.window_start_ms + 1_050
}

#[test]
fn a_second_closes_when_the_watermark_reaches_its_end() {
    let mut partition = Partition::new(TOPIC, 0, Begin::Log, OPTIONS);
    for second in 0..5 {
        for (node, offset) in [("a", 2 * second), ("b", 2 * second + 1)] {
            let window = window(node, second, second);
            partition.take(&window, offset as i64, append_ms(&window));
        }
    }
    let batch = partition.take_rows(|_, _| Presence {
        expected: 3,
        reported: 1,
    });
    // The newest end is 5 s, the watermark 3 s.
    let starts: Vec<_> = batch
        .seconds
        .iter()
        .map(|row| row.window_start_ms)
        .collect();
    assert_eq!(starts, [0, 1, 2].map(|second| BEGIN_MS + second * 1_000));
    let row = &batch.seconds[0];
    assert_eq!(
        (row.part.to_string(), row.provisional),
        ("0".to_owned(), false)
    );
    assert_eq!(
        (row.nodes_expected, row.nodes_reported),
        (3, 2),
        "what is in it has reported"
    );
    assert_eq!(row.sums.gauges.flows_open, 100);
    assert_eq!(
        row.sums.pools.values().next().map(|pool| pool.flows_active),
        Some(80)
    );
    assert!(batch.minutes.is_empty());
    let checkpoint = partition.checkpoint().expect("nothing comes again");
    assert_eq!(
        (checkpoint.offset, checkpoint.position),
        (0, 10),
        "the minute is open"
    );
    assert_eq!(partition.counts().merged, 10);
}

#[test]
fn what_comes_later_is_a_part_of_its_own() {
    let mut partition = Partition::new(TOPIC, 0, Begin::Log, OPTIONS);
    for second in 0..70 {
        let window = window("a", second, second);
        partition.take(&window, second as i64, append_ms(&window));
    }
    drop(partition.take_rows(nobody));
    let late = window("b", 3, 9);
    partition.take(&late, 70, append_ms(&late) + 60_000);
    let batch = partition.take_rows(nobody);
    assert_eq!(
        (
            batch.seconds.len(),
            batch.minutes.len(),
            batch.node_minutes.len()
        ),
        (1, 1, 1)
    );
    assert_eq!(batch.seconds[0].part.to_string(), "b/0000000000000007/9");
    assert_eq!(batch.minutes[0].window_start_ms, BEGIN_MS);
    assert_eq!(
        batch.seconds[0].part.to_string().parse(),
        Ok(batch.seconds[0].part.clone())
    );
    assert_eq!(partition.counts().late, 1);
}

#[test]
fn what_began_before_the_first_record_is_passed_over() {
    let mut partition = Partition::new(TOPIC, 0, Begin::Middle, OPTIONS);
    for second in 0..130 {
        let window = window("a", second, second);
        partition.take(&window, 500 + second as i64, append_ms(&window));
    }
    partition.provisional();
    let batch = partition.take_rows(nobody);
    // The first record was appended after 1.05 s, and a clock may be 2 s fast: whole are windows from 3.05 s on.
    assert_eq!(batch.seconds[0].window_start_ms, BEGIN_MS + 4_000);
    let minutes: Vec<_> = batch
        .minutes
        .iter()
        .map(|row| row.window_start_ms)
        .collect();
    assert_eq!(minutes, [1, 2].map(|minute| BEGIN_MS + minute * 60_000));
    assert_eq!(partition.counts().passed_over, 4);
}

#[test]
fn another_versions_checkpoint_is_refused() {
    let checkpoint = Checkpoint {
        partition: 3,
        state: vec![8, 9],
        ..Checkpoint::default()
    };
    let error = Partition::restore(&checkpoint, Begin::Log, OPTIONS).expect_err("form 9");
    assert_eq!(
        error.to_string(),
        "checkpoint of partition 3: its form is 9, this version reads 1"
    );
}
