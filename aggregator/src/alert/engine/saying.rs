//! What is said of a rule on a stream.
//!
//! Input: notices of an episode or a suspicion, with what is known of the stream. Output: [`Out`]s in the order in which they happened; a
//! state is saved before its words are said, so that who takes over does not say them again as news.

use std::sync::Arc;

use super::tracked::Tracked;
use super::{Out, Said};
use crate::alert::changes::{Changes, LOOK_BACK_MS};
use crate::alert::content::{Alert, Record};
use crate::alert::episode::{FiredBy, Kind, Notice};
use crate::alert::evidence::Evidence;
use crate::alert::nodata::NoData;
use crate::alert::rule::{Rule, RuleMetric};
use crate::alert::suspect::{StreamDetector, Suspicion};
use crate::merge::Live;

/// What goes with everything that is said.
pub(super) struct Saying<'a> {
    pub live: &'a Live,
    pub changes: &'a Changes,
    pub now_ms: u64,
    pub tombstone_after_ms: u64,
    pub out: &'a mut Vec<Out>,
}

/// What the stream's own parts add to what a rule says.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub partition: i32,
    pub detector: Option<&'a StreamDetector>,
    pub no_data: Option<&'a NoData>,
    /// End of the span that the rules have looked at, Unix ms.
    pub at_ms: u64,
}

impl<'a> Known<'a> {
    /// With the nodes, for a rule that asks for them.
    pub(super) fn with_nodes(self, rule: &Rule, no_data: Option<&'a NoData>) -> Self {
        Self {
            no_data: no_data.filter(|_| rule.metric == RuleMetric::NoData),
            ..self
        }
    }

    pub(super) fn suspicion(&self) -> Option<Suspicion> {
        self.detector.and_then(StreamDetector::suspected)
    }

    fn baseline(&self) -> Option<f64> {
        let baseline = self.detector.map(StreamDetector::baseline);
        baseline.filter(|baseline| *baseline > 0.0)
    }
}

/// Whether it is said from the pulses alone, before a window could hold it.
fn is_from_pulses(notice: &Notice) -> bool {
    let nodes = matches!(notice.fired_by, Some(FiredBy::Nodes(_)));
    match notice.kind {
        Kind::Suspected | Kind::SuspectRepeated => true,
        Kind::Fired => nodes,
        _ => false,
    }
}

/// Says what an episode has decided.
pub(super) fn tell(
    tracked: &mut Tracked,
    notices: impl IntoIterator<Item = Notice>,
    known: &Known<'_>,
    saying: &mut Saying<'_>,
) {
    for mut notice in notices {
        if notice.kind == Kind::Fired {
            if let Some(suspicion) = known.suspicion() {
                tracked
                    .episode
                    .date_onset(&tracked.rule, suspicion.onset_ms);
                notice.onset_ms = tracked.episode.onset_ms().unwrap_or(notice.onset_ms);
            }
            end_suspicion(tracked, known, saying);
        }
        say(tracked, notice, known, saying);
    }
}

pub(super) fn end_suspicion(tracked: &mut Tracked, known: &Known<'_>, saying: &mut Saying<'_>) {
    if let Some(suspect) = tracked.suspect.take() {
        let (state, epoch) = (tracked.episode.state(), tracked.episode.owner_epoch());
        let notice = suspect.notice(Kind::SuspectEnded, state, epoch, saying.now_ms);
        say(tracked, notice, known, saying);
    }
}

pub(super) fn say(
    tracked: &mut Tracked,
    notice: Notice,
    known: &Known<'_>,
    saying: &mut Saying<'_>,
) {
    let (live, now_ms) = (saying.live, saying.now_ms);
    let (rule, key) = (Arc::clone(&tracked.rule), tracked.episode.key().clone());
    let mut evidence = Evidence::gather(live, &rule, &key.stream, known.at_ms, now_ms);
    evidence.baseline = known.baseline().filter(|_| rule.metric.is_in_pulses());
    if let Some(no_data) = known.no_data {
        evidence.nodes_expected = no_data.expected() as u64;
        let missing = no_data.missing(known.at_ms, rule.over_ms()).count() as u64;
        evidence.nodes_reported = evidence.nodes_expected - missing.min(evidence.nodes_expected);
        evidence.name_missing(no_data.missing(known.at_ms, rule.over_ms()));
    }
    if let Some(detector) = known.detector.filter(|_| is_from_pulses(&notice)) {
        evidence.see_nodes(&detector.views());
    }
    let since_ms = now_ms.saturating_sub(LOOK_BACK_MS);
    let serves = |node: &str| live.nodes().serves(node, &key.stream);
    evidence.changes = saying.changes.since(since_ms, &key.stream, serves);
    let record = Record::new(&rule, &key, &notice, tracked.suspect, &evidence);
    let alert = Alert::new(&rule, &key, &notice, &evidence);
    tracked.published_ms = Some(now_ms);
    tracked.save(known.partition, saying.out);
    saying.out.push(Out::Say(Box::new(Said { record, alert })));
}
