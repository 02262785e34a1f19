//! `/api/v1/live`: server-sent events.
//!
//! `totals` once a second: what each stream of this member did in the last ten seconds. `alert`: records of the alert topic as they come,
//! of all members. A client that does not keep up is dropped and counted; it may come again. After an hour the answer ends, and event
//! sources ask again by themselves.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use super::query::{Asked, Nothing};
use super::{ApiError, Refused};
use crate::daemon::{Site, Told};

/// Totals and alerts as they come.
#[utoipa::path(
    get,
    path = "/api/v1/live",
    tag = "alerts",
    responses((status = 200, description = "Server-sent events: `totals` once a second, `alert` as they come; they end after an hour.", content_type = "text/event-stream", body = String), Refused)
)]
pub async fn live(
    State(site): State<Arc<Site>>,
    _: Asked<Nothing>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let told = site.boards().listen();
    let told = told.ok_or_else(|| ApiError::Unavailable("too many listen already".to_owned()))?;
    let listener = Listener {
        ends_at: Instant::now() + site.boards().listened_for(),
        told,
        site,
    };
    let events = stream::unfold(listener, next);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

struct Listener {
    told: Receiver<Told>,
    site: Arc<Site>,
    ends_at: Instant,
}

async fn next(mut listener: Listener) -> Option<(Result<Event, Infallible>, Listener)> {
    match timeout_at(listener.ends_at, listener.told.recv()).await {
        Ok(Ok(Told { name, json })) => {
            let event = Event::default().event(name).data(&*json);
            Some((Ok(event), listener))
        }
        Ok(Err(RecvError::Lagged(_))) => {
            listener.site.boards().dropped_slow();
            None
        }
        Ok(Err(RecvError::Closed)) | Err(_) => None,
    }
}
