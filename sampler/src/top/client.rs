//! One scrape of a sampler's endpoint.
//!
//! Input: a URL. Output: the exposition, read. Limits: 5 s and 16 MiB for an answer; plain HTTP only.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use service::metrics::{ParseError, Parsed, parse};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may be, bytes.
const MAX_BYTES: usize = 16 << 20;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The URL is none, or not `http`.
    #[error("{url}: not an address of the form http://HOST:PORT/metrics")]
    Url {
        /// What was given.
        url: String,
    },
    /// Nobody answers.
    #[error("{url}: {reason}; is the sampler running, and is this its metrics.listen address?")]
    Connect {
        /// Where.
        url: Uri,
        /// What went wrong.
        reason: String,
    },
    /// An answer that says no.
    #[error("{url}: answers with status {status}; is this a sampler's address?")]
    Status {
        /// Where.
        url: Uri,
        /// HTTP status.
        status: u16,
    },
    /// An answer that is no exposition.
    #[error("{url}: not a sampler's metrics: {source}")]
    Format {
        /// Where.
        url: Uri,
        /// What is wrong with it.
        source: ParseError,
    },
    /// An exposition of something else.
    #[error("{url}: metrics, but not a sampler's")]
    Foreign {
        /// Where.
        url: Uri,
    },
    /// The terminal cannot be used.
    #[error("terminal: {0}")]
    Terminal(#[from] std::io::Error),
}

/// A sampler's endpoint.
#[derive(Debug)]
pub struct Endpoint {
    url: Uri,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Endpoint {
    /// The endpoint at `url`; scheme and path may be left out.
    pub fn new(url: &str) -> Result<Self, TopError> {
        let wrong = || TopError::Url {
            url: url.to_owned(),
        };
        let whole = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let given: Uri = whole.parse().map_err(|_| wrong())?;
        let authority = given.authority().ok_or_else(wrong)?.clone();
        let path = if matches!(given.path(), "" | "/") {
            "/metrics"
        } else {
            given.path()
        };
        if given.scheme_str() != Some("http") || authority.host().is_empty() {
            return Err(wrong());
        }
        let url = Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query(path)
            .build()
            .map_err(|_| wrong())?;
        Ok(Self {
            url,
            client: Client::builder(TokioExecutor::new()).build_http(),
        })
    }

    /// Asks it.
    pub async fn scrape(&self) -> Result<Parsed, TopError> {
        let answer = tokio::time::timeout(TIMEOUT, self.text()).await;
        let text = answer.unwrap_or_else(|_| Err(self.no_answer("no answer in time")))?;
        let parsed = parse(&text).map_err(|source| TopError::Format {
            url: self.url.clone(),
            source,
        })?;
        if parsed.kinds.contains_key("flowvitals_build_info") {
            Ok(parsed)
        } else {
            Err(TopError::Foreign {
                url: self.url.clone(),
            })
        }
    }

    async fn text(&self) -> Result<String, TopError> {
        let request = Request::get(&self.url)
            .body(Empty::new())
            .map_err(|error| self.no_answer(error))?;
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| self.no_answer(deepest(&error)))?;
        if !response.status().is_success() {
            return Err(TopError::Status {
                url: self.url.clone(),
                status: response.status().as_u16(),
            });
        }
        let body = Limited::new(response.into_body(), MAX_BYTES)
            .collect()
            .await
            .map_err(|error| self.no_answer(error))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }

    fn no_answer(&self, reason: impl ToString) -> TopError {
        TopError::Connect {
            url: self.url.clone(),
            reason: reason.to_string(),
        }
    }
}

/// The last cause: the outer ones say only that a request failed.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completes_urls() {
        for (given, expected) in [
            ("127.0.0.1:9740", Some("http://127.0.0.1:9740/metrics")),
            ("http://[::1]:9740", Some("http://[::1]:9740/metrics")),
            (
                "http://edge-07:9740/node/metrics",
                Some("http://edge-07:9740/node/metrics"),
            ),
            ("https://127.0.0.1:9740", None),
            ("http://", None),
            ("", None),
        ] {
            assert_eq!(
                Endpoint::new(given)
                    .ok()
                    .map(|endpoint| endpoint.url.to_string())
                    .as_deref(),
                expected,
                "{given}"
            );
        }
    }
}
