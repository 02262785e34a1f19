//! Who may ask: bearer tokens, TLS, certificates of clients.
//!
//! Input: the files that `[http]` names. Output: whether a request may pass, the TLS side of a connection. Files are read at the start
//! and again when they change; wrong ones are refused at the start, and later leave in force what was there. Limits: a look at
//! the files each second; 16 tokens, 1 MiB a file.

mod files;
mod watched;

use axum::http::HeaderValue;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use self::watched::Watched;
use super::ApiError;
use crate::config::{Config, ConfigError, Http, Tls};

/// A file that the interface cannot do with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("http.{option}: {message}")]
pub struct AccessError {
    /// The option that names it.
    pub option: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl AccessError {
    /// With its place in the configuration.
    pub fn placed(self, config: &Config) -> ConfigError {
        ConfigError {
            place: config.place_or_file(config.places.http_files.get(self.option)),
            option: format!("http.{}", self.option),
            message: self.message,
            allowed: String::new(),
        }
    }
}

/// Hashes of the tokens: comparing them takes the same time whatever was sent.
type Tokens = Vec<[u8; 32]>;

/// Who may ask.
#[derive(Debug, Default)]
pub struct Access {
    tokens: Option<Watched<Tokens>>,
    tls: Option<Watched<ServerConfig>>,
}

impl Access {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// The first file that is not as it must be.
    pub fn of(http: &Http) -> Result<Self, AccessError> {
        let tokens = http.token_file.clone().map(|file| {
            let files = vec![file.clone()];
            Watched::new(files, move || files::tokens(&file))
        });
        let tls = http.tls.clone().map(|tls| {
            let files = [&tls.cert, &tls.key].into_iter().chain(&tls.client_ca);
            Watched::new(files.cloned().collect(), move || files::server(&tls))
        });
        Ok(Self {
            tokens: tokens.transpose()?,
            tls: tls.transpose()?,
        })
    }

    /// Whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether a request with this `Authorization` may pass.
    ///
    /// # Errors
    /// If a token is asked for and this is none.
    pub fn admits(&self, authorization: Option<&HeaderValue>) -> Result<(), ApiError> {
        let Some(tokens) = &self.tokens else {
            return Ok(());
        };
        let Some(header) = authorization else {
            return Err(ApiError::Unauthorized(
                "a token is needed: Authorization: Bearer …",
            ));
        };
        let token = bearer(header.as_bytes());
        let token = token.ok_or(ApiError::Unauthorized("Authorization is not Bearer"))?;
        let given: [u8; 32] = Sha256::digest(token).into();
        // All of them, always: which one it was does not show in the time.
        let known = tokens.now().iter().fold(0, |known, hash| {
            known | hash.as_slice().ct_eq(given.as_slice()).unwrap_u8()
        });
        match known {
            1 => Ok(()),
            _ => Err(ApiError::Unauthorized("this token is not known")),
        }
    }

    /// The TLS side of a new connection, if there is one.
    pub(super) fn acceptor(&self) -> Option<TlsAcceptor> {
        let tls = self.tls.as_ref()?;
        Some(TlsAcceptor::from(tls.now()))
    }
}

/// The token of `Bearer …`, the word in any case.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    const WORD: &[u8] = b"bearer ";
    let word = header.get(..WORD.len())?;
    let token = &header[WORD.len()..];
    word.eq_ignore_ascii_case(WORD).then(|| token.trim_ascii())
}
