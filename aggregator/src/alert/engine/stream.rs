//! One stream that this aggregator owns, with its rules.
//!
//! Input: pulses, moments that are complete, the passing of time. Output: what is to be said and saved, in the order in which it
//! happened; a state is saved before its words are said, so that who takes over does not say them again as news.

use std::collections::BTreeMap;
use std::sync::Arc;

use sampler_event::{StreamPulse, WindowSum};

use super::saved::{SavedEpisode, SavedStream, stream_key};
use super::{Out, Said};
use crate::alert::changes::{Changes, LOOK_BACK_MS};
use crate::alert::content::{Alert, Record};
use crate::alert::episode::{Episode, Kind, Notice, Observation, State};
use crate::alert::evidence::Evidence;
use crate::alert::nodata::NoData;
use crate::alert::observe::observe;
use crate::alert::rule::{Key, Rule, RuleMetric};
use crate::alert::suspect::{Agreement, Change, StreamDetector, Suspicion};
use crate::alert::suspected::Suspect;
use crate::merge::{Live, Presence};

/// A suspicion that was read back and is not seen again for so long is over, ms.
const SEEN_AGAIN_MS: u64 = 10_000;

/// What goes with everything that is said.
pub(super) struct Saying<'a> {
    pub live: &'a Live,
    pub changes: &'a Changes,
    pub now_ms: u64,
    pub tombstone_after_ms: u64,
    pub out: &'a mut Vec<Out>,
}

/// A rule on the stream.
pub(super) struct Tracked {
    pub rule: Arc<Rule>,
    /// The rule is not configured any more.
    pub gone: bool,
    pub episode: Episode,
    pub suspect: Option<Suspect>,
    /// When a record was last put into the alert topic, Unix ms; none: there is none.
    pub published_ms: Option<u64>,
    /// A suspicion of another owner is held up to this time, Unix ms.
    held_until_ms: u64,
}

/// The stream.
pub(super) struct Stream {
    pub name: String,
    pub partition: i32,
    pub owner_epoch: u64,
    /// None: no rule wants one.
    pub detector: Option<StreamDetector>,
    /// Nodes that agreed before the history was read to its end.
    agreement: Option<Agreement>,
    /// End of the newest pulse that the detector has learned from, Unix ms.
    learned_ms: u64,
    /// End of the last span that the rules have looked at, Unix ms.
    pub evaluated_ms: u64,
    /// When what was learned is saved next, Unix ms.
    pub save_at_ms: u64,
    pub tracked: BTreeMap<String, Tracked>,
}

impl Tracked {
    pub(super) fn new(rule: Arc<Rule>, key: Key, owner_epoch: u64) -> Self {
        Self {
            rule,
            gone: false,
            episode: Episode::new(key, owner_epoch),
            suspect: None,
            published_ms: None,
            held_until_ms: 0,
        }
    }

    pub(super) fn restored(
        rule: Arc<Rule>,
        gone: bool,
        episode: Episode,
        saved: &SavedEpisode,
        now_ms: u64,
    ) -> Self {
        Self {
            rule,
            gone,
            episode,
            suspect: saved.suspect,
            published_ms: saved.published_ms,
            held_until_ms: now_ms.saturating_add(SEEN_AGAIN_MS),
        }
    }

    /// Nothing is on, and nothing is left in the topic.
    pub(super) fn is_over(&self) -> bool {
        self.episode.is_idle() && self.suspect.is_none() && self.published_ms.is_none()
    }

    /// Its rule is gone and nothing of it is on: one of the same name takes its place.
    pub(super) fn gives_way(&self) -> bool {
        self.gone && self.episode.id().is_none() && self.suspect.is_none()
    }

    fn save(&self, partition: i32, out: &mut Vec<Out>) {
        let saved = SavedEpisode {
            owner_epoch: self.episode.owner_epoch(),
            episode: self.episode.clone(),
            suspect: self.suspect,
            published_ms: self.published_ms,
            metric: self.rule.metric,
            severity: self.rule.severity.clone(),
            labels: self.rule.labels.clone(),
        };
        // Numbers that are none cannot be in it: nothing else fails.
        if let Ok(value) = serde_json::to_string(&saved) {
            out.push(Out::Save {
                partition,
                key: self.episode.key().to_string(),
                value: Some(value),
            });
        }
    }
}

/// What the stream's own parts add to what a rule says.
struct Known<'a> {
    partition: i32,
    suspicion: Option<Suspicion>,
    baseline: Option<f64>,
    no_data: Option<&'a NoData>,
    at_ms: u64,
}

/// Says what an episode has decided.
fn tell(
    tracked: &mut Tracked,
    notices: impl IntoIterator<Item = Notice>,
    known: &Known<'_>,
    saying: &mut Saying<'_>,
) {
    for mut notice in notices {
        if notice.kind == Kind::Fired {
            if let Some(suspicion) = known.suspicion {
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

fn end_suspicion(tracked: &mut Tracked, known: &Known<'_>, saying: &mut Saying<'_>) {
    if let Some(suspect) = tracked.suspect.take() {
        let (state, epoch) = (tracked.episode.state(), tracked.episode.owner_epoch());
        let notice = suspect.notice(Kind::SuspectEnded, state, epoch, saying.now_ms);
        say(tracked, notice, known, saying);
    }
}

fn say(tracked: &mut Tracked, notice: Notice, known: &Known<'_>, saying: &mut Saying<'_>) {
    let (live, now_ms) = (saying.live, saying.now_ms);
    let (rule, key) = (Arc::clone(&tracked.rule), tracked.episode.key().clone());
    let mut evidence = Evidence::gather(live, &rule, &key.stream, known.at_ms, now_ms);
    evidence.baseline = known.baseline.filter(|_| rule.metric.is_in_pulses());
    if let Some(no_data) = known.no_data {
        evidence.nodes_expected = no_data.expected() as u64;
        let missing = no_data.missing(known.at_ms, rule.over_ms()).count() as u64;
        evidence.nodes_reported = evidence.nodes_expected - missing.min(evidence.nodes_expected);
        evidence.name_missing(no_data.missing(known.at_ms, rule.over_ms()));
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

impl Stream {
    pub(super) fn new(name: String, partition: i32, owner_epoch: u64) -> Self {
        Self {
            name,
            partition,
            owner_epoch,
            detector: None,
            agreement: None,
            learned_ms: 0,
            evaluated_ms: 0,
            save_at_ms: 0,
            tracked: BTreeMap::new(),
        }
    }

    /// Goes on with what another owner has learned.
    pub(super) fn restore(&mut self, saved: SavedStream) {
        self.detector = saved.detector;
        self.learned_ms = saved.learned_ms;
    }

    fn known(&self, at_ms: u64) -> Known<'static> {
        let detector = self.detector.as_ref();
        Known {
            partition: self.partition,
            suspicion: detector.and_then(StreamDetector::suspected),
            baseline: detector.map(StreamDetector::baseline).filter(|b| *b > 0.0),
            no_data: None,
            at_ms,
        }
    }

    /// Takes in a pulse. While the history is read, nothing is said.
    pub(super) fn pulse(&mut self, pulse: &StreamPulse, live_now: bool, saying: &mut Saying<'_>) {
        let length_ms = u64::from(pulse.observed_ms.max(pulse.pulse_ms));
        let end_ms = pulse.pulse_start_ms.saturating_add(length_ms);
        let known = !live_now && end_ms <= self.learned_ms;
        let Some(detector) = self.detector.as_mut().filter(|_| !known) else {
            return;
        };
        let changes = detector.take(pulse);
        self.learned_ms = self.learned_ms.max(end_ms);
        for change in changes {
            match (live_now, change) {
                (true, change) => self.changed(change, saying),
                (false, Change::Agreed(agreement)) => self.agreement = Some(agreement),
                (false, Change::Ended { .. }) => self.agreement = None,
                (false, Change::Began(_)) => {}
            }
        }
    }

    /// The history is read: what it has left behind is news.
    pub(super) fn caught_up(&mut self, saying: &mut Saying<'_>) {
        let gone = self.tracked.iter().filter(|(_, tracked)| tracked.gone);
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| self.close(name, saying));
        if let Some(found) = self.detector.as_ref().and_then(StreamDetector::suspected) {
            self.changed(Change::Began(found), saying);
        }
        if let Some(agreement) = self.agreement.take() {
            self.changed(Change::Agreed(agreement), saying);
        }
    }

    fn changed(&mut self, change: Change, saying: &mut Saying<'_>) {
        let known = self.known(self.evaluated_ms);
        let fast = |tracked: &&mut Tracked| tracked.rule.fast && !tracked.gone;
        for tracked in self.tracked.values_mut().filter(fast) {
            match &change {
                Change::Began(found) => began(tracked, found, &known, saying),
                Change::Agreed(agreement) => {
                    if let Some(suspect) = &mut tracked.suspect {
                        suspect.agree(agreement);
                    }
                    let rule = Arc::clone(&tracked.rule);
                    let fired = tracked.episode.agree(&rule, agreement, saying.now_ms);
                    tell(tracked, fired, &known, saying);
                }
                Change::Ended { .. } => end_suspicion(tracked, &known, saying),
            }
        }
    }

    /// All rules look at a span that ends at `at_ms`; how many did.
    pub(super) fn look(&mut self, at_ms: u64, presence: Presence, saying: &mut Saying<'_>) -> u64 {
        self.evaluated_ms = at_ms;
        let mut sums: BTreeMap<u64, WindowSum> = BTreeMap::new();
        let (mut looked, known) = (0, self.known(at_ms));
        for tracked in self.tracked.values_mut() {
            let rule = Arc::clone(&tracked.rule);
            let in_force = rule.is_active(at_ms) && rule.metric != RuleMetric::NoData;
            if tracked.gone || !in_force {
                continue;
            }
            let over_ms = rule.over_ms();
            let sum = sums.entry(over_ms).or_insert_with(|| {
                saying
                    .live
                    .sum(&self.name, at_ms.saturating_sub(over_ms), at_ms)
            });
            let observation = observe(&rule, sum, at_ms, presence, false);
            looked += 1;
            see(tracked, &observation, &known, saying);
        }
        looked
    }

    /// The rules of missing data look at the nodes.
    pub(super) fn look_for_nodes(
        &mut self,
        no_data: &NoData,
        at_ms: u64,
        consuming: bool,
        saying: &mut Saying<'_>,
    ) {
        let known = Known {
            no_data: Some(no_data),
            ..self.known(at_ms)
        };
        for tracked in self.tracked.values_mut() {
            let rule = Arc::clone(&tracked.rule);
            if !tracked.gone && rule.metric == RuleMetric::NoData {
                let observation = no_data.observe(&rule, at_ms, consuming);
                see(tracked, &observation, &known, saying);
            }
        }
    }

    /// The time passes.
    pub(super) fn tick(&mut self, no_data: Option<&NoData>, saying: &mut Saying<'_>) {
        let now_ms = saying.now_ms;
        let change = self.detector.as_mut().and_then(|d| d.tick(now_ms));
        if let Some(change) = change {
            self.changed(change, saying);
        }
        let known = self.known(self.evaluated_ms);
        for tracked in self.tracked.values_mut() {
            let rule = Arc::clone(&tracked.rule);
            let known = Known {
                no_data: no_data.filter(|_| rule.metric == RuleMetric::NoData),
                ..known
            };
            let notice = tracked.episode.tick(&rule, now_ms);
            tell(tracked, notice, &known, saying);
            keep_suspecting(tracked, &known, saying);
            bury(tracked, known.partition, saying);
        }
        self.tracked
            .retain(|_, tracked| !(tracked.gone && tracked.is_over()));
    }

    /// A rule is not configured any more: what it raised ends.
    pub(super) fn close(&mut self, name: &str, saying: &mut Saying<'_>) {
        let known = self.known(self.evaluated_ms);
        if let Some(tracked) = self.tracked.get_mut(name) {
            tracked.gone = true;
            let notice = tracked.episode.close(saying.now_ms);
            tell(tracked, notice, &known, saying);
            end_suspicion(tracked, &known, saying);
        }
    }

    /// Saves what was learned.
    pub(super) fn save(&self, site: &str, no_data: Option<&NoData>, out: &mut Vec<Out>) {
        let saved = SavedStream {
            owner_epoch: self.owner_epoch,
            detector: self.detector.clone(),
            learned_ms: self.learned_ms,
            no_data: no_data.cloned(),
        };
        if saved.detector.is_none() && saved.no_data.is_none() {
            return;
        }
        if let Ok(value) = serde_json::to_string(&saved) {
            out.push(Out::Save {
                partition: self.partition,
                key: stream_key(site, &self.name),
                value: Some(value),
            });
        }
    }
}

fn see(
    tracked: &mut Tracked,
    observation: &Observation,
    known: &Known<'_>,
    saying: &mut Saying<'_>,
) {
    let rule = Arc::clone(&tracked.rule);
    let notices = tracked.episode.observe(&rule, observation, saying.now_ms);
    tell(tracked, notices, known, saying);
}

fn began(tracked: &mut Tracked, found: &Suspicion, known: &Known<'_>, saying: &mut Saying<'_>) {
    if tracked.episode.id().is_some() || !tracked.rule.is_active(found.at_ms) {
        return;
    }
    tracked.held_until_ms = 0;
    if tracked.suspect.is_some() {
        return;
    }
    let suspect = Suspect::new(found, saying.now_ms);
    tracked.suspect = Some(suspect);
    let epoch = tracked.episode.owner_epoch();
    let notice = suspect.notice(Kind::Suspected, State::Suspect, epoch, saying.now_ms);
    say(tracked, notice, known, saying);
}

/// Says a suspicion again, with what is seen by now; ends one of another owner that is not seen again.
fn keep_suspecting(tracked: &mut Tracked, known: &Known<'_>, saying: &mut Saying<'_>) {
    let Some(suspect) = &mut tracked.suspect else {
        return;
    };
    match known.suspicion {
        Some(found) => suspect.go_on(&found),
        None if saying.now_ms >= tracked.held_until_ms => {
            return end_suspicion(tracked, known, saying);
        }
        None => {}
    }
    if suspect.is_due(saying.now_ms) {
        suspect.said_ms = saying.now_ms;
        let suspect = *suspect;
        let epoch = tracked.episode.owner_epoch();
        let notice = suspect.notice(Kind::SuspectRepeated, State::Suspect, epoch, saying.now_ms);
        say(tracked, notice, known, saying);
    }
}

/// Takes the record of what has long been over out of the topic, and its state.
fn bury(tracked: &mut Tracked, partition: i32, saying: &mut Saying<'_>) {
    let over = tracked.episode.is_idle() && tracked.suspect.is_none();
    let due = tracked.published_ms.is_some_and(|published_ms| {
        saying.now_ms.saturating_sub(published_ms) >= saying.tombstone_after_ms
    });
    if over && due && tracked.episode.state() == State::Ok {
        tracked.published_ms = None;
        let key = tracked.episode.key().clone();
        saying.out.push(Out::Save {
            partition,
            key: key.to_string(),
            value: None,
        });
        saying.out.push(Out::Forget(key));
    }
}
