//! The HTTP endpoint: `/metrics` and `/healthz`.
//!
//! Input: GET requests on a loopback address. Output: the registry. Limits: nothing else is answered; where the socket
//! is bound is the configuration's business, which refuses anything but loopback.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::Instant;

use service::metrics::{protobuf, text};

use super::Registry;

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be bound.
    #[error("metrics.listen: cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// The endpoint broke off.
    #[error("metrics endpoint: {0}")]
    Serve(io::Error),
}

/// Binds the endpoint's socket; done before anything else of weight, so that a taken port is seen at once.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Bind { address, source })
}

/// Answers until `shutdown` is over.
pub async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .with_state(registry);
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
        .map_err(ServeError::Serve)
}

async fn metrics(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> Response {
    let families = registry.families();
    if wants_protobuf(&headers) {
        (
            [(CONTENT_TYPE, protobuf::CONTENT_TYPE)],
            protobuf::render(&families),
        )
            .into_response()
    } else {
        (
            [(CONTENT_TYPE, text::CONTENT_TYPE)],
            text::render(&families),
        )
            .into_response()
    }
}

async fn healthz(State(registry): State<Arc<Registry>>) -> Response {
    match registry.health(Instant::now()) {
        Ok(line) => (StatusCode::OK, format!("{line}\n")).into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// Whether protobuf is asked for at least as much as text. Servers that know native histograms put it first.
fn wants_protobuf(headers: &HeaderMap) -> bool {
    let accept = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let (mut protobuf, mut text) = (0.0_f64, 0.0_f64);
    for range in accept.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or("");
        let parameter = |name: &str| {
            range
                .split(';')
                .filter_map(|part| part.trim().split_once('='))
                .find(|(key, _)| *key == name)
        };
        let quality = parameter("q")
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(1.0);
        match media {
            "application/vnd.google.protobuf"
                if parameter("proto")
                    .is_some_and(|(_, value)| value == "io.prometheus.client.MetricFamily")
                    && parameter("encoding").is_some_and(|(_, value)| value == "delimited") =>
            {
                protobuf = protobuf.max(quality);
            }
            "text/plain" | "text/*" => text = text.max(quality),
            _ => {}
        }
    }
    protobuf > 0.0 && protobuf >= text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_the_format_that_is_asked_for() {
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        for (accept, expected) in [
            (String::new(), false),
            ("*/*".to_owned(), false),
            (protobuf.to_owned(), true),
            (
                format!(
                    "{protobuf};q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.3"
                ),
                true,
            ),
            (format!("text/plain;q=0.9, {protobuf};q=0.1"), false),
            (
                "application/vnd.google.protobuf;proto=other;encoding=delimited".to_owned(),
                false,
            ),
            (protobuf.replace("delimited", "text"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().expect("header"));
            assert_eq!(wants_protobuf(&headers), expected, "{accept}");
        }
    }
}
