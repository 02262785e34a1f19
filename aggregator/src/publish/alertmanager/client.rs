//! One request to one Alertmanager.
//!
//! Input: alerts. Output: that it took them, or why not. A connection is kept, so that an alert takes one round trip; redirects are not
//! followed, proxies of the environment not asked. TLS is the system's OpenSSL, which Kafka's client is linked with anyway: one library
//! to keep patched.
//! Limits: [`CONNECT`] to connect, [`WHOLE`] in all, [`MOST_ANSWER_BYTES`] of an answer.

use std::error::Error;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_tls::HttpsConnector;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use native_tls::{Protocol, TlsConnector};

use super::Settings;
use crate::alert::Alert;

/// An Alertmanager lies on the same network: what takes longer is not there.
pub const CONNECT: Duration = Duration::from_secs(2);

/// An Alertmanager answers from memory in milliseconds.
pub const WHOLE: Duration = Duration::from_secs(5);

/// An answer is empty, or says what was wrong.
pub const MOST_ANSWER_BYTES: usize = 64 << 10;

/// Of a refusal so much is told, in characters.
const MOST_TOLD: usize = 300;

/// Alerts come every 15 s at least, so a connection is used long before.
const KEEP_IDLE: Duration = Duration::from_secs(60);

const AGENT: &str = concat!("flowvitals-aggregator/", env!("CARGO_PKG_VERSION"));

/// Why alerts were not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// Nobody answered, in time.
    #[error("{0}")]
    NoAnswer(String),
    /// It cannot take them now: 5xx, 408 or 429.
    #[error("answered {status}: {text}")]
    Busy {
        /// HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
    /// It will not take them as they are, or is something else: any other status.
    #[error("answered {status}: {text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
}

impl PostError {
    /// Whether the same may be taken later.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }

    /// Whether a part of the same alerts may be taken: it is something in them that it does not like.
    #[must_use]
    pub const fn is_about_content(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                status: 400 | 413 | 422,
                ..
            }
        )
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The TLS library said no.
    #[error("TLS: {0}")]
    Tls(#[from] native_tls::Error),
    /// The URL cannot be asked.
    #[error("{url}: {source}")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong.
        source: hyper::http::uri::InvalidUri,
    },
}

/// A client of one Alertmanager.
#[derive(Clone, Debug)]
pub struct Client {
    target: Uri,
    login: Option<HeaderValue>,
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// A client of the Alertmanager at `url`; nothing is sent yet.
    ///
    /// # Errors
    /// If TLS does not work here, or the URL is none.
    pub fn new(url: &str, settings: &Settings) -> Result<Self, ClientError> {
        let target = format!("{url}/api/v2/alerts").parse();
        let target = target.map_err(|source| ClientError::Url {
            url: url.to_owned(),
            source,
        })?;
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_IDLE)
            .pool_max_idle_per_host(1)
            .build(connector(settings)?);
        Ok(Self {
            target,
            login: settings.login.clone(),
            pool,
        })
    }

    /// Hands over alerts in one request.
    ///
    /// # Errors
    /// If they were not taken.
    pub async fn post(&self, alerts: &[&Alert]) -> Result<(), PostError> {
        let answer = tokio::time::timeout(WHOLE, self.ask(alerts)).await;
        answer.unwrap_or_else(|_| {
            let reason = format!("no answer for {} s", WHOLE.as_secs());
            Err(PostError::NoAnswer(reason))
        })
    }

    async fn ask(&self, alerts: &[&Alert]) -> Result<(), PostError> {
        let body = serde_json::to_vec(alerts).map_err(|error| PostError::Refused {
            status: 0,
            text: error.to_string(),
        })?;
        let mut request = Request::post(&self.target)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, AGENT);
        if let Some(login) = &self.login {
            request = request.header(AUTHORIZATION, login);
        }
        let no_answer = |error: &dyn Error| PostError::NoAnswer(deepest(error));
        let request = request
            .body(Full::from(body))
            .map_err(|error| no_answer(&error))?;
        let answer = self.pool.request(request).await;
        verdict(answer.map_err(|error| no_answer(&error))?).await
    }
}

fn connector(settings: &Settings) -> Result<HttpsConnector<HttpConnector>, native_tls::Error> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    // The other side may be gone without a word: a kept connection must not be what finds out.
    http.set_keepalive(Some(Duration::from_secs(10)));
    http.set_keepalive_interval(Some(Duration::from_secs(2)));
    http.set_keepalive_retries(Some(2));
    let mut tls = TlsConnector::builder();
    tls.min_protocol_version(Some(Protocol::Tlsv12));
    tls.disable_built_in_roots(!settings.authorities.is_empty());
    for authority in &settings.authorities {
        tls.add_root_certificate(authority.clone());
    }
    Ok(HttpsConnector::from((http, tls.build()?.into())))
}

async fn verdict(answer: Response<hyper::body::Incoming>) -> Result<(), PostError> {
    let status = answer.status();
    // Read to its end, or the connection could not be used again.
    let body = Limited::new(answer.into_body(), MOST_ANSWER_BYTES);
    let body = body.collect().await;
    if status.is_success() {
        return Ok(());
    }
    let bytes = body.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.trim().chars().take(MOST_TOLD).collect();
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    let passing = status.is_server_error() || passing.contains(&status);
    let status = status.as_u16();
    Err(match passing {
        true => PostError::Busy { status, text },
        false => PostError::Refused { status, text },
    })
}

/// The innermost reason: the outer ones only say that something failed.
fn deepest(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
