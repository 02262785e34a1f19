//! The HTTP interface that applications query.
//!
//! | path | answers |
//! |---|---|
//! | `/healthz` | 200 while events flow, or another process stores and this one stands by; 503 with the reason otherwise |
//! | `/metrics` | the aggregator's own Prometheus metrics |
//! | `/openapi.json` | all of this for programs |
//! | `/api/v1/streams` | streams with their nodes and labels |
//! | `/api/v1/streams/{stream}/total` | one quantity over the last `over_s` seconds, with its interval |
//! | `/api/v1/streams/{stream}/windows` | a series in steps of `step_ms` |
//! | `/api/v1/alerts` | alerts of the site, whichever member owns them |
//! | `/api/v1/alerts/{key}/{episode}` | one episode |
//! | `/api/v1/live` | totals and alerts as they come: server-sent events |
//!
//! Every error is JSON `{"error": …}` with the status that fits: 400 what is not as the document says, 404 what is not there, 422
//! what is right one by one but not together. Answers come from memory, and from the store beyond it; each says which. Limits: spans
//! that are kept ([`Plan`](crate::query::Plan)), [`MAX_POINTS`] points, ten seconds a request. Where the socket is bound is the
//! configuration's business.
//!
//! An endpoint is a function with `#[utoipa::path(get, path, tag, params(Asked<…>), responses(…, Refused))]`, registered by one line
//! in [`routes`]: router and document come from the same place. Its parameters are constants of type [`Parameter`], listed in an
//! implementation of [`Asks`]; it takes them as [`Asked`], checked. Bodies derive `ToSchema`. `cargo xtask api` then tries it with
//! thousands of right and wrong requests.

mod alerts;
mod document;
mod error;
mod live;
mod lookup;
mod parameter;
mod query;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use service::metrics::text;
use tokio::net::TcpListener;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::daemon::Site;

pub use error::{ApiError, ErrorBody, Refused};
pub use parameter::{Kind, Parameter};
pub use query::{Asked, Asks, MAX_POINTS, Nothing};

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

/// All endpoints, with their place in the document.
fn routes() -> OpenApiRouter<Arc<Site>> {
    OpenApiRouter::with_openapi(document::frame())
        .routes(routes!(health))
        .routes(routes!(metrics))
        .routes(routes!(document::document))
        .routes(routes!(streams::list))
        .routes(routes!(streams::total))
        .routes(routes!(streams::windows))
        .routes(routes!(alerts::list))
        .routes(routes!(alerts::episode))
        .routes(routes!(live::live))
}

/// All that is answered.
pub fn router(site: Arc<Site>) -> Router {
    let (router, _) = routes().split_for_parts();
    router
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

/// Whether events flow.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses(
        (status = 200, description = "Events flow.", content_type = "text/plain", body = String),
        Refused,
    )
)]
async fn health(State(site): State<Arc<Site>>) -> Response {
    match site.ill() {
        None => match site.stands_by() {
            None => "ok\n".into_response(),
            Some(who) => format!("ok, standby: {who}\n").into_response(),
        },
        Some(reason) => ApiError::Unavailable(reason).into_response(),
    }
}

/// The aggregator's own metrics, as Prometheus reads them.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses(
        (status = 200, description = "The exposition.", content_type = "text/plain", body = String),
        Refused,
    )
)]
async fn metrics(State(site): State<Arc<Site>>) -> Response {
    let body = text::render(&site.families());
    ([(CONTENT_TYPE, text::CONTENT_TYPE)], body).into_response()
}
