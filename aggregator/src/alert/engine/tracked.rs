//! One rule on one stream: its episode, and what is suspected beside it.
//!
//! Input: observations, what the change detector sees, the passing of time. Output: what is to be said and saved.

use std::sync::Arc;

use super::Out;
use super::saved::SavedEpisode;
use super::saying::{Known, Saying, end_suspicion, say, tell};
use crate::alert::episode::{Episode, Kind, Observation, RESOLVED_REPEAT_MS, State};
use crate::alert::rule::{Key, Rule};
use crate::alert::suspect::Suspicion;
use crate::alert::suspected::Suspect;

/// A suspicion that was read back and is not seen again for so long is over, ms.
const SEEN_AGAIN_MS: u64 = 10_000;

/// A rule on the stream.
pub(super) struct Tracked {
    pub rule: Arc<Rule>,
    /// The rule is not configured any more.
    pub gone: bool,
    pub episode: Episode,
    pub suspect: Option<Suspect>,
    /// When a record was last put into the alert topic, Unix ms; none: there is none.
    pub published_ms: Option<u64>,
    /// Another owner said the last word.
    taken_over: bool,
    /// A suspicion of another owner is held up to this time, Unix ms.
    held_until_ms: u64,
}

impl Tracked {
    pub(super) fn new(rule: Arc<Rule>, key: Key, owner_epoch: u64) -> Self {
        Self {
            rule,
            gone: false,
            episode: Episode::new(key, owner_epoch),
            suspect: None,
            published_ms: None,
            taken_over: false,
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
            taken_over: true,
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

    pub(super) fn save(&self, partition: i32, out: &mut Vec<Out>) {
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

pub(super) fn see(
    tracked: &mut Tracked,
    observation: &Observation,
    known: &Known<'_>,
    saying: &mut Saying<'_>,
) {
    let rule = Arc::clone(&tracked.rule);
    let notices = tracked.episode.observe(&rule, observation, saying.now_ms);
    tell(tracked, notices, known, saying);
}

pub(super) fn began(
    tracked: &mut Tracked,
    found: &Suspicion,
    known: &Known<'_>,
    saying: &mut Saying<'_>,
) {
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
pub(super) fn keep_suspecting(tracked: &mut Tracked, known: &Known<'_>, saying: &mut Saying<'_>) {
    let Some(suspect) = &mut tracked.suspect else {
        return;
    };
    match known.suspicion() {
        Some(found) => suspect.go_on(&found),
        None if saying.now_ms >= tracked.held_until_ms => {
            return end_suspicion(tracked, known, saying);
        }
        None => {}
    }
    if suspect.is_due(saying.now_ms) {
        repeat_suspicion(tracked, known, saying);
    }
}

fn repeat_suspicion(tracked: &mut Tracked, known: &Known<'_>, saying: &mut Saying<'_>) {
    if let Some(suspect) = &mut tracked.suspect {
        suspect.said_ms = saying.now_ms;
        let suspect = *suspect;
        let epoch = tracked.episode.owner_epoch();
        let notice = suspect.notice(Kind::SuspectRepeated, State::Suspect, epoch, saying.now_ms);
        say(tracked, notice, known, saying);
    }
}

/// Says again where it stands, if another owner said the last word: who is killed between its state and the word leaves nothing in the
/// topic, and what comes next would hide it for good.
pub(super) fn resume(tracked: &mut Tracked, known: &Known<'_>, saying: &mut Saying<'_>) {
    if !std::mem::take(&mut tracked.taken_over) {
        return;
    }
    let Some(published_ms) = tracked.published_ms else {
        return;
    };
    let notice = tracked.episode.resume(saying.now_ms);
    let is_nothing = notice.is_none() && tracked.suspect.is_none();
    let recent = saying.now_ms.saturating_sub(published_ms) <= RESOLVED_REPEAT_MS;
    let nothing = (is_nothing && recent).then(|| tracked.episode.nothing(saying.now_ms));
    tell(tracked, notice.or(nothing), known, saying);
    repeat_suspicion(tracked, known, saying);
}

/// Takes the record of what has long been over out of the topic, and its state.
pub(super) fn bury(tracked: &mut Tracked, partition: i32, saying: &mut Saying<'_>) {
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
