//! `/api/v1/alerts…`: what was said of alerts, by whichever member; now from memory, of a span or of an episode that is over from
//! the store, with the windows around its onset.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use sampler_event::{Message, StreamWindow};
use serde::Serialize;
use utoipa::ToSchema;

use super::parameter::{Kind, Parameter};
use super::query::{Asked, Asks};
use super::{ApiError, ErrorBody, Refused};
use crate::alert::{self, Record};
use crate::daemon::Site;
use crate::query::Source;
use crate::store::{AlertRow, EvidenceRow, Store, StoreError};

const STATE: Parameter = Parameter {
    name: "state",
    about: "Only alerts in this state; `on` is firing or resolving.",
    kind: Kind::Word(&["ok", "pending", "firing", "resolving", "suspect", "on"]),
    required: false,
};
const STREAM: Parameter = named("stream", "Only alerts of this stream.");
const SEVERITY: Parameter = named("severity", "Only alerts of this severity.");
const KEY: Parameter = Parameter {
    name: "key",
    about: "What the alert is about: rule|site|stream.",
    kind: Kind::AlertKey,
    required: true,
};
const EPISODE: Parameter = Parameter {
    name: "episode",
    about: "Id of the episode.",
    kind: Kind::EpisodeId,
    required: true,
};

const FROM_MS: Parameter = super::streams::moment(
    "from_ms",
    "With it or to_ms: alerts that changed in a span, from the store. Begin, Unix ms; absent: a day before to_ms.",
);
const TO_MS: Parameter = super::streams::moment("to_ms", "End of the span, Unix ms; absent: now.");
const LIMIT: Parameter = Parameter {
    name: "limit",
    about: "Alerts of a span at most, the newest.",
    kind: Kind::Whole {
        range: 1..=1_000,
        step: 1,
        default: Some(100),
    },
    required: false,
};
const EVIDENCE: Parameter = Parameter {
    name: "evidence",
    about: "Windows around the onset at most, those nearest to it.",
    kind: Kind::Whole {
        range: 0..=1_000,
        step: 1,
        default: Some(100),
    },
    required: false,
};
/// Changes of a span that are looked through.
const MOST_CHANGES: usize = 10_000;

const fn named(name: &'static str, about: &'static str) -> Parameter {
    Parameter {
        name,
        about,
        kind: Kind::Name,
        required: false,
    }
}

/// What `/api/v1/alerts` can be asked.
pub struct AlertsAsks;

impl Asks for AlertsAsks {
    const QUERY: &'static [&'static Parameter] =
        &[&STATE, &STREAM, &SEVERITY, &FROM_MS, &TO_MS, &LIMIT];
}

/// What `/api/v1/alerts/{key}/{episode}` can be asked.
pub struct EpisodeAsks;

impl Asks for EpisodeAsks {
    const PATH: &'static [&'static Parameter] = &[&KEY, &EPISODE];
    const QUERY: &'static [&'static Parameter] = &[&EVIDENCE];
}

/// Alerts of the site.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertList {
    /// Name of the site.
    pub site: String,
    /// The last record of each, by key; of a span that of each episode, the newest first.
    pub alerts: Vec<Record>,
    /// Where they came from.
    pub source: Source,
}

/// Alerts of the site, whichever member owns them.
#[utoipa::path(
    get,
    path = "/api/v1/alerts",
    tag = "alerts",
    params(Asked<AlertsAsks>),
    responses(
        (status = 200, description = "The last record of each.", body = AlertList),
        (status = 404, description = "There is no store to answer for a span.", body = ErrorBody),
        (status = 422, description = "The span is empty.", body = ErrorBody),
        Refused,
    )
)]
pub async fn list(
    State(site): State<Arc<Site>>,
    asked: Asked<AlertsAsks>,
) -> Result<Json<AlertList>, ApiError> {
    let (alerts, source) = match (asked.whole(&FROM_MS), asked.whole(&TO_MS)) {
        (None, None) => {
            let board = site.boards().board();
            let wanted = |record: &&Record| is_wanted(record, &asked);
            let alerts = board.records().filter(wanted).cloned().collect();
            (alerts, Source::Memory)
        }
        (from_ms, to_ms) => (changed(&site, from_ms, to_ms, &asked).await?, Source::Store),
    };
    Ok(Json(AlertList {
        site: site.name().to_owned(),
        alerts,
        source,
    }))
}

fn is_wanted(record: &Record, asked: &Asked<AlertsAsks>) -> bool {
    // An absent parameter is empty, and asks for all.
    let fits = |wanted: &str, found: Option<&str>| wanted.is_empty() || found == Some(wanted);
    let severity = record.labels.get("severity").map(String::as_str);
    has_state(record, asked.text(&STATE))
        && fits(asked.text(&STREAM), Some(&record.key.stream))
        && fits(asked.text(&SEVERITY), severity)
}

/// The last record of each episode that changed in a span.
async fn changed(
    site: &Site,
    from_ms: Option<u64>,
    to_ms: Option<u64>,
    asked: &Asked<AlertsAsks>,
) -> Result<Vec<Record>, ApiError> {
    let to_ms = to_ms.unwrap_or_else(|| site.now_ms().saturating_add(1));
    let from_ms = from_ms.unwrap_or_else(|| to_ms.saturating_sub(86_400_000));
    if to_ms <= from_ms {
        return Err(ApiError::Unprocessable(
            "to_ms is not after from_ms".to_owned(),
        ));
    }
    let store = site.store().ok_or_else(no_store)?;
    let changes = store.alerts(from_ms, to_ms, MOST_CHANGES).await?;
    let mut seen = BTreeSet::new();
    let newest = changes.iter().filter(|change| {
        let episode = (change.key.as_str(), change.episode.as_str());
        seen.insert(episode)
    });
    let records = newest
        .filter_map(read)
        .filter(|record| is_wanted(record, asked));
    let limit = asked.whole(&LIMIT).unwrap_or_default();
    Ok(records.take(limit as usize).collect())
}

/// The record of a change; none if another version wrote it.
fn read(change: &AlertRow) -> Option<Record> {
    serde_json::from_slice(&change.value).ok()
}

fn no_store() -> ApiError {
    ApiError::NotFound("there is no store here: what is over is not known".to_owned())
}

fn has_state(record: &Record, wanted: &str) -> bool {
    use crate::alert::State as S;
    let state = record.notice.state;
    match wanted {
        "" => true,
        "ok" => state == S::Ok,
        "pending" => state == S::Pending,
        "firing" => state == S::Firing,
        "resolving" => state == S::Resolving,
        "suspect" => state == S::Suspect || record.suspect.is_some(),
        _ => matches!(state, S::Firing | S::Resolving),
    }
}

/// One episode.
#[derive(Debug, Serialize, ToSchema)]
pub struct EpisodeAnswer {
    /// Its last record.
    #[serde(flatten)]
    pub record: Record,
    /// How it went, oldest first; empty without a store.
    pub changes: Vec<Change>,
    /// Windows around its onset, by time; they are in the store some 70 s after it.
    pub evidence: Vec<EvidenceWindow>,
    /// How many there are in the store.
    pub evidence_windows: u64,
    /// Where all of it came from.
    pub source: Source,
}

/// A change of an episode.
#[derive(Debug, Serialize, ToSchema)]
pub struct Change {
    /// When it was said, Unix ms.
    pub at_ms: u64,
    /// What happened.
    pub kind: alert::Kind,
    /// State after it.
    pub state: alert::State,
}

/// A window of one node, as it came.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvidenceWindow {
    /// Its identity: node, instance, sequence.
    pub id: String,
    /// The event, with the names of its schema.
    #[schema(value_type = Object)]
    pub window: StreamWindow,
}

/// An episode: its last record, how it went, and the windows around its onset.
#[utoipa::path(
    get,
    path = "/api/v1/alerts/{key}/{episode}",
    tag = "alerts",
    params(Asked<EpisodeAsks>),
    responses(
        (status = 200, description = "The episode.", body = EpisodeAnswer),
        (status = 404, description = "No such episode.", body = ErrorBody),
        Refused,
    )
)]
pub async fn episode(
    State(site): State<Arc<Site>>,
    asked: Asked<EpisodeAsks>,
) -> Result<Json<EpisodeAnswer>, ApiError> {
    let (key, id) = (asked.text(&KEY), asked.text(&EPISODE));
    let live = site.boards().board().episode(key, id).cloned();
    let limit = asked.whole(&EVIDENCE).unwrap_or_default() as usize;
    let stored = match site.store() {
        Some(store) => Some(stored(&*store, (key, id), limit).await),
        None => None,
    };
    let found = match (live, stored) {
        (None, None) => None,
        (None, Some(Err(error))) => return Err(error.into()),
        (Some(record), None | Some(Err(_))) => Some(EpisodeAnswer {
            record,
            changes: Vec::new(),
            evidence: Vec::new(),
            evidence_windows: 0,
            source: Source::Memory,
        }),
        (live, Some(Ok(stored))) => stored.answer(live),
    };
    let found = found.ok_or_else(|| ApiError::NotFound("no such episode".to_owned()));
    found.map(Json)
}

/// What the store has of an episode.
struct Stored {
    last: Option<Record>,
    changes: Vec<Change>,
    evidence: Vec<EvidenceWindow>,
    evidence_windows: u64,
}

async fn stored(
    store: &dyn Store,
    (key, id): (&str, &str),
    limit: usize,
) -> Result<Stored, StoreError> {
    let records: Vec<_> = store
        .alert(key, id)
        .await?
        .iter()
        .filter_map(read)
        .collect();
    let mut rows = store.evidence(key, id).await?;
    let evidence_windows = rows.len() as u64;
    let onset_ms = records.first().map_or(0, |record| record.notice.onset_ms);
    rows.sort_by_key(|row| row.window_start_ms.abs_diff(onset_ms));
    rows.truncate(limit);
    rows.sort_by(|one, other| {
        (one.window_start_ms, &one.id).cmp(&(other.window_start_ms, &other.id))
    });
    let window = |row: EvidenceRow| {
        let window = StreamWindow::decode(&*row.event).ok()?;
        Some(EvidenceWindow { id: row.id, window })
    };
    let changes = records.iter().map(|record| Change {
        at_ms: record.notice.said_ms,
        kind: record.notice.kind,
        state: record.notice.state,
    });
    Ok(Stored {
        changes: changes.collect(),
        evidence: rows.into_iter().filter_map(window).collect(),
        evidence_windows,
        last: records.into_iter().last(),
    })
}

impl Stored {
    /// Memory knows the last word first.
    fn answer(self, live: Option<Record>) -> Option<EpisodeAnswer> {
        let source = match (&live, &self.last) {
            (Some(_), None) => Source::Memory,
            (Some(_), Some(_)) => Source::StoreAndMemory,
            (None, _) => Source::Store,
        };
        Some(EpisodeAnswer {
            record: live.or(self.last)?,
            changes: self.changes,
            evidence: self.evidence,
            evidence_windows: self.evidence_windows,
            source,
        })
    }
}
