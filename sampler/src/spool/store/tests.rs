use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::sink::Stamp;

fn settings(directory: &Path, max_bytes: u64) -> StoreSettings {
    StoreSettings {
        directory: directory.to_path_buf(),
        max_bytes,
        resume: false,
        faults: None,
    }
}

fn record(stream: &str, sequence: u64, length: usize) -> Record {
    Record {
        kind: Kind::Window,
        key: stream.to_owned(),
        stamp: Stamp {
            instance: 5,
            sequence,
            end_ms: 1_000 * sequence,
        },
        payload: vec![1 + (sequence % 250) as u8; length],
    }
}

fn append(store: &mut Store, records: &[Record]) -> (SpoolId, Losses) {
    let mut batch = Batch::default();
    assert!(records.iter().all(|record| batch.push(record)));
    let mut losses = Losses::new();
    let first = store.append(&batch, &mut losses).expect("written");
    (first, losses)
}

fn drain(store: &mut Store) -> Vec<(SpoolId, Record)> {
    let mut losses = Losses::new();
    let records = store.next(usize::MAX, &mut losses).expect("read");
    assert_eq!(losses, Losses::new());
    records
        .into_iter()
        .map(|(id, record, _)| (id, record))
        .collect()
}

fn sequences(records: &[(SpoolId, Record)]) -> Vec<u64> {
    records
        .iter()
        .map(|(_, record)| record.stamp.sequence)
        .collect()
}

fn reopen(store: Store) -> (Store, Found) {
    reopen_by(store, None)
}

fn reopen_by(store: Store, newest: Option<&Reference>) -> (Store, Found) {
    let settings = store.settings.clone();
    drop(store);
    Store::open(settings, newest).expect("opened")
}

/// As the worker makes one at a window edge.
fn reference(store: &Store) -> Reference {
    Reference {
        end: store.segments().end(),
        confirmed: store.segments().confirmed(),
        ..Reference::default()
    }
}

const MIB: u64 = 1 << 20;

#[test]
fn a_new_life_gets_what_was_not_confirmed_and_the_bytes_are_the_same() {
    let place = tempfile::tempdir().expect("a directory");
    let (mut store, found) = Store::open(settings(place.path(), MIB), None).expect("opened");
    assert_eq!(found, Found::default());
    let records: Vec<Record> = (0..10).map(|n| record("sport", n, 100)).collect();
    let (first, _) = append(&mut store, &records);
    store.hand_out(first, 10);
    assert!(drain(&mut store).is_empty(), "the sink has them");
    for index in [0, 3, 9] {
        assert!(store.confirm(SpoolId { index, ..first }));
    }
    store.flush().expect("written");
    let (mut store, found) = reopen(store);
    assert_eq!(found.records, 7);
    let left = drain(&mut store);
    assert_eq!(sequences(&left), [1, 2, 4, 5, 6, 7, 8]);
    assert!(
        left.iter()
            .all(|(_, r)| *r == records[r.stamp.sequence as usize])
    );
    for (id, _) in left {
        store.confirm(id);
    }
    store.flush().expect("written");
    let files = fs::read_dir(place.path()).expect("read").count();
    assert_eq!(files, 1, "only the lock is left");
}

#[test]
fn what_a_reference_notes_needs_no_acks() {
    let place = tempfile::tempdir().expect("a directory");
    let (mut store, _) = Store::open(settings(place.path(), MIB), None).expect("opened");
    let records: Vec<Record> = (0..10).map(|n| record("sport", n, 100)).collect();
    let (first, _) = append(&mut store, &records);
    let at = |index| SpoolId { index, ..first };
    let acks = store.directory.acks(first.segment);
    (0..4).for_each(|index| assert!(store.confirm(at(index))));
    let noted = reference(&store);
    store.noted(&noted);
    assert!(store.is_flushed());
    // One that overtook others is not among the first: it gets its ack.
    assert!(store.confirm(at(7)));
    store.noted(&noted);
    assert!(!store.is_flushed() && !acks.exists());
    store.flush().expect("written");
    assert_eq!(fs::read(&acks).expect("read").len(), ACK_BYTES);
    let (mut store, found) = reopen_by(store, Some(&noted));
    assert_eq!(found.records, 5);
    assert_eq!(sequences(&drain(&mut store)), [4, 5, 6, 8, 9]);
    // What was noted of another segment says nothing of this one.
    let other = Reference {
        end: SpoolId {
            segment: first.segment + 1,
            index: 10,
        },
        confirmed: 10,
        ..noted
    };
    assert_eq!(reopen_by(store, Some(&other)).1.records, 9);
}

#[test]
fn pulses_and_giants_are_not_spooled() {
    let mut batch = Batch::default();
    let pulse = Record {
        kind: Kind::Pulse,
        ..record("sport", 1, 10)
    };
    assert!(!batch.push(&pulse) && !batch.push(&record("sport", 1, 5 << 20)));
    assert!(batch.is_empty());
}

#[test]
fn a_full_spool_drops_its_oldest_and_says_whose_they_were() {
    let place = tempfile::tempdir().expect("a directory");
    let (mut store, _) = Store::open(settings(place.path(), MIB), None).expect("opened");
    let mut lost = Losses::new();
    for sequence in 0..3_000 {
        let stream = ["sport", "news"][(sequence % 2) as usize];
        let (_, losses) = append(&mut store, &[record(stream, sequence, 600)]);
        for (whose, events) in losses {
            *lost.entry(whose).or_default() += events;
        }
        assert!(store.bytes() <= MIB);
    }
    let left = drain(&mut store);
    let gone = 3_000 - left.len() as u64;
    assert!(gone > 1_000, "{gone}");
    assert_eq!(sequences(&left), (gone..3_000).collect::<Vec<_>>());
    assert_eq!(lost.values().sum::<u64>(), gone);
    let of = |stream: &str| {
        lost.get(&Whose {
            stream: Some(stream.to_owned()),
            earlier: false,
        })
    };
    assert!(of("sport").is_some() && of("sport").abs_diff(of("news")) <= 1);
}

trait AbsDiff {
    fn abs_diff(self, other: Self) -> u64;
}

impl AbsDiff for Option<&u64> {
    fn abs_diff(self, other: Self) -> u64 {
        self.copied()
            .unwrap_or_default()
            .abs_diff(other.copied().unwrap_or_default())
    }
}

#[test]
fn what_the_sink_has_is_not_lost_with_its_segment() {
    let place = tempfile::tempdir().expect("a directory");
    let (mut store, _) = Store::open(settings(place.path(), MIB), None).expect("opened");
    let (first, _) = append(&mut store, &[record("sport", 0, 600)]);
    store.hand_out(first, 1);
    let mut lost = 0;
    for sequence in 1..3_000 {
        let (id, losses) = append(&mut store, &[record("sport", sequence, 600)]);
        store.hand_out(id, 1);
        lost += losses.values().sum::<u64>();
    }
    assert_eq!(lost, 0, "all of them are in memory");
    assert!(!store.confirm(first), "its segment is gone");
    assert!(!store.give_back(first));
}

#[test]
fn one_bad_record_costs_only_itself() {
    let place = tempfile::tempdir().expect("a directory");
    let (mut store, _) = Store::open(settings(place.path(), MIB), None).expect("opened");
    let records: Vec<Record> = (0..5).map(|n| record("sport", n, 100)).collect();
    let (first, _) = append(&mut store, &records);
    let path = store.directory.segment(first.segment);
    let mut bytes = fs::read(&path).expect("read");
    let length = format::record_bytes(&records[0]).expect("fits");
    bytes[HEAD_BYTES + 2 * length + 60] ^= 4;
    fs::write(&path, &bytes).expect("written");
    // While it runs, a record that does not check out is given up when its turn comes.
    let mut losses = Losses::new();
    let read = store.next(10, &mut losses).expect("read");
    assert_eq!((read.len(), losses.values().sum::<u64>()), (4, 1));
    for (id, ..) in read {
        store.give_back(id);
    }
    let (mut store, found) = reopen(store);
    assert_eq!((found.records, found.torn_bytes), (4, 0));
    assert_eq!(sequences(&drain(&mut store)), [0, 1, 3, 4]);
}

#[test]
fn what_nobody_saw_is_cut_where_it_is_counted_again() {
    let place = tempfile::tempdir().expect("a directory");
    let (mut store, _) = Store::open(settings(place.path(), MIB), None).expect("opened");
    append(
        &mut store,
        &[record("sport", 0, 10), record("sport", 1, 10)],
    );
    let reference = reference(&store);
    append(&mut store, &[record("sport", 2, 10)]);
    drop(store);
    let resumed = StoreSettings {
        resume: true,
        ..settings(place.path(), MIB)
    };
    let (mut store, found) = Store::open(resumed, Some(&reference)).expect("opened");
    assert_eq!((found.records, found.uncounted), (2, 1));
    let left = drain(&mut store);
    assert_eq!(sequences(&left), [0, 1]);
    // Numbers go on although all segments are gone, or a place could mean two records.
    left.iter().for_each(|(id, _)| assert!(store.confirm(*id)));
    store.flush().expect("written");
    drop(store);
    let (mut store, _) =
        Store::open(settings(place.path(), MIB), Some(&reference)).expect("opened");
    let (first, _) = append(&mut store, &[record("sport", 3, 10)]);
    assert!(first > reference.end);
}

#[test]
fn other_versions_and_strangers_are_set_aside() {
    let place = tempfile::tempdir().expect("a directory");
    let file = |name: &str| place.path().join(name);
    let mut newer = format::head(1);
    newer[8] = 2;
    let sum = crc32c::crc32c(&newer[..20]).to_le_bytes();
    newer[20..].copy_from_slice(&sum);
    fs::write(file("0000000000000001.seg"), newer).expect("written");
    fs::write(file("0000000000000002.seg"), b"somebody else's file").expect("written");
    fs::write(file("0000000000000003.seg"), format::head(4)).expect("written");
    let (mut store, found) = Store::open(settings(place.path(), MIB), None).expect("opened");
    assert_eq!((found.aside, found.records), (3, 0));
    for number in 1..=3 {
        assert!(file(&format!("{number:016x}.aside")).exists());
    }
    append(&mut store, &[record("sport", 0, 10)]);
    assert_eq!(reopen(store).1.records, 1);
}

#[test]
fn a_segment_that_cannot_be_read_keeps_nobody_from_counting() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("0000000000000005.seg");
    // Reading fails, as it does at a bad place of a disk.
    fs::create_dir(&path).expect("made");
    let (mut store, found) = Store::open(settings(place.path(), MIB), None).expect("opened");
    assert_eq!((found.aside, found.records), (1, 0));
    assert!(!path.exists() && path.with_extension("aside").exists());
    let (first, _) = append(&mut store, &[record("sport", 0, 10)]);
    assert_eq!(first.segment, 6, "its number is not given again");
}

#[test]
fn everything_that_was_written_is_to_be_synced_once() {
    let place = tempfile::tempdir().expect("a directory");
    let (mut store, _) = Store::open(settings(place.path(), MIB), None).expect("opened");
    assert!(store.take_unsynced().is_empty());
    for sequence in 0..200 {
        append(&mut store, &[record("sport", sequence, 900)]);
    }
    let segments = store.segments().iter().count();
    assert!(segments > 1, "sealed ones too");
    assert_eq!(
        store.take_unsynced().len(),
        segments + 1,
        "and the directory"
    );
    append(&mut store, &[record("sport", 200, 10)]);
    assert_eq!(store.take_unsynced().len(), 1);
    assert!(store.take_unsynced().is_empty());
}

#[test]
fn what_brokers_have_confirmed_is_not_synced() {
    let place = tempfile::tempdir().expect("a directory");
    let (mut store, _) = Store::open(settings(place.path(), MIB), None).expect("opened");
    let records = [record("sport", 0, 10), record("sport", 1, 10)];
    let (first, _) = append(&mut store, &records);
    store.confirm(first);
    assert!(store.is_unsynced(), "one is not confirmed");
    store.confirm(SpoolId { index: 1, ..first });
    assert!(!store.is_unsynced());
    append(&mut store, &[record("sport", 2, 10)]);
    assert_eq!(store.take_unsynced().len(), 2, "it, and the directory");
}

#[test]
fn a_failed_write_leaves_nothing_of_its_batch() {
    use crate::spool::Faults;
    use std::sync::atomic::{AtomicBool, Ordering};
    #[derive(Debug, Default)]
    struct Full(AtomicBool);
    impl Faults for Full {
        fn before_write(&self) -> io::Result<()> {
            match self.0.load(Ordering::Relaxed) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        }
    }
    let place = tempfile::tempdir().expect("a directory");
    let full = Arc::new(Full::default());
    let faulty = StoreSettings {
        faults: Some(full.clone()),
        ..settings(place.path(), MIB)
    };
    let (mut store, _) = Store::open(faulty, None).expect("opened");
    append(&mut store, &[record("sport", 0, 10)]);
    full.0.store(true, Ordering::Relaxed);
    let mut batch = Batch::default();
    batch.push(&record("sport", 1, 10));
    let error = store.append(&batch, &mut Losses::new()).expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    full.0.store(false, Ordering::Relaxed);
    append(&mut store, &[record("sport", 2, 10)]);
    assert_eq!(sequences(&drain(&mut store)), [0, 2]);
    let (mut store, found) = reopen(store);
    assert_eq!((found.records, found.torn_bytes), (2, 0));
    assert_eq!(sequences(&drain(&mut store)), [0, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Wherever a crash cuts the last segment, all records before the cut are there, and no other.
    #[test]
    fn a_torn_tail_is_cut(lengths in prop::collection::vec(0usize..300, 1..20), cut in 0usize..8_000, zeros in any::<bool>()) {
        let place = tempfile::tempdir().expect("a directory");
        let (mut store, _) = Store::open(settings(place.path(), MIB), None).expect("opened");
        let records: Vec<Record> = lengths.iter().enumerate().map(|(n, length)| record("sport", n as u64, *length)).collect();
        let (first, _) = append(&mut store, &records);
        let path = store.directory.segment(first.segment);
        drop(store);
        let bytes = fs::read(&path).expect("read");
        let at = cut % bytes.len();
        let mut torn = bytes[..at].to_vec();
        if zeros {
            // As a file system leaves it whose length came to the disk before its data.
            torn.resize(bytes.len(), 0);
        }
        fs::write(&path, &torn).expect("written");
        let mut ends = HEAD_BYTES;
        let whole = records.iter().take_while(|record| {
            ends += format::record_bytes(record).expect("fits");
            ends <= at
        });
        let expected: Vec<u64> = whole.map(|record| record.stamp.sequence).collect();
        let (mut store, found) = Store::open(settings(place.path(), MIB), None).expect("opened");
        prop_assert_eq!(found.records, expected.len() as u64);
        prop_assert_eq!(sequences(&drain(&mut store)), expected);
        append(&mut store, &[record("sport", 99, 5)]);
        let (mut store, again) = reopen(store);
        prop_assert_eq!(again.torn_bytes, 0, "what was cut once is whole");
        prop_assert_eq!(sequences(&drain(&mut store)).last().copied(), Some(99));
    }

    /// Any order of steps, and a new life at any time: each record is sent until it is confirmed, or counted as lost.
    /// References note what is confirmed at any time too; a new life reads the newest.
    #[test]
    fn nothing_is_lost_or_comes_back(steps in prop::collection::vec((0u8..7, any::<u16>()), 1..120)) {
        let place = tempfile::tempdir().expect("a directory");
        let (mut store, _) = Store::open(settings(place.path(), MIB), None).expect("opened");
        let (mut live, mut lost, mut sequence) = (BTreeSet::new(), 0, 0u64);
        let mut out: Vec<(SpoolId, u64)> = Vec::new();
        let mut newest: Option<Reference> = None;
        for (step, pick) in steps {
            match step {
                0 | 1 => {
                    let batch: Vec<Record> = (0..1 + pick % 40).map(|n| record("s", sequence + u64::from(n), 900)).collect();
                    let length = batch.iter().filter_map(format::record_bytes).sum::<usize>() + HEAD_BYTES + ACK_BYTES * batch.len();
                    if store.bytes() + length as u64 > MIB {
                        continue;
                    }
                    let (first, losses) = append(&mut store, &batch);
                    lost += losses.values().sum::<u64>();
                    live.extend(batch.iter().map(|record| record.stamp.sequence));
                    if step == 1 {
                        store.hand_out(first, batch.len() as u32);
                        out.extend((first.index..).map(|index| SpoolId { index, ..first }).zip(batch.iter().map(|r| r.stamp.sequence)));
                    }
                    sequence += batch.len() as u64;
                }
                2 => {
                    let mut losses = Losses::new();
                    for (id, record, _) in store.next(usize::from(pick % 50), &mut losses).expect("read") {
                        prop_assert!(live.contains(&record.stamp.sequence), "confirmed, and comes again");
                        out.push((id, record.stamp.sequence));
                    }
                    prop_assert!(losses.is_empty());
                }
                3 | 4 if !out.is_empty() => {
                    let (id, sequence) = out.swap_remove(usize::from(pick) % out.len());
                    if step == 3 {
                        store.confirm(id);
                        live.remove(&sequence);
                    } else {
                        store.give_back(id);
                    }
                }
                5 => {
                    store.flush().expect("written");
                    store = reopen_by(store, newest.as_ref()).0;
                    out.clear();
                }
                6 => {
                    let noted = reference(&store);
                    store.noted(&noted);
                    newest = Some(noted);
                }
                _ => {}
            }
        }
        store.flush().expect("written");
        prop_assert_eq!(lost, 0, "the bound was not reached");
        let left: BTreeSet<u64> = {
            let mut store = reopen_by(store, newest.as_ref()).0;
            drain(&mut store).into_iter().map(|(_, record)| record.stamp.sequence).collect()
        };
        prop_assert_eq!(left, live);
    }
}
