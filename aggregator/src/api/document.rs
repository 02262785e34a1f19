//! `/openapi.json`: what can be asked, for programs.
//!
//! Input: the routes. Output: an OpenAPI 3.1 document that names every one of them, with its parameters and answers.

use std::sync::LazyLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, Info, License};

use super::error::body_schema;
use super::query::{Asked, Nothing};
use super::{ApiError, Refused};

/// The parts that no route has.
#[derive(OpenApi)]
#[openapi(tags(
    (name = "streams", description = "What all flows of a stream did"),
    (name = "alerts", description = "What was said of them"),
    (name = "operation", description = "How the aggregator itself is doing"),
))]
struct Frame;

/// The document before the routes are added.
pub(super) fn frame() -> utoipa::openapi::OpenApi {
    let mut document = Frame::openapi();
    let mut info = Info::new("flowvitals aggregator", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "Vital signs of live video, over all nodes of a site. Times are Unix ms of the events, not of the server. \
         An estimate comes with its interval; `provisional` says that more may come."
            .to_owned(),
    );
    info.license = Some(License::new("Apache-2.0"));
    document.info = info;
    let (name, schema) = body_schema();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("Where the configuration has a token_file."))
        .build();
    let components = ComponentsBuilder::new()
        .schema(name, schema)
        .security_scheme("token", SecurityScheme::Http(bearer))
        .security_scheme(
            "certificate",
            SecurityScheme::MutualTls {
                description: Some("Where the configuration has a client_ca.".to_owned()),
                deprecated: None,
                extensions: None,
            },
        );
    document.components = Some(components.build());
    // Which of them is asked for is the configuration's business; on loopback it may be none.
    document.security = Some(vec![
        SecurityRequirement::default(),
        SecurityRequirement::new("token", [] as [&str; 0]),
        SecurityRequirement::new("certificate", [] as [&str; 0]),
    ]);
    document
}

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let document = super::routes().into_openapi();
    // Maps with texts as keys: it always can be.
    document.to_json().unwrap_or_default()
});

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operation",
    responses((status = 200, description = "An OpenAPI 3.1 document.", content_type = "application/json", body = serde_json::Value), Refused)
)]
pub(super) async fn document(_: Asked<Nothing>) -> Result<Response, ApiError> {
    Ok(([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response())
}
