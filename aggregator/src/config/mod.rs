//! The configuration of an aggregator: `aggregator.toml`.
//!
//! In: text. Out: a typed [`Config`] that needs no further checks but those of the machine and the brokers, or everything
//! that is wrong with it, each with its place. Reading is pure but for [`Config::load`] (the file).
//! Flow: `source → reader → sections, http, rule, schedule → Config`.
//!
//! Limits: [`MAX_ALERTS`] rules, [`service::config::file::MAX_FILE_BYTES`]. What is not built yet is refused, not ignored.

mod http;
mod load;
mod options;
mod rule;
mod schedule;
mod sections;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use http::{Http, Tls};
pub(crate) use load::alerts;
pub use load::read;
pub use rule::{AlertRule, MIN_FLOWS, RulePlaces};
pub use schedule::in_words as active_in_words;
pub(crate) use schedule::time_ms;
pub use sections::{Alertmanager, Kafka, Merge, Role, Store, StoreKind};
use service::config::file;
pub use service::config::{ConfigError, ConfigErrors, ConfigWarning, Place, Source, Wrong};

/// Rules of one aggregator.
pub const MAX_ALERTS: usize = 1024;
/// Name of the site when none is given.
pub const DEFAULT_SITE: &str = "default";

/// Everything that `aggregator.toml` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name of the site whose nodes are merged.
    pub site: String,
    /// What this process does; never empty, none twice.
    pub roles: Vec<Role>,
    /// `[kafka]`
    pub kafka: Kafka,
    /// `[merge]`
    pub merge: Merge,
    /// `[store]`
    pub store: Store,
    /// `[http]`
    pub http: Http,
    /// `[alertmanager]`
    pub alertmanager: Alertmanager,
    /// The rules, in the order of the file.
    pub alerts: Vec<AlertRule>,
    /// Where the options stand that only the machine can judge.
    pub places: Places,
    /// What works but is probably not meant.
    pub warnings: Vec<ConfigWarning>,
    /// Hash of what the file says: comments, spaces and the order of options do not matter.
    pub sha256: [u8; 32],
    /// The file, as the operator named it.
    pub file: PathBuf,
}

/// Where options stand, if they are set; not part of the meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// `kafka.brokers`
    pub kafka_brokers: Option<Place>,
    /// `kafka.properties`, by name.
    pub kafka_properties: BTreeMap<String, Place>,
    /// Options of `store` that say who we are and whom we trust, by name.
    pub store: BTreeMap<&'static str, Place>,
    /// `http.listen`
    pub http_listen: Option<Place>,
    /// `roles`
    pub roles: Option<Place>,
    /// `store.directory`
    pub store_directory: Option<Place>,
    /// `http.token_file` and the other files of the section, by name.
    pub http_files: BTreeMap<&'static str, Place>,
    /// Options of `alertmanager` that name files, by name.
    pub alertmanager: BTreeMap<&'static str, Place>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            site: DEFAULT_SITE.to_owned(),
            roles: vec![Role::Alert, Role::Store],
            kafka: Kafka::default(),
            merge: Merge::default(),
            store: Store::default(),
            http: Http::default(),
            alertmanager: Alertmanager::default(),
            alerts: Vec::new(),
            places: Places::default(),
            warnings: Vec::new(),
            sha256: [0; 32],
            file: PathBuf::from("aggregator.toml"),
        }
    }
}

impl Config {
    /// [`Config::sha256`] as 64 hex digits.
    pub fn sha256_hex(&self) -> String {
        file::hex(&self.sha256)
    }

    /// The place of an option, or else of the file.
    pub fn place_or_file(&self, place: Option<&Place>) -> Place {
        place.cloned().unwrap_or_else(|| Place::whole(&self.file))
    }

    /// What is wrong with the option `name` of `[store]`, as only the machine can tell.
    pub fn store_error(&self, name: &str, message: String, allowed: &str) -> ConfigError {
        ConfigError {
            place: self.place_or_file(self.places.store.get(name)),
            option: format!("store.{name}"),
            message,
            allowed: allowed.to_owned(),
        }
    }

    /// Name of the consumer group of a role.
    pub fn group(&self, role: Role) -> String {
        format!("{}-{role}", self.kafka.group_prefix)
    }

    /// What this process does: without a store there is nothing to store in.
    pub fn running(&self) -> Vec<Role> {
        let roles = self.roles.iter().copied();
        let stores = self.store.kind != StoreKind::None;
        roles
            .filter(|role| stores || *role != Role::Store)
            .collect()
    }

    /// Whether another one differs in nothing but the rules.
    pub fn same_but_rules(&self, other: &Self) -> bool {
        let Self {
            site,
            roles,
            kafka,
            merge,
            store,
            http,
            alertmanager,
            ..
        } = self;
        (site, roles, kafka) == (&other.site, &other.roles, &other.kafka)
            && (merge, store) == (&other.merge, &other.store)
            && (http, alertmanager) == (&other.http, &other.alertmanager)
    }

    /// What a file may leave open, but not one that is run.
    ///
    /// # Errors
    /// If there are no brokers to consume from, or nothing to do.
    pub fn ready_to_run(&self) -> Result<(), ConfigError> {
        if self.kafka.brokers.is_empty() {
            return Err(ConfigError {
                place: self.place_or_file(self.places.kafka_brokers.as_ref()),
                option: "kafka.brokers".to_owned(),
                message: "is missing or empty: there is nothing to consume from".to_owned(),
                allowed: "one or more of host:port, for example [\"127.0.0.1:19092\"]".to_owned(),
            });
        }
        if self.running().is_empty() {
            return Err(ConfigError {
                place: self.place_or_file(self.places.roles.as_ref()),
                option: "roles".to_owned(),
                message: "there is nothing to do: store.kind is \"none\"".to_owned(),
                allowed: "\"alert\" as well, or another store.kind".to_owned(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
