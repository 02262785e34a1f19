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
