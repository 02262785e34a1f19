//! The HTTP interface that applications query.
//!
//! | path | answers |
//! |---|---|
//! | `/healthz` | 200 while events flow, 503 with the reason otherwise |
//! | `/metrics` | the aggregator's own Prometheus metrics |
//! | `/api/v1/streams` | streams with their nodes and labels |
//! | `/api/v1/streams/{stream}/total` | one quantity over the last `over_s` seconds, with its interval |
//! | `/api/v1/streams/{stream}/windows` | a series in steps of `step_ms` |
//!
//! Every error is JSON `{"error": …}` with the status that fits: 400 what was asked wrongly, 404 what is not there. Limits: spans
//! inside the horizon, [`MAX_POINTS`] points, ten seconds a request. Where the socket is bound is the configuration's business.

mod error;
mod query;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use service::metrics::text;
use tokio::net::TcpListener;

use crate::daemon::Site;

pub use error::ApiError;
pub use query::MAX_POINTS;

/// Longest a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Answers until `shutdown`.
///
/// # Errors
/// What the socket answers.
pub async fn serve(
    listener: TcpListener,
    site: Arc<Site>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(site))
        .with_graceful_shutdown(shutdown)
        .await
}

/// All routes.
pub fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route("/api/v1/streams", get(streams::list))
        .route("/api/v1/streams/{stream}/total", get(streams::total))
        .route("/api/v1/streams/{stream}/windows", get(streams::windows))
        .fallback(async || ApiError::NotFound("no such path".to_owned()))
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(middleware::from_fn(in_time))
        .with_state(site)
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::Timeout.into_response(),
    }
}

async fn health(State(site): State<Arc<Site>>) -> Response {
    match site.trouble() {
        None => "ok\n".into_response(),
        Some(reason) => ApiError::Unavailable(reason).into_response(),
    }
}

async fn metrics(State(site): State<Arc<Site>>) -> Response {
    let body = text::render(&site.families());
    ([(CONTENT_TYPE, text::CONTENT_TYPE)], body).into_response()
}
