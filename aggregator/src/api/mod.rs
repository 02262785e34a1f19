//! The HTTP interface that applications query.
//!
//! | path | answers |
//! |---|---|
//! | `/healthz` | 200 while events flow, with a remark where this process stands by or its store catches up; 503 with the reason otherwise |
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
//! that are kept ([`Plan`](crate::query::Plan)), [`MAX_POINTS`] points, and [`Limits`] on connections, requests and times; whoever is
//! turned away is counted. Who may ask is [`Access`]'s business:
//!
//! ```text
//! socket ──► server: connections, TLS ──► guard: sizes, access, requests, time ──► endpoint
//! ```
//!
//! An endpoint is a function with `#[utoipa::path(get, path, tag, params(Asked<…>), responses(…, Refused))]`, registered by one line
//! in [`routes`]: router and document come from the same place. Its parameters are constants of type [`Parameter`], listed in an
//! implementation of [`Asks`]; it takes them as [`Asked`], checked. Bodies derive `ToSchema`. `cargo xtask api` then tries it with
//! thousands of right and wrong requests.

mod access;
mod alerts;
mod document;
mod error;
mod guard;
mod limits;
mod live;
mod lookup;
mod parameter;
mod query;
mod server;
mod streams;

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use service::metrics::text;
use tokio::net::TcpListener;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::daemon::Site;

use guard::Guard;

pub use access::{Access, AccessError};
pub use error::{ApiError, ErrorBody, Refused};
pub use limits::{Limits, Refusal, Refusals};
pub use parameter::{Kind, Parameter};
pub use query::{Asked, Asks, MAX_POINTS, Nothing};

/// Answers everybody who reaches the socket, until `shutdown`.
///
/// # Errors
/// What the socket answers.
pub async fn serve(
    listener: TcpListener,
    site: Arc<Site>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    Server::new(site).serve(listener, shutdown).await
}

/// The interface of a site: whom it answers, and within which limits.
#[derive(Debug)]
pub struct Server {
    site: Arc<Site>,
    access: Access,
    limits: Limits,
    refusals: Arc<Refusals>,
}

impl Server {
    /// One that answers everybody.
    pub fn new(site: Arc<Site>) -> Self {
        Self {
            site,
            access: Access::default(),
            limits: Limits::default(),
            refusals: Arc::default(),
        }
    }

    /// With other rules on who may ask.
    #[must_use]
    pub fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// With other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Who was turned away, counted while it serves.
    pub fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.refusals)
    }

    /// Answers until `shutdown`.
    ///
    /// # Errors
    /// What the socket answers.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let refusals = Arc::clone(&self.refusals);
        let router = router(self.site).layer(Extension(Arc::clone(&refusals)));
        let guard = Guard::new(self.access, self.limits, refusals);
        server::run(listener, router, Arc::new(guard), shutdown).await
    }
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
        .with_state(site)
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
        None => match site.remark() {
            None => "ok\n".into_response(),
            Some(remark) => format!("ok, {remark}\n").into_response(),
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
async fn metrics(
    State(site): State<Arc<Site>>,
    refusals: Option<Extension<Arc<Refusals>>>,
) -> Response {
    let mut families = site.families();
    families.extend(refusals.map(|Extension(refusals)| refusals.family()));
    let body = text::render(&families);
    ([(CONTENT_TYPE, text::CONTENT_TYPE)], body).into_response()
}
