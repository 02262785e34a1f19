//! What nodes produce, by window, and whether the store holds it: all of it, once.

use std::collections::BTreeMap;
use std::path::Path;

use aggregator::store::{Embedded, Folded, Row, Store};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sampler_event::{Event, Flag, LifeCycle, NodeHeartbeat, StreamState, StreamWindow};

use crate::writer::Writer;

pub const STREAMS: usize = 6;
const NODES: u64 = 4;

/// What was produced, by stream and start of the window: windows and their segments.
pub type Truth = BTreeMap<(String, u64), (u64, u64)>;

/// Nodes that send windows in order, late, twice, and again as a backlog.
pub struct Site {
    pub random: StdRng,
    sequences: BTreeMap<(u64, usize), u64>,
    pub truth: Truth,
    /// Of a thousand segments of the first stream so many are retransmits.
    pub loss: u32,
    /// Sent, and to be sent once more.
    repeats: Vec<StreamWindow>,
    /// Not sent yet.
    late: Vec<StreamWindow>,
}

impl Site {
    pub fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            sequences: BTreeMap::new(),
            truth: Truth::new(),
            loss: 0,
            repeats: Vec::new(),
            late: Vec::new(),
        }
    }

    /// All windows of a second.
    pub fn second(&mut self, writer: &Writer, start_ms: u64) {
        for node in 0..NODES {
            for stream in 0..STREAMS {
                let window = self.window(node, stream, start_ms);
                match self.random.random_range(0..10_u32) {
                    0 => self.late.push(window),
                    1 => {
                        self.repeats.push(window.clone());
                        self.send(writer, window);
                    }
                    _ => self.send(writer, window),
                }
            }
        }
        // Some of what waits, of any age; a late one comes as what it is or as a backlog.
        for _ in 0..self.late.len() / 4 {
            let at = self.random.random_range(0..self.late.len());
            let mut window = self.late.swap_remove(at);
            if self.random.random_bool(0.5) {
                window.flags |= Flag::Replayed as u32;
            }
            self.send(writer, window);
        }
        for _ in 0..self.repeats.len() / 4 {
            let at = self.random.random_range(0..self.repeats.len());
            let mut window = self.repeats.swap_remove(at);
            window.flags |= Flag::Replayed as u32;
            writer.event(&Event::Window(Box::new(window)));
        }
    }

    fn window(&mut self, node: u64, stream: usize, start_ms: u64) -> StreamWindow {
        let sequence = self.sequences.entry((node, stream)).or_default();
        *sequence += 1;
        let sequence = *sequence;
        let sent = self.random.random_range(1..1_000_u32);
        let lost = if stream == 0 {
            sent * self.loss / 1_000
        } else {
            0
        };
        let groups = |sum: u32| {
            (0..16)
                .map(|g| sum / 16 + u32::from(g < sum % 16))
                .collect()
        };
        StreamWindow {
            node: format!("edge-{node}"),
            site: "ams1".to_owned(),
            stream: name(stream),
            instance: 7,
            sequence,
            window_start_ms: start_ms,
            window_ms: 1_000,
            observed_ms: 1_000,
            sampling_rate: 0.5,
            rate_epoch: 1,
            flows_seen: 4,
            flows_active: 40,
            flows_active_10s: 40,
            data_segs_out: sent.into(),
            retrans_segs: lost.into(),
            g_retrans_segs: groups(lost),
            g_data_segs_out: groups(sent),
            ..StreamWindow::default()
        }
    }

    fn send(&mut self, writer: &Writer, window: StreamWindow) {
        let key = (window.stream.clone(), window.window_start_ms);
        let truth = self.truth.entry(key).or_default();
        truth.0 += 1;
        truth.1 += window.data_segs_out;
        writer.event(&Event::Window(Box::new(window)));
    }

    /// Word of all nodes that they are there, so many seconds after the first.
    pub fn heartbeats(&self, writer: &Writer, start_ms: u64, number: u64) {
        let stream = |stream| StreamState {
            stream: name(stream),
            sampling_rate: 0.5,
            ..StreamState::default()
        };
        for node in 0..NODES {
            writer.event(&Event::Node(Box::new(NodeHeartbeat {
                node: format!("edge-{node}"),
                site: "ams1".to_owned(),
                instance: 7,
                sequence: number,
                window_start_ms: start_ms,
                window_ms: 1_000,
                life_cycle: LifeCycle::Run.into(),
                streams: (0..STREAMS).map(stream).collect(),
                ..NodeHeartbeat::default()
            })));
        }
    }

    /// Everything that was held back.
    pub fn end(&mut self, writer: &Writer) {
        for window in std::mem::take(&mut self.late) {
            self.send(writer, window);
        }
        writer.flush();
    }

    pub fn windows(&self) -> u64 {
        self.truth.values().map(|(windows, _)| windows).sum()
    }
}

fn name(stream: usize) -> String {
    format!("sport-{stream}")
}

/// Holds the store against what was produced: seconds and minutes, by stream and window.
pub fn compare(directory: &Path, truth: &Truth) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = Embedded::open(directory).expect("the store");
    runtime.block_on(is_whole(&store, truth));
}

/// The same of any store.
pub async fn is_whole(store: &dyn Store, truth: &Truth) {
    let mut minutes = Truth::new();
    let mut spans: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for ((stream, start_ms), (windows, sent)) in truth {
        let minute = minutes
            .entry((stream.clone(), start_ms / 60_000 * 60_000))
            .or_default();
        minute.0 += windows;
        minute.1 += sent;
        // In their order: the last one ends it.
        spans.entry(stream).or_insert((*start_ms, 0)).1 = start_ms + 1_000;
    }
    for (stream, (from_ms, to_ms)) in spans {
        let rows = store.seconds(stream, from_ms, to_ms).await.expect("rows");
        let mut stored = Truth::new();
        for row in &rows {
            let second = stored.entry((stream.to_owned(), row.window_start_ms));
            let second = second.or_default();
            second.0 += row.sums.windows;
            second.1 += row.sums.counters.data_segs_out;
            let pools = row.sums.pools.values();
            let groups: u64 = pools.flat_map(|pool| pool.groups.data_segs_out).sum();
            assert_eq!(
                groups, row.sums.counters.data_segs_out,
                "groups of {row:#?}"
            );
        }
        let produced = truth.iter().filter(|((of, _), _)| of == stream);
        for (second, expected) in produced {
            let of = |row: &&Row| row.window_start_ms == second.1;
            assert_eq!(
                stored.remove(second).as_ref(),
                Some(expected),
                "{second:?}: {:#?}",
                rows.iter().filter(of).collect::<Vec<_>>()
            );
        }
        assert_eq!(stored, Truth::new(), "never produced");
    }
    for ((stream, start_ms), expected) in &minutes {
        let span = (*start_ms, start_ms + 60_000);
        let rows = store.minutes(stream, span.0, span.1).await.expect("rows");
        let sums = Folded::of(&rows).sums;
        let stored = (sums.windows, sums.counters.data_segs_out);
        assert_eq!(stored, *expected, "minute {stream} {start_ms}");
        let rows = store
            .node_minutes(stream, span.0, span.1)
            .await
            .expect("rows");
        let stored = rows.iter().fold((0, 0), |sum, row| {
            (sum.0 + row.windows, sum.1 + row.counters.data_segs_out)
        });
        assert_eq!(stored, *expected, "nodes' minute {stream} {start_ms}");
    }
}
