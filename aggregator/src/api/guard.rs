//! Stands before the endpoints: who may ask, how much at once, how long.
//!
//! Input: a request with the address of who sent it. Output: the endpoint's answer, or an error. The cheap checks come first.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::ApiError;
use super::access::Access;
use super::limits::{Limits, MAX_BODY_BYTES, MAX_URI_BYTES, Refusal, Refusals};

/// Asked by whoever watches over the process: without a token from this machine, and also when all else is busy.
const HEALTH: &str = "/healthz";

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// What is asked of every request.
#[derive(Debug)]
pub(super) struct Guard {
    access: Access,
    limits: Limits,
    places: Semaphore,
    refusals: Arc<Refusals>,
}

impl Guard {
    pub(super) fn new(access: Access, limits: Limits, refusals: Arc<Refusals>) -> Self {
        Self {
            access,
            limits,
            places: Semaphore::new(limits.requests),
            refusals,
        }
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Puts itself before all of a router.
    pub(super) fn wrap(self: &Arc<Self>, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(Arc::clone(self), stand))
    }

    fn admit(&self, request: &Request) -> Result<(), ApiError> {
        let length = request.uri().path_and_query().map(|uri| uri.as_str().len());
        if length.is_some_and(|bytes| bytes > MAX_URI_BYTES) {
            self.refusals.count(Refusal::Size);
            return Err(ApiError::UriTooLong);
        }
        let peer = request.extensions().get::<Peer>();
        let local = peer.is_some_and(|Peer(ip)| ip.to_canonical().is_loopback());
        let watched = local && request.uri().path() == HEALTH;
        let header = request.headers().get(AUTHORIZATION);
        if !watched && let Err(error) = self.access.admits(header) {
            self.refusals.count(Refusal::Token);
            return Err(error);
        }
        if request.body().size_hint().lower() > MAX_BODY_BYTES {
            self.refusals.count(Refusal::Size);
            return Err(ApiError::TooLarge);
        }
        Ok(())
    }
}

async fn stand(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    if let Err(error) = guard.admit(&request) {
        return error.into_response();
    }
    let place = guard.places.try_acquire();
    if place.is_err() && request.uri().path() != HEALTH {
        guard.refusals.count(Refusal::Requests);
        return ApiError::Busy.into_response();
    }
    match tokio::time::timeout(guard.limits.answer, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            guard.refusals.count(Refusal::Slow);
            ApiError::Timeout.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::routing::get;
    use tower_service::Service;

    use super::*;

    fn guard(limits: Limits) -> Arc<Guard> {
        Arc::new(Guard::new(Access::default(), limits, Arc::default()))
    }

    /// A router with an endpoint that never answers, and two that do.
    fn guarded(guard: &Arc<Guard>) -> Router {
        let router = Router::new()
            .route("/never", get(std::future::pending::<()>))
            .route("/at-once", get(async || "here"))
            .route(HEALTH, get(async || "ok"));
        guard.wrap(router)
    }

    async fn ask(router: &Router, request: Request) -> Response {
        let mut router = router.clone();
        router.call(request).await.expect("an answer")
    }

    fn request(path: &str) -> Request {
        Request::get(path).body(Body::empty()).expect("a request")
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_not_waited_for() {
        let guard = guard(Limits {
            answer: Duration::from_millis(20),
            ..Limits::default()
        });
        let router = guarded(&guard);
        let response = ask(&router, request("/never")).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
        assert_eq!(guard.refusals().of(Refusal::Slow), 1);
    }

    #[tokio::test]
    async fn more_requests_than_places_are_told_so_and_health_is_answered() {
        let guard = guard(Limits {
            requests: 2,
            answer: Duration::from_secs(3600),
            ..Limits::default()
        });
        let router = guarded(&guard);
        let mut waiting = Vec::new();
        for _ in 0..2 {
            let router = router.clone();
            waiting.push(tokio::spawn(async move {
                ask(&router, request("/never")).await
            }));
            tokio::task::yield_now().await;
        }
        let busy = ask(&router, request("/at-once")).await;
        assert_eq!(busy.status(), StatusCode::SERVICE_UNAVAILABLE);
        let healthy = ask(&router, request(HEALTH)).await;
        assert_eq!(healthy.status(), StatusCode::OK);
        assert_eq!(guard.refusals().of(Refusal::Requests), 1);
        for one in waiting {
            one.abort();
            let ended = one.await.expect_err("given up");
            assert!(ended.is_cancelled());
        }
        let answered = ask(&router, request("/at-once")).await;
        assert_eq!(answered.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn what_is_too_much_is_refused_before_it_is_read() {
        let guard = guard(Limits::default());
        let router = guarded(&guard);
        let long = format!("/at-once?x={}", "y".repeat(MAX_URI_BYTES));
        let refused = ask(&router, request(&long)).await;
        assert_eq!(refused.status(), StatusCode::URI_TOO_LONG);
        let most = usize::try_from(MAX_BODY_BYTES).expect("small");
        for (bytes, status) in [
            (most, StatusCode::OK),
            (most + 1, StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            let request = Request::get("/at-once").body(Body::from(vec![b' '; bytes]));
            let response = ask(&router, request.expect("a request")).await;
            assert_eq!(response.status(), status, "{bytes}");
        }
        assert_eq!(guard.refusals().of(Refusal::Size), 2);
    }
}
