//! Errors as JSON.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::{ContentBuilder, RefOr, ResponseBuilder, Schema};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

/// When who was turned away may come again, s.
const RETRY_AFTER_S: &str = "1";

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// A parameter is not what the document says.
    #[error("{0}")]
    BadRequest(String),
    /// Nobody knows who asks.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// It is not there.
    #[error("{0}")]
    NotFound(String),
    /// Only GET is answered.
    #[error("only GET is answered here")]
    Method,
    /// It has a body, and a large one.
    #[error("the body is too large: nothing here takes one")]
    TooLarge,
    /// Its path and query are too long.
    #[error("the path and query are too long")]
    UriTooLong,
    /// Each parameter is right, but together they ask for what cannot be.
    #[error("{0}")]
    Unprocessable(String),
    /// It took too long.
    #[error("the answer took too long: ask for less")]
    Timeout,
    /// Too many others are being answered.
    #[error("too many requests at once: try again")]
    Busy,
    /// Events do not flow.
    #[error("{0}")]
    Unavailable(String),
}

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong, for a person.
    error: String,
}

impl ApiError {
    /// Its status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Timeout | Self::Busy | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: self.to_string(),
        };
        let mut response = (self.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        match self {
            Self::Unauthorized(_) => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Timeout | Self::Busy | Self::Unavailable(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
            }
            _ => {}
        }
        response
    }
}

/// The errors that every endpoint can have: `responses(…, Refused)`.
pub struct Refused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let all = [
            (
                400,
                "A parameter is unknown, missing, or not what it may be.",
            ),
            (401, "The token is missing or wrong."),
            (413, "The request has a large body: nothing here takes one."),
            (414, "The path and query are too long."),
            (
                503,
                "Too many requests at once, or the answer took too long, or events do not flow; `Retry-After` says when to try again.",
            ),
        ];
        all.into_iter()
            .map(|(status, about)| (status.to_string(), RefOr::T(refusal(about))))
            .collect()
    }
}

fn refusal(about: &str) -> utoipa::openapi::Response {
    let schema: RefOr<Schema> = utoipa::openapi::Ref::from_schema_name(ErrorBody::name()).into();
    ResponseBuilder::new()
        .description(about)
        .content(
            "application/json",
            ContentBuilder::new().schema(Some(schema)).build(),
        )
        .build()
}

/// The schema to which every refusal refers, by name.
pub(super) fn body_schema() -> (String, RefOr<Schema>) {
    (ErrorBody::name().into_owned(), ErrorBody::schema())
}
