//! `/api/v1/streams…`: what the streams of the site do.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use sampler_event::Options;
use serde::Serialize;

use super::ApiError;
use super::query::{MAX_POINTS, Parameters};
use crate::daemon::Site;
use crate::merge::{Answer, Point, Quantity};

/// Latest time that is understood: the year 9999, ms.
const LATEST_MS: u64 = 253_402_300_799_000;

type Pairs = Query<Vec<(String, String)>>;

/// A stream of the site.
#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
pub struct Degraded {
    /// Name of the node.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// All streams.
#[derive(Debug, Serialize)]
pub struct StreamList {
    /// Name of the site.
    pub site: String,
    /// The site's time: end of the newest event, Unix ms.
    pub now_ms: u64,
    /// By name.
    pub streams: Vec<StreamEntry>,
}

/// `/api/v1/streams`
pub async fn list(
    State(site): State<Arc<Site>>,
    Query(pairs): Pairs,
) -> Result<Json<StreamList>, ApiError> {
    Parameters::new(pairs, &[])?;
    let live = site.live();
    let nodes = live.nodes();
    let mut names = nodes.streams();
    names.extend(live.streams().map(|(name, _)| name));
    let now_ms = live.now_ms() / 1_000 * 1_000;
    let streams = names.into_iter().map(|name| {
        let presence = nodes.presence(name, now_ms);
        let degraded = nodes.iter().filter_map(|(node, info)| {
            let reason = info.streams.get(name).filter(|reason| !reason.is_empty())?;
            Some(Degraded {
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

/// `/api/v1/streams/{stream}/total?metric=retrans_segs&over_s=10[&at_ms=]`
pub async fn total(
    State(site): State<Arc<Site>>,
    Path(stream): Path<String>,
    Query(pairs): Pairs,
) -> Result<Json<Answer>, ApiError> {
    let parameters = Parameters::new(pairs, &["metric", "over_s", "at_ms"])?;
    let name = parameters.text("metric")?;
    let quantity = Quantity::named(name).ok_or_else(|| {
        let names: Vec<_> = Quantity::ALL.iter().map(|q| q.name()).collect();
        ApiError::BadRequest(format!("metric: {name:?} is none of {}", names.join(", ")))
    })?;
    let longest_s = site.horizon_ms() / 1_000;
    let over_s = parameters.number("over_s", 1..=longest_s)?.unwrap_or(10);
    let at_ms = parameters.number("at_ms", 0..=LATEST_MS)?;
    let live = site.live();
    if at_ms.is_some_and(|at| at < live.now_ms().saturating_sub(site.horizon_ms())) {
        let message = format!("at_ms lies before the {longest_s} s that are kept");
        return Err(ApiError::NotFound(message));
    }
    live.total(
        &stream,
        quantity,
        over_s * 1_000,
        at_ms,
        &Options::default(),
    )
    .map(Json)
    .map_err(|unknown| ApiError::NotFound(unknown.to_string()))
}

/// A stream's series.
#[derive(Debug, Serialize)]
pub struct Series {
    /// Name of the stream.
    pub stream: String,
    /// Length of a step.
    pub step_ms: u64,
    /// Steps with data, oldest first.
    pub windows: Vec<Point>,
}

/// `/api/v1/streams/{stream}/windows?from_ms=&to_ms=&step_ms=`
pub async fn windows(
    State(site): State<Arc<Site>>,
    Path(stream): Path<String>,
    Query(pairs): Pairs,
) -> Result<Json<Series>, ApiError> {
    let parameters = Parameters::new(pairs, &["from_ms", "to_ms", "step_ms"])?;
    let live = site.live();
    let now_ms = live.now_ms() / 1_000 * 1_000;
    let to_ms = parameters.number("to_ms", 0..=LATEST_MS)?.unwrap_or(now_ms);
    let from_ms = parameters
        .number("from_ms", 0..=LATEST_MS)?
        .unwrap_or_else(|| to_ms.saturating_sub(60_000));
    let step_ms = parameters
        .number("step_ms", 1_000..=site.horizon_ms())?
        .unwrap_or(1_000);
    if step_ms % 1_000 != 0 {
        let message = format!("step_ms: {step_ms} is not a multiple of 1000");
        return Err(ApiError::BadRequest(message));
    }
    let from_ms = from_ms / 1_000 * 1_000;
    if to_ms <= from_ms {
        return Err(ApiError::BadRequest(
            "to_ms is not after from_ms".to_owned(),
        ));
    }
    if (to_ms - from_ms) / step_ms > MAX_POINTS {
        let message = format!("more than {MAX_POINTS} points: a longer step_ms or a shorter span");
        return Err(ApiError::BadRequest(message));
    }
    let known = live.nodes().streams().contains(stream.as_str());
    if !known && live.streams().all(|(name, _)| name != stream) {
        return Err(ApiError::NotFound("no such stream".to_owned()));
    }
    let windows = live.series(&stream, from_ms, to_ms, step_ms, &Options::default());
    Ok(Json(Series {
        stream,
        step_ms,
        windows,
    }))
}
