//! `/api/v1/streams…`: what the streams of the site do.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use sampler_event::Options;
use serde::Serialize;
use utoipa::ToSchema;

use super::parameter::{Kind, Parameter};
use super::query::{Asked, Asks, MAX_POINTS, Nothing};
use super::{ApiError, ErrorBody, Refused};
use crate::daemon::Site;
use crate::merge::{Answer, HORIZON_MS, Point, Quantity};

/// Latest time that is understood: the year 9999, ms.
const LATEST_MS: u64 = 253_402_300_799_000;

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
    about: "Length of the span, seconds.",
    kind: Kind::Whole {
        range: 1..=HORIZON_MS / 1_000,
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
    about: "Length of a step, ms.",
    kind: Kind::Whole {
        range: 1_000..=HORIZON_MS,
        step: 1_000,
        default: Some(1_000),
    },
    required: false,
};

const fn moment(name: &'static str, about: &'static str) -> Parameter {
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
    /// Nodes that should report it now.
    pub nodes_expected: u64,
    /// Nodes that do.
    pub nodes_reported: u64,
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
    /// By name.
    pub streams: Vec<StreamEntry>,
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
    let live = site.live();
    let nodes = live.nodes();
    let mut names = nodes.streams();
    names.extend(live.streams().map(|(name, _)| name));
    let now_ms = live.now_ms() / 1_000 * 1_000;
    let streams = names.into_iter().map(|name| {
        let presence = nodes.presence(name, now_ms);
        let degraded = nodes.iter().filter_map(|(node, info)| {
            let reason = &info.streams.get(name)?.degraded;
            (!reason.is_empty()).then(|| Degraded {
                node: node.to_owned(),
                reason: reason.clone(),
            })
        });
        StreamEntry {
            stream: name.to_owned(),
            nodes_expected: presence.expected,
            nodes_reported: presence.reported,
            degraded: degraded.collect(),
        }
    });
    let streams = streams.collect();
    Ok(Json(StreamList {
        site: site.name().to_owned(),
        now_ms,
        streams,
    }))
}

/// One quantity over the last seconds, of all flows of a stream.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{stream}/total",
    tag = "streams",
    params(Asked<TotalAsks>),
    responses(
        (status = 200, description = "The estimate with its interval.", body = Answer),
        (status = 404, description = "No such stream, or the span lies before what is kept.", body = ErrorBody),
        Refused,
    )
)]
pub async fn total(
    State(site): State<Arc<Site>>,
    asked: Asked<TotalAsks>,
) -> Result<Json<Answer>, ApiError> {
    let quantity = Quantity::named(asked.text(&METRIC));
    let quantity = quantity.ok_or_else(|| ApiError::BadRequest("metric is missing".to_owned()))?;
    let over_ms = asked.whole(&OVER_S).unwrap_or_default() * 1_000;
    let at_ms = asked.whole(&AT_MS);
    let live = site.live();
    if at_ms.is_some_and(|at| at < live.now_ms().saturating_sub(site.horizon_ms())) {
        let longest_s = site.horizon_ms() / 1_000;
        let message = format!("at_ms lies before the {longest_s} s that are kept");
        return Err(ApiError::NotFound(message));
    }
    live.total(
        asked.text(&STREAM),
        quantity,
        over_ms,
        at_ms,
        &Options::default(),
    )
    .map(Json)
    .map_err(|unknown| ApiError::NotFound(unknown.to_string()))
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
    let live = site.live();
    let now_ms = live.now_ms() / 1_000 * 1_000;
    let to_ms = asked.whole(&TO_MS).unwrap_or(now_ms);
    let from_ms = asked.whole(&FROM_MS);
    let from_ms = from_ms.unwrap_or_else(|| to_ms.saturating_sub(60_000)) / 1_000 * 1_000;
    let step_ms = asked.whole(&STEP_MS).unwrap_or(1_000);
    let stream = asked.text(&STREAM);
    let known = live.nodes().streams().contains(stream);
    if !known && live.streams().all(|(name, _)| name != stream) {
        return Err(ApiError::NotFound("no such stream".to_owned()));
    }
    if to_ms <= from_ms {
        return Err(ApiError::Unprocessable(
            "to_ms is not after from_ms".to_owned(),
        ));
    }
    if (to_ms - from_ms) / step_ms > MAX_POINTS {
        let message = format!("more than {MAX_POINTS} points: a longer step_ms or a shorter span");
        return Err(ApiError::Unprocessable(message));
    }
    let windows = live.series(stream, from_ms, to_ms, step_ms, &Options::default());
    Ok(Json(Series {
        stream: stream.to_owned(),
        step_ms,
        windows,
    }))
}
