//! What a session needs, from `[store]` and the files that it names.
//!
//! Input: the section. Output: settings, or the option that is wrong; the file system is read, no connection is made.

use std::fmt;
use std::fs;
use std::path::Path;

use openssl::error::ErrorStack;
use openssl::ssl::{SslContext, SslMethod, SslVerifyMode};

use super::Placement;
use crate::config::{Config, ConfigError};

/// Longest password file, bytes.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// How a Cassandra is reached.
#[derive(Clone)]
pub struct Settings {
    /// `host:port` of the nodes that are asked first.
    pub contact_points: Vec<String>,
    /// Keyspace of the tables.
    pub keyspace: String,
    /// Data centre whose nodes are asked.
    pub local_datacenter: String,
    /// Statements that may be under way at the same time in one call.
    pub in_flight: usize,
    pub(super) login: Option<(String, String)>,
    pub(super) tls: Option<SslContext>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password stays out of it.
        f.debug_struct("Settings")
            .field("contact_points", &self.contact_points)
            .field("keyspace", &self.keyspace)
            .field("local_datacenter", &self.local_datacenter)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Statements under way when nothing else is said: at 256 a node is busy, and latency stays in milliseconds.
    pub const IN_FLIGHT: usize = 256;

    /// Of the configuration; reads the password and the certificates.
    ///
    /// # Errors
    /// The option whose file cannot be used.
    pub fn of(config: &Config) -> Result<Self, ConfigError> {
        let store = &config.store;
        Ok(Self {
            contact_points: store.contact_points.clone(),
            keyspace: store.keyspace.clone(),
            local_datacenter: store.local_datacenter.clone(),
            in_flight: Self::IN_FLIGHT,
            login: login(config)?,
            tls: match &store.tls_ca {
                Some(file) => Some(tls(file).map_err(|message| {
                    let allowed =
                        "a file of certificates in PEM form, readable by the service's user";
                    config.store_error("tls_ca", message, allowed)
                })?),
                None => None,
            },
        })
    }

    /// Where the tables are, in so many copies.
    #[must_use]
    pub fn placement(&self, copies: u8) -> Placement {
        Placement {
            keyspace: self.keyspace.clone(),
            datacenter: self.local_datacenter.clone(),
            copies,
        }
    }
}

fn login(config: &Config) -> Result<Option<(String, String)>, ConfigError> {
    let alone = |name, other| {
        config.store_error(name, format!("is set without {other}"), "both or neither")
    };
    match (&config.store.username, &config.store.password_file) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(alone("username", "store.password_file")),
        (None, Some(_)) => Err(alone("password_file", "store.username")),
        (Some(user), Some(file)) => {
            let password = read_password(file).map_err(|message| {
                let allowed =
                    "a file with the password in its first line, readable by the service's user";
                config.store_error("password_file", message, allowed)
            })?;
            Ok(Some((user.clone(), password)))
        }
    }
}

fn read_password(file: &Path) -> Result<String, String> {
    let said = |error: std::io::Error| format!("{}: {error}", file.display());
    let bytes = fs::metadata(file).map_err(said)?.len();
    if bytes > MAX_PASSWORD_BYTES {
        return Err(format!("{}: has {bytes} bytes", file.display()));
    }
    let text = fs::read_to_string(file).map_err(said)?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(format!("{}: its first line is empty", file.display())),
    }
}

/// Nodes must show a certificate that one in `file` signed; their name is not compared, since nodes are known by address.
fn tls(file: &Path) -> Result<SslContext, String> {
    let context = || -> Result<SslContext, ErrorStack> {
        let mut builder = SslContext::builder(SslMethod::tls_client())?;
        builder.set_ca_file(file)?;
        builder.set_verify(SslVerifyMode::PEER);
        Ok(builder.build())
    };
    context().map_err(|error| {
        let reason = error.errors().first().and_then(|error| error.reason());
        format!("{}: {}", file.display(), reason.unwrap_or("cannot be read"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut crate::config::Store)) -> Config {
        let mut config = Config::default();
        change(&mut config.store);
        config
    }

    fn wrong(config: &Config) -> ConfigError {
        Settings::of(config).expect_err("wrong")
    }

    #[test]
    fn the_password_is_the_first_line_and_is_never_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("password");
        fs::write(&file, "s3cret word\nmore\n").expect("written");
        let settings = Settings::of(&config(|store| {
            store.username = Some("flowvitals".to_owned());
            store.password_file = Some(file);
        }));
        let settings = settings.expect("right");
        let login = settings.login.clone().expect("a login");
        assert_eq!(login, ("flowvitals".to_owned(), "s3cret word".to_owned()));
        assert!(!format!("{settings:?}").contains("s3cret"));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_option() {
        let name = |store: &mut crate::config::Store| store.username = Some("me".to_owned());
        assert_eq!(wrong(&config(name)).option, "store.username");
        let folder = tempfile::tempdir().expect("a folder");
        let (empty, absent) = (folder.path().join("empty"), folder.path().join("absent"));
        fs::write(&empty, "\n").expect("written");
        for file in [&empty, &absent, &folder.path().to_path_buf()] {
            let error = wrong(&config(|store| {
                name(store);
                store.password_file = Some(file.clone());
            }));
            assert_eq!(error.option, "store.password_file");
            assert!(error.message.contains(&*file.to_string_lossy()), "{error}");
        }
        for file in [empty, absent] {
            let error = wrong(&config(|store| store.tls_ca = Some(file.clone())));
            assert_eq!(error.option, "store.tls_ca");
            assert!(error.message.contains(&*file.to_string_lossy()), "{error}");
        }
    }
}
