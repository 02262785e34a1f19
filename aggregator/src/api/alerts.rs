//! `/api/v1/alerts…`: what was said of alerts, by whichever member.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::parameter::{Kind, Parameter};
use super::query::{Asked, Asks};
use super::{ApiError, ErrorBody, Refused};
use crate::alert::Record;
use crate::daemon::Site;

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
    const QUERY: &'static [&'static Parameter] = &[&STATE, &STREAM, &SEVERITY];
}

/// What `/api/v1/alerts/{key}/{episode}` can be asked.
pub struct EpisodeAsks;

impl Asks for EpisodeAsks {
    const PATH: &'static [&'static Parameter] = &[&KEY, &EPISODE];
}

/// Alerts of the site.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertList {
    /// Name of the site.
    pub site: String,
    /// The last record of each, by key.
    pub alerts: Vec<Record>,
}

/// Alerts of the site, whichever member owns them.
#[utoipa::path(
    get,
    path = "/api/v1/alerts",
    tag = "alerts",
    params(Asked<AlertsAsks>),
    responses((status = 200, description = "The last record of each, by key.", body = AlertList), Refused)
)]
pub async fn list(
    State(site): State<Arc<Site>>,
    asked: Asked<AlertsAsks>,
) -> Result<Json<AlertList>, ApiError> {
    let board = site.boards().board();
    // An absent parameter is empty, and asks for all.
    let fits = |wanted: &str, found: Option<&str>| wanted.is_empty() || found == Some(wanted);
    let wanted = |record: &&Record| {
        let severity = record.labels.get("severity").map(String::as_str);
        has_state(record, asked.text(&STATE))
            && fits(asked.text(&STREAM), Some(&record.key.stream))
            && fits(asked.text(&SEVERITY), severity)
    };
    let alerts = board.records().filter(wanted).cloned().collect();
    Ok(Json(AlertList {
        site: site.name().to_owned(),
        alerts,
    }))
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
}

/// The last record of an episode.
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
    let board = site.boards().board();
    let record = board.episode(asked.text(&KEY), asked.text(&EPISODE));
    let record = record.cloned();
    let record = record.ok_or_else(|| ApiError::NotFound("no such episode".to_owned()))?;
    Ok(Json(EpisodeAnswer { record }))
}
