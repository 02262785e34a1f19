//! `/api/v1/streams…`: what the streams of the site do.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::lookup::{Question, Total};
use super::parameter::{Kind, Parameter};
use super::query::{Asked, Asks, MAX_POINTS, Nothing};
use super::{ApiError, ErrorBody, Refused};
use crate::daemon::Site;
use crate::merge::{Live, Point, Presence, Quantity};
use crate::query::{MINUTE_MS, SECOND_MS, Source};
use crate::store::SECONDS_KEPT_MS;

/// Latest time that is understood: the year 9999, ms.
const LATEST_MS: u64 = 253_402_300_799_000;

/// Longest span of a total, s: a week.
const LONGEST_S: u64 = 7 * 86_400;
/// Longest step of a series, ms: a day.
const LONGEST_STEP_MS: u64 = 86_400_000;

/// The stream that is asked about.
pub const STREAM: Parameter = Parameter {
    name: "stream",
    about: "Name of the stream.",
    kind: Kind::Name,
    required: true,
};

const METRIC: Parameter = Parameter {
    name: "metric",
    about: "The quantity that is asked for.",
    kind: Kind::Word(&Quantity::NAMES),
    required: true,
};

const OVER_S: Parameter = Parameter {
    name: "over_s",
    about: "Length of the span, seconds. Beyond an hour, and more than 48 hours back, whole minutes are answered from minutes.",
    kind: Kind::Whole {
        range: 1..=LONGEST_S,
        step: 1,
        default: Some(10),
    },
    required: false,
};

const AT_MS: Parameter = moment("at_ms", "End of the span, Unix ms; absent: now.");
const FROM_MS: Parameter = moment(
    "from_ms",
    "Begin of the series, Unix ms; absent: a minute before to_ms.",
);
const TO_MS: Parameter = moment("to_ms", "End of the series, Unix ms; absent: now.");

const STEP_MS: Parameter = Parameter {
    name: "step_ms",
    about: "Length of a step, ms. Steps of whole minutes begin with one, and reach back 90 days instead of 48 hours.",
    kind: Kind::Whole {
        range: 1_000..=LONGEST_STEP_MS,
        step: 1_000,
        default: Some(1_000),
    },
    required: false,
};

pub(super) const fn moment(name: &'static str, about: &'static str) -> Parameter {
    Parameter {
        name,
        about,
        kind: Kind::Whole {
            range: 0..=LATEST_MS,
            step: 1,
            default: None,
        },
        required: false,
    }
}

/// What `…/total` can be asked.
pub struct TotalAsks;

impl Asks for TotalAsks {
    const PATH: &'static [&'static Parameter] = &[&STREAM];
    const QUERY: &'static [&'static Parameter] = &[&METRIC, &OVER_S, &AT_MS];
}

/// What `…/windows` can be asked.
pub struct WindowsAsks;

impl Asks for WindowsAsks {
    const PATH: &'static [&'static Parameter] = &[&STREAM];
    const QUERY: &'static [&'static Parameter] = &[&FROM_MS, &TO_MS, &STEP_MS];
}

/// A stream of the site.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamEntry {
    /// Its name.
    pub stream: String,
    /// Nodes that should report it now; null: it is known from the store only.
    pub nodes_expected: Option<u64>,
    /// Nodes that do.
    pub nodes_reported: Option<u64>,
    /// Nodes on which it is not sampled as configured, with the reason.
    pub degraded: Vec<Degraded>,
}

/// A node that does not sample a stream as configured.
#[derive(Debug, Serialize, ToSchema)]
pub struct Degraded {
    /// Name of the node.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// All streams.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamList {
    /// Name of the site.
    pub site: String,
    /// The site's time: end of the newest event, Unix ms.
    pub now_ms: u64,
    /// By name; of the last 48 hours where there is a store that answers.
    pub streams: Vec<StreamEntry>,
    /// Where the names came from.
    pub source: Source,
}

/// The streams of the site.
#[utoipa::path(
    get,
    path = "/api/v1/streams",
    tag = "streams",
    responses((status = 200, description = "All streams, by name.", body = StreamList), Refused)
)]
pub async fn list(
    State(site): State<Arc<Site>>,
    _: Asked<Nothing>,
) -> Result<Json<StreamList>, ApiError> {
    let stored = match site.store() {
        Some(store) => {
            let since_ms = site.now_ms().saturating_sub(SECONDS_KEPT_MS);
            // Without it there is still what is live.
            store.streams(since_ms).await.ok()
        }
        None => None,
    };
    let source = match (&stored, site.merges()) {
        (None, _) => Source::Memory,
        (Some(_), true) => Source::StoreAndMemory,
        (Some(_), false) => Source::Store,
    };
    let now_ms = site.now_ms() / 1_000 * 1_000;
    let live = site.live();
    let live_names = live.streams().map(|(name, _)| name);
    let known: BTreeSet<_> = live
        .nodes()
        .streams()
        .into_iter()
        .chain(live_names)
        .collect();
    let mut names = known.clone();
    names.extend(stored.iter().flatten().map(String::as_str));
    let streams = names.into_iter().map(|name| {
        let presence = known.contains(name);
        entry(
            &live,
            name,
            presence.then(|| live.nodes().presence(name, now_ms)),
        )
    });
    Ok(Json(StreamList {
        site: site.name().to_owned(),
        now_ms,
        streams: streams.collect(),
        source,
    }))
}

fn entry(live: &Live, name: &str, presence: Option<Presence>) -> StreamEntry {
    let degraded = live.nodes().iter().filter_map(|(node, info)| {
        let reason = &info.streams.get(name)?.degraded;
        (!reason.is_empty()).then(|| Degraded {
            node: node.to_owned(),
            reason: reason.clone(),
        })
    });
    StreamEntry {
        stream: name.to_owned(),
        nodes_expected: presence.map(|presence| presence.expected),
        nodes_reported: presence.map(|presence| presence.reported),
        degraded: degraded.collect(),
    }
}

/// One quantity over the last seconds, of all flows of a stream.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{stream}/total",
    tag = "streams",
    params(Asked<TotalAsks>),
    responses(
        (status = 200, description = "The estimate with its interval.", body = Total),
        (status = 404, description = "No such stream, or the span lies before what is kept.", body = ErrorBody),
        (status = 422, description = "The span is empty, or too long for seconds.", body = ErrorBody),
        Refused,
    )
)]
pub async fn total(
    State(site): State<Arc<Site>>,
    asked: Asked<TotalAsks>,
) -> Result<Json<Total>, ApiError> {
    let quantity = Quantity::named(asked.text(&METRIC));
    let quantity = quantity.ok_or_else(|| ApiError::BadRequest("metric is missing".to_owned()))?;
    let over_ms = asked.whole(&OVER_S).unwrap_or_default() * 1_000;
    let question = Question {
        site: &site,
        stream: asked.text(&STREAM),
    };
    let total = question.total(quantity, over_ms, asked.whole(&AT_MS)).await;
    total.map(Json)
}

/// A stream's series.
#[derive(Debug, Serialize, ToSchema)]
pub struct Series {
    /// Name of the stream.
    pub stream: String,
    /// Length of a step.
    pub step_ms: u64,
    /// Steps with data, oldest first.
    pub windows: Vec<Point>,
    /// Where they came from.
    pub source: Source,
    /// Parts of windows in them that came when those had closed; of what is in memory they are not told apart.
    pub late_parts: u64,
}

/// A series of a stream, in steps.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{stream}/windows",
    tag = "streams",
    params(Asked<WindowsAsks>),
    responses(
        (status = 200, description = "The steps with data, oldest first.", body = Series),
        (status = 404, description = "No such stream.", body = ErrorBody),
        (status = 422, description = "The span is empty, or has more than 1000 steps.", body = ErrorBody),
        Refused,
    )
)]
pub async fn windows(
    State(site): State<Arc<Site>>,
    asked: Asked<WindowsAsks>,
) -> Result<Json<Series>, ApiError> {
    let now_ms = site.now_ms() / 1_000 * 1_000;
    let step_ms = asked.whole(&STEP_MS).unwrap_or(SECOND_MS);
    let row_ms = match step_ms.is_multiple_of(MINUTE_MS) {
        true => MINUTE_MS,
        false => SECOND_MS,
    };
    let to_ms = asked.whole(&TO_MS).unwrap_or(now_ms);
    let from_ms = asked.whole(&FROM_MS);
    let from_ms = from_ms.unwrap_or_else(|| to_ms.saturating_sub(60_000)) / row_ms * row_ms;
    if to_ms <= from_ms {
        return Err(ApiError::Unprocessable(
            "to_ms is not after from_ms".to_owned(),
        ));
    }
    if (to_ms - from_ms) / step_ms > MAX_POINTS {
        let message = format!("more than {MAX_POINTS} points: a longer step_ms or a shorter span");
        return Err(ApiError::Unprocessable(message));
    }
    let question = Question {
        site: &site,
        stream: asked.text(&STREAM),
    };
    let steps = question.series((from_ms, to_ms), step_ms).await?;
    Ok(Json(Series {
        stream: question.stream.to_owned(),
        step_ms,
        windows: steps.points,
        source: steps.source,
        late_parts: steps.late_parts,
    }))
}
