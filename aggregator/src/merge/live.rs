//! The last minutes of every stream, in memory.
//!
//! Input: windows that were not seen before, heartbeats. Output: totals and series over any span of whole windows. One sum per stream
//! and window start is kept; a question merges those inside its span, so that nothing is ever taken out of a sum again and old spans
//! answer like new ones. Limits: `horizon_ms` back from the newest event, [`MAX_STREAMS`] streams, `max_windows` windows of one node
//! and rate, about 1.65 kB each (`cargo xtask bench merge`): the oldest make room, and the horizon is shorter while they do.
//!
//! Event time only. The site's time is the end of the newest event whose clock can be believed: a window that ends more than
//! [`AHEAD_MS`] after the broker took it in, or that comes from a backlog, does not move it.

use std::collections::BTreeMap;

use sampler_event::{
    Flag, HistogramKind, Insufficient, NodeHeartbeat, Options, StreamWindow, SumError, WindowSum,
};

use super::answer::Evidence;
use super::{Answer, Nodes, Point, Presence, Quantity};

/// Streams kept; a site has fewer.
pub const MAX_STREAMS: usize = 4096;
/// A node whose clock is further ahead of the broker's does not move the site's time.
pub const AHEAD_MS: u64 = 2_000;

/// How far back questions can reach, unless it is said otherwise.
pub const HORIZON_MS: u64 = 120_000;

/// Windows that are held, unless it is said otherwise.
pub const MAX_WINDOWS: usize = 1_000_000;

/// How to merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveOptions {
    /// How far back questions can reach.
    pub horizon_ms: u64,
    /// Events of a window may arrive this long after its end.
    pub lateness_ms: u64,
    /// A node that was silent for so long is forgotten.
    pub node_forget_after_ms: u64,
    /// Windows held at most; two of one node and rate that begin together are one.
    pub max_windows: usize,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            horizon_ms: HORIZON_MS,
            lateness_ms: 2_000,
            node_forget_after_ms: 900_000,
            max_windows: MAX_WINDOWS,
        }
    }
}

/// What became of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in the sums.
    Merged,
    /// It is in the sums, but its window had been over for longer than the lateness.
    Late,
    /// Its window lies before the horizon.
    Expired,
    /// There are too many streams.
    Crowded,
    /// It contradicts what is known of its node.
    Refused,
}

/// A stream that no node has configured and no window named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such stream")]
pub struct Unknown;

/// All streams.
#[derive(Debug)]
pub struct Live {
    options: LiveOptions,
    nodes: Nodes,
    /// Per stream, sums by window start.
    streams: BTreeMap<String, BTreeMap<u64, WindowSum>>,
    /// End of the newest event, Unix ms.
    newest_ms: u64,
    /// Windows held, and those that made room before their time.
    held: usize,
    cut: u64,
    /// What began before it made room.
    cut_ms: u64,
    refused: Option<SumError>,
}

impl Live {
    /// Nothing yet.
    pub fn new(options: LiveOptions) -> Self {
        Self {
            options,
            nodes: Nodes::new(options.lateness_ms),
            streams: BTreeMap::new(),
            newest_ms: 0,
            held: 0,
            cut: 0,
            cut_ms: 0,
            refused: None,
        }
    }

    /// Takes in a heartbeat that the broker stamped with `append_ms`.
    pub fn hear(&mut self, heartbeat: &NodeHeartbeat, append_ms: u64) {
        let end_ms = heartbeat
            .window_start_ms
            .saturating_add(u64::from(heartbeat.window_ms));
        self.nodes.hear(heartbeat);
        self.advance(end_ms, append_ms);
    }

    /// Adds a window that was decoded, hence checked, and that the broker stamped with `append_ms`; duplicates are the caller's to drop.
    pub fn add(&mut self, window: &StreamWindow, append_ms: u64) -> Added {
        let start_ms = window.window_start_ms;
        let end_ms = start_ms.saturating_add(u64::from(window.window_ms));
        self.nodes.saw(window);
        let replayed = window.flags & Flag::Replayed as u32 != 0;
        let late = end_ms < self.watermark_ms();
        if !replayed {
            self.advance(end_ms, append_ms);
        }
        if start_ms < self.begin_ms() {
            return Added::Expired;
        }
        let crowded = self.streams.len() >= MAX_STREAMS;
        let stream = match self.streams.get_mut(&window.stream) {
            Some(stream) => stream,
            None if crowded => return Added::Crowded,
            None => self.streams.entry(window.stream.clone()).or_default(),
        };
        let sum = stream
            .entry(start_ms)
            .or_insert_with(|| WindowSum::new(window.stream.as_str()));
        let before = sum.strata_count();
        let added = sum.add_checked(window);
        self.held += sum.strata_count() - before;
        match added {
            Ok(()) if late => Added::Late,
            Ok(()) => Added::Merged,
            Err(error) => {
                self.refused = Some(error);
                Added::Refused
            }
        }
    }

    /// Why the last refused window was refused, once.
    pub fn take_refusal(&mut self) -> Option<SumError> {
        self.refused.take()
    }

    fn advance(&mut self, end_ms: u64, append_ms: u64) {
        if end_ms <= append_ms.saturating_add(AHEAD_MS) && end_ms > self.newest_ms {
            self.newest_ms = end_ms;
        }
    }

    /// Windows that begin before it are forgotten, Unix ms.
    pub fn begin_ms(&self) -> u64 {
        let begin_ms = self.newest_ms.saturating_sub(self.options.horizon_ms);
        begin_ms.max(self.cut_ms)
    }

    /// How far back questions can reach, ms: less than it should be where windows had to make room.
    pub fn horizon_ms(&self) -> u64 {
        let kept_ms = self.newest_ms.saturating_sub(self.cut_ms);
        self.options.horizon_ms.min(kept_ms)
    }

    /// Windows that are held.
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Windows that made room for newer ones before their time, since the start.
    pub const fn cut(&self) -> u64 {
        self.cut
    }

    /// Questions reach back so far from now on, or further; what was forgotten stays so.
    pub fn reach(&mut self, horizon_ms: u64) {
        self.options.horizon_ms = self.options.horizon_ms.max(horizon_ms);
    }

    /// The site's time, Unix ms; 0 before the first event.
    pub fn now_ms(&self) -> u64 {
        self.newest_ms
    }

    /// Windows that end before it should all be here.
    pub fn watermark_ms(&self) -> u64 {
        self.newest_ms.saturating_sub(self.options.lateness_ms)
    }

    /// Drops what lies before the horizon; to be called now and then.
    pub fn expire(&mut self) {
        let begin_ms = self.begin_ms();
        self.nodes.forget_before(
            self.newest_ms
                .saturating_sub(self.options.node_forget_after_ms),
        );
        self.drop_before(begin_ms);
        let before = self.held;
        while self.held > self.options.max_windows {
            let starts = self.streams.values().filter_map(|sums| sums.keys().next());
            let Some(oldest_ms) = starts.min() else { break };
            self.cut_ms = oldest_ms.saturating_add(1);
            self.drop_before(self.cut_ms);
        }
        self.cut = self.cut.saturating_add((before - self.held) as u64);
    }

    fn drop_before(&mut self, begin_ms: u64) {
        for sums in self.streams.values_mut() {
            while let Some(oldest) = sums.first_entry()
                && *oldest.key() < begin_ms
            {
                self.held -= oldest.remove().strata_count();
            }
        }
        self.streams.retain(|_, sums| !sums.is_empty());
    }

    /// Drops a stream: its partition has another owner now.
    pub fn forget(&mut self, stream: &str) {
        let gone = self.streams.remove(stream).unwrap_or_default();
        self.held -= gone.values().map(WindowSum::strata_count).sum::<usize>();
        self.nodes.forget_progress(stream);
    }

    /// The nodes.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Streams with windows, with how many sums each keeps.
    pub fn streams(&self) -> impl Iterator<Item = (&str, usize)> {
        let streams = self.streams.iter();
        streams.map(|(name, windows)| (name.as_str(), windows.len()))
    }

    /// The sums of a stream by the start of their windows, of those that start in a span.
    pub fn windows(
        &self,
        stream: &str,
        from_ms: u64,
        to_ms: u64,
    ) -> impl Iterator<Item = (u64, &WindowSum)> {
        let windows = self.streams.get(stream).filter(|_| from_ms < to_ms);
        let windows = windows.into_iter();
        let windows = windows.flat_map(move |windows| windows.range(from_ms..to_ms));
        windows.map(|(start_ms, sum)| (*start_ms, sum))
    }

    /// Everything inside a span, of a stream.
    pub fn sum(&self, stream: &str, from_ms: u64, to_ms: u64) -> WindowSum {
        let mut whole = WindowSum::new(stream);
        for (_, sum) in self.windows(stream, from_ms, to_ms) {
            // Epochs and sources contradict each other only if a node lies; its later windows are left out then.
            let _ = whole.merge(sum);
        }
        whole
    }

    /// What all flows of a stream did in the `over_ms` that end at `at_ms`, or now.
    ///
    /// # Errors
    /// If nobody has heard of the stream.
    pub fn total(
        &self,
        stream: &str,
        quantity: Quantity,
        over_ms: u64,
        at_ms: Option<u64>,
        options: &Options,
    ) -> Result<Answer, Unknown> {
        let presence = |to_ms| self.nodes.presence(stream, to_ms);
        if !self.streams.contains_key(stream) && !self.nodes.streams().contains(stream) {
            return Err(Unknown);
        }
        // Whole seconds: windows begin and end there.
        let to_ms = at_ms.unwrap_or(self.newest_ms) / 1_000 * 1_000;
        let from_ms = to_ms.saturating_sub(over_ms);
        let sum = self.sum(stream, from_ms, to_ms);
        Ok(self.answer(&sum, quantity, (from_ms, to_ms), presence(to_ms), options))
    }

    fn answer(
        &self,
        sum: &WindowSum,
        quantity: Quantity,
        span: (u64, u64),
        presence: Presence,
        options: &Options,
    ) -> Answer {
        let estimate = match main_source(sum) {
            None if quantity == Quantity::RttSlowRatio => Err(Insufficient::Denominator),
            source => quantity
                .metric(source.unwrap_or_default())
                .estimate(sum, options),
        };
        let evidence = Evidence {
            presence,
            flows_seen: sum.counters().flows_seen,
            biased: sum.flags() & Flag::Biased as u32 != 0,
            provisional: span.1 > self.watermark_ms(),
        };
        Answer::new(estimate, span, evidence)
    }

    /// A stream's sums in steps of `step_ms` from `from_ms` to `to_ms`; steps in which nobody had anything to say are left out.
    pub fn series(
        &self,
        stream: &str,
        from_ms: u64,
        to_ms: u64,
        step_ms: u64,
        options: &Options,
    ) -> Vec<Point> {
        let begin_ms = from_ms.max(self.begin_ms());
        let begin_ms = from_ms + (begin_ms - from_ms) / step_ms * step_ms;
        let ends = (1..).map(|step| begin_ms.saturating_add(step * step_ms));
        ends.take_while(|end_ms| *end_ms <= to_ms.min(self.newest_ms.saturating_add(step_ms)))
            .filter_map(|end_ms| self.point(stream, end_ms - step_ms, end_ms, options))
            .collect()
    }

    fn point(&self, stream: &str, from_ms: u64, to_ms: u64, options: &Options) -> Option<Point> {
        let sum = self.sum(stream, from_ms, to_ms);
        let (_, end_ms) = sum.span_ms()?;
        let presence = self.nodes.presence(stream, to_ms);
        let rtt = main_source(&sum).map(HistogramKind::Rtt);
        let quantile = |q| rtt.and_then(|kind| sum.quantile_us(kind, q));
        let gauges = sum.gauges_since(end_ms);
        Some(Point {
            from_ms,
            to_ms,
            counters: sum.counters(),
            retrans_ratio: self.answer(
                &sum,
                Quantity::RetransRatio,
                (from_ms, to_ms),
                presence,
                options,
            ),
            rtt_p50_us: quantile(0.5),
            rtt_p90_us: quantile(0.9),
            rtt_p99_us: quantile(0.99),
            flows_open: gauges.flows_open,
            stalls_open: gauges.stalls_open,
        })
    }
}

/// The source of most round-trip samples: two sources never merge.
#[must_use]
pub fn main_source(sum: &WindowSum) -> Option<i32> {
    let mut counts = BTreeMap::<i32, u64>::new();
    for (_, stratum) in sum.strata().filter(|(_, stratum)| stratum.rtt_source != 0) {
        let count = counts.entry(stratum.rtt_source).or_default();
        *count = count.saturating_add(stratum.counters.rtt_count);
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(source, _)| source)
}

#[cfg(test)]
mod tests {
    use sampler_event::{LifeCycle, StreamState};

    use super::*;

    const S: u64 = 1_000;
    /// A moment on a full second.
    const BEGIN_MS: u64 = 1_700_000_000_000;

    fn window(node: &str, start_ms: u64, retrans_segs: u64) -> StreamWindow {
        StreamWindow {
            node: node.to_owned(),
            stream: "sport".to_owned(),
            instance: 7,
            window_start_ms: start_ms,
            window_ms: 1_000,
            observed_ms: 1_000,
            sampling_rate: 1.0,
            rate_epoch: 1,
            flows_seen: 2,
            flows_active: 40,
            flows_active_10s: 40,
            flows_open: 40,
            retrans_segs,
            data_segs_out: 100,
            g_retrans_segs: spread(retrans_segs),
            g_data_segs_out: spread(100),
            ..StreamWindow::default()
        }
    }

    fn spread(n: u64) -> Vec<u32> {
        (0..16)
            .map(|g| (n / 16 + u64::from(g < n % 16)) as u32)
            .collect()
    }

    fn heartbeat(node: &str, start_ms: u64) -> NodeHeartbeat {
        NodeHeartbeat {
            node: node.to_owned(),
            instance: 7,
            window_start_ms: start_ms,
            window_ms: 1_000,
            life_cycle: LifeCycle::Run.into(),
            streams: vec![StreamState {
                stream: "sport".to_owned(),
                ..StreamState::default()
            }],
            ..NodeHeartbeat::default()
        }
    }

    /// `nodes` nodes whose windows of each of `seconds` have so many retransmits, with heartbeats.
    fn play(nodes: u64, seconds: u64, retrans_segs: impl Fn(u64) -> u64) -> Live {
        let mut live = Live::new(LiveOptions::default());
        for second in 0..seconds {
            let start_ms = BEGIN_MS + second * S;
            let append_ms = start_ms + S + 50;
            for node in 0..nodes {
                let name = format!("edge-{node}");
                let window = window(&name, start_ms, retrans_segs(second));
                assert_eq!(live.add(&window, append_ms), Added::Merged);
                live.hear(&heartbeat(&name, start_ms), append_ms);
            }
        }
        live
    }

    fn total(live: &Live, over_ms: u64, at_ms: Option<u64>) -> Answer {
        live.total(
            "sport",
            Quantity::RetransSegs,
            over_ms,
            at_ms,
            &Options::default(),
        )
        .expect("the stream is known")
    }

    /// The oldest make room, questions say that they reach less far, and the counts agree with what is there.
    #[test]
    fn the_number_of_windows_is_bounded() {
        let options = LiveOptions {
            max_windows: 30,
            ..LiveOptions::default()
        };
        let mut live = Live::new(options);
        for second in 0..20 {
            for node in ["a", "b", "c"] {
                let window = window(node, BEGIN_MS + second * S, 1);
                live.add(&window, BEGIN_MS + (second + 1) * S);
            }
            live.expire();
            let held: usize = live
                .streams
                .values()
                .flatten()
                .map(|(_, s)| s.strata_count())
                .sum();
            assert_eq!(live.held(), held);
            assert_eq!(held, 30.min(3 * (second as usize + 1)));
        }
        assert_eq!(live.cut(), 30);
        assert_eq!(live.horizon_ms(), 11 * S - 1);
        let whole = live.sum("sport", 0, u64::MAX);
        assert_eq!(whole.counters().retrans_segs, 30);
        // What made room does not come back.
        let late = window("d", BEGIN_MS, 1);
        assert_eq!(live.add(&late, BEGIN_MS + 20 * S), Added::Expired);
        live.forget("sport");
        assert_eq!((live.held(), live.streams().count()), (0, 0));
    }

    #[test]
    fn the_last_ten_seconds_slide() {
        let live = play(3, 30, |second| second);
        let last = total(&live, 10 * S, None);
        assert_eq!(last.value, Some((20..30).sum::<u64>() as f64 * 3.0));
        assert_eq!((last.low, last.high), (last.value, last.value), "a count");
        assert_eq!(
            (last.from_ms, last.to_ms),
            (BEGIN_MS + 20 * S, BEGIN_MS + 30 * S)
        );
        assert_eq!((last.nodes_expected, last.nodes_reported), (3, 3));
        assert_eq!((last.flows_seen, last.flows_sampled), (60, 120));
        // Newer than the watermark by default; two seconds later it stands.
        assert!(last.provisional);
        let earlier = total(&live, 10 * S, Some(BEGIN_MS + 15 * S + 700));
        assert_eq!(earlier.value, Some((5..15).sum::<u64>() as f64 * 3.0));
        assert!(!earlier.provisional);
    }

    #[test]
    fn a_node_that_falls_silent_is_missed_then_forgotten() {
        let mut live = play(2, 10, |_| 5);
        for second in 10..20 {
            let start_ms = BEGIN_MS + second * S;
            live.add(&window("edge-0", start_ms, 5), start_ms + S + 50);
            live.hear(&heartbeat("edge-0", start_ms), start_ms + S + 50);
        }
        let at = |second: u64| {
            let answer = total(&live, S, Some(BEGIN_MS + second * S));
            (
                answer.nodes_expected,
                answer.nodes_reported,
                answer.provisional,
            )
        };
        assert_eq!(at(10), (2, 2, false));
        assert_eq!(at(12), (2, 1, true));
        assert_eq!(at(14), (1, 1, false));
    }

    #[test]
    fn late_windows_count_and_those_before_the_horizon_do_not() {
        let mut live = play(1, 30, |_| 1);
        let now_ms = live.now_ms();
        let late = window("edge-9", now_ms - 5 * S, 4);
        assert_eq!(live.add(&late, now_ms + 50), Added::Late);
        assert_eq!(total(&live, 10 * S, None).value, Some(14.0));
        let old = window("edge-9", now_ms - 121 * S, 4);
        assert_eq!(live.add(&old, now_ms + 50), Added::Expired);
        live.hear(&heartbeat("edge-0", now_ms + 110 * S), now_ms + 111 * S);
        live.expire();
        assert_eq!(live.streams().map(|(_, sums)| sums).sum::<usize>(), 9);
    }

    #[test]
    fn a_fast_clock_and_a_backlog_do_not_move_the_time() {
        let mut live = play(1, 5, |_| 1);
        let now_ms = live.now_ms();
        live.add(&window("edge-8", now_ms + 60 * S, 1), now_ms + 50);
        live.hear(&heartbeat("edge-8", now_ms + 60 * S), now_ms + 50);
        let mut replayed = window("edge-7", now_ms, 1);
        replayed.flags = Flag::Replayed as u32;
        live.add(&replayed, now_ms + 10 * S);
        assert_eq!(live.now_ms(), now_ms);
    }

    #[test]
    fn a_contradiction_is_refused_and_said() {
        let mut live = play(1, 1, |_| 1);
        let mut other_rate = window("edge-0", BEGIN_MS, 1);
        other_rate.sampling_rate = 0.5;
        assert_eq!(live.add(&other_rate, BEGIN_MS + S), Added::Refused);
        assert!(matches!(
            live.take_refusal(),
            Some(SumError::RateConflict { .. })
        ));
        assert_eq!(live.take_refusal(), None);
        assert_eq!(total(&live, S, None).value, Some(1.0));
    }

    #[test]
    fn unknown_silent_and_thin_streams_are_told_apart() {
        let mut live = play(1, 3, |_| 1);
        let ask = |live: &Live, stream| {
            live.total(stream, Quantity::RetransRatio, S, None, &Options::default())
        };
        assert_eq!(ask(&live, "other"), Err(Unknown));
        let mut quiet = heartbeat("edge-0", BEGIN_MS + 3 * S);
        quiet.streams[0].stream = "silent".to_owned();
        live.hear(&quiet, BEGIN_MS + 4 * S);
        let silent = ask(&live, "silent").expect("configured");
        assert_eq!((silent.value, silent.reason), (None, Some("insufficient")));
        assert_eq!(silent.nodes_reported, 1);
    }

    #[test]
    fn a_series_adds_up_to_its_total() {
        let live = play(2, 25, |second| second);
        let (from_ms, to_ms) = (BEGIN_MS, BEGIN_MS + 25 * S);
        let options = Options::default();
        for step_ms in [S, 5 * S, 10 * S] {
            let series = live.series("sport", from_ms, to_ms, step_ms, &options);
            let sum: u64 = series.iter().map(|p| p.counters.retrans_segs).sum();
            let whole = 25 * S / step_ms * (step_ms / S);
            assert_eq!(series.len() as u64, 25 * S / step_ms);
            assert_eq!(sum, (0..whole).sum::<u64>() * 2, "step {step_ms}");
        }
        assert!(live.series("other", from_ms, to_ms, S, &options).is_empty());
    }
}
