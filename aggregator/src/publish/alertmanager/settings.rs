//! What the client is told, with the files that the configuration names read.
//!
//! Input: `[alertmanager]`. Output: URLs, login and certificates, or an error with its place, fit for exit status 78. The files are read
//! once, at the start. Limits: [`MOST_BYTES`] per file.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use native_tls::Certificate;

use crate::config::{Config, ConfigError};

/// A password, a token or a bundle of certificates.
pub const MOST_BYTES: u64 = 1 << 20;

/// Whom to tell, and how to log in there.
#[derive(Clone, Default)]
pub struct Settings {
    /// Base URLs without a slash at the end.
    pub urls: Vec<String>,
    /// Value of the header `Authorization`.
    pub login: Option<HeaderValue>,
    /// Who must have signed their certificates; empty: those that the system trusts.
    pub authorities: Vec<Certificate>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("urls", &self.urls)
            .field("login", &self.login.is_some())
            .field("authorities", &self.authorities.len())
            .finish()
    }
}

impl Settings {
    /// From a configuration, whose files are read.
    ///
    /// # Errors
    /// A file that cannot be read, or that holds something else.
    pub fn of(config: &Config) -> Result<Self, ConfigError> {
        let section = &config.alertmanager;
        let wrong = |option: &'static str, message: String, allowed: &str| ConfigError {
            place: config.place_or_file(config.places.alertmanager.get(option)),
            option: format!("alertmanager.{option}"),
            message,
            allowed: allowed.to_owned(),
        };
        let mut settings = Self {
            urls: section.urls.clone(),
            ..Self::default()
        };
        if let Some(file) = &section.password_file {
            let allowed = "a readable file with the password in its first line";
            let user = section.username.as_deref().unwrap_or_default();
            let login = secret(file).and_then(|word| {
                header(format!(
                    "Basic {}",
                    STANDARD.encode(format!("{user}:{word}"))
                ))
            });
            settings.login =
                Some(login.map_err(|message| wrong("password_file", message, allowed))?);
        }
        if let Some(file) = &section.token_file {
            let allowed = "a readable file with the token in its first line";
            let login = secret(file).and_then(|token| header(format!("Bearer {token}")));
            settings.login = Some(login.map_err(|message| wrong("token_file", message, allowed))?);
        }
        if let Some(file) = &section.tls_ca {
            let found = authorities(file);
            settings.authorities = found.map_err(|message| {
                wrong("tls_ca", message, "a readable file of PEM certificates")
            })?;
        }
        Ok(settings)
    }
}

fn header(text: String) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| "its first line holds what no HTTP header can carry".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The first line of a file.
fn secret(file: &Path) -> Result<String, String> {
    let text = String::from_utf8(bytes(file)?);
    let text = text.map_err(|_| format!("{} is not UTF-8", file.display()))?;
    match text.lines().next() {
        Some(line) if !line.trim().is_empty() => Ok(line.trim().to_owned()),
        _ => Err(format!("{} is empty", file.display())),
    }
}

fn authorities(file: &Path) -> Result<Vec<Certificate>, String> {
    let found = Certificate::stack_from_pem(&bytes(file)?)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    match found.is_empty() {
        true => Err(format!("{} holds no certificate", file.display())),
        false => Ok(found),
    }
}

fn bytes(file: &Path) -> Result<Vec<u8>, String> {
    let why = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).map_err(why)?;
    opened
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(why)?;
    match bytes.len() as u64 > MOST_BYTES {
        true => Err(format!(
            "{} is larger than {MOST_BYTES} bytes",
            file.display()
        )),
        false => Ok(bytes),
    }
}
